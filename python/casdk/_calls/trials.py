"""Crops with loss -> how far off their rows are: measured by each call on its own first images, before it sends any.

The first images of a call go as exact crops, one request after the other, and their rows are the caller's. Only when
another image is to be sent are the same crops encoded again, with loss, and the rows compared. So a call that has no
others pays for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from casdk._calls.batches import Batch, Request
from casdk._calls.cropping import CroppedBatch, Cropping, Crops, Encode, Pair
from casdk._calls.outcome import Sent
from casdk._content.crops import Lossy, Written
from casdk._engine.logging import logger_of
from casdk.errors import ReplyError, ServerError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from casdk._transport.codecs import Reply
    from casdk._transport.transport import Received

__all__ = ["MEASURED_IMAGES", "Trial", "least_cosine"]

LOG: Final = logger_of("casdk.calls")
MEASURED_IMAGES: Final = 32
"""How many images of a call are measured."""


class _Measured(NamedTuple):
    """An image that went as an exact crop.

    Attributes:
        exact: That crop.
        lossy: The same with loss.
        row: What the server has answered with; ``None`` where an answer has no row for each item, as that of ``rank``.
    """

    exact: bytes
    lossy: bytes
    row: NDArray[Any] | None


class Trial:
    """Decides for one call how its crops are written. Used on the engine's loop.

    While nothing is decided, one batch has the turn at a time, from when it is cropped until its attempt is over.

    Args:
        cropping: Makes the crops.
        crops: Which ones.
        lossy: How they are to be written.
        least: The smallest cosine that two rows of one image may have for that.
        encode: Has the server encode crops.
        sent: What the call has sent, where the smallest cosine is written down.
    """

    def __init__(
        self, cropping: Cropping, crops: Crops, lossy: Lossy, least: float, encode: Encode, sent: Sent
    ) -> None:
        self._cropping = cropping
        self._crops = crops._replace(tried=lossy)
        self._lossy: Lossy = lossy
        self._least = least
        self._encode = encode
        self._sent = sent
        self._is_decided = False
        self._turn = asyncio.Lock()
        self._batch: Batch | None = None
        """The batch that has the turn."""
        self._pairs: dict[int, list[Pair]] = {}
        """The crops of its images, by the index of their item."""
        self._measured: list[_Measured] = []

    async def crop(self, batch: Batch, fetched: Mapping[str, bytes] | None) -> CroppedBatch:
        """Return a batch with crops for pictures, once it is known how they are to be written.

        Args:
            batch: The batch; `leave` has to follow, whatever becomes of it.
            fetched: What its URLs led to.

        Raises:
            CasdkError: The server could not be asked.
        """
        if not self._is_decided:
            await self._turn.acquire()
            self._batch = batch
            if not self._is_decided and len(self._measured) >= MEASURED_IMAGES:
                await self._measure()
            if self._is_decided:
                self._end_turn()
        cropped = await self._cropping.crop(batch.items, batch.kinds, fetched, self._crops)
        if self._batch is batch:
            for pair in cropped.pairs:
                self._pairs.setdefault(batch.indices[pair.position], []).append(pair)
            if not self._pairs:
                self._end_turn()
        return cropped

    def leave(self, request: Request, received: Received | None) -> None:
        """The attempt to send a batch is over.

        Args:
            request: The attempt.
            received: The answer, if it has one that was placed.
        """
        if request.batch is not self._batch:
            return
        pairs = self._pairs
        self._end_turn()
        if received is None:
            return
        rows = self._rows_of(request, received.reply)
        for index in request.batch.indices:
            self._measured += [_Measured(pair.exact, pair.lossy, rows.get(index)) for pair in pairs.get(index, ())]
        del self._measured[MEASURED_IMAGES:]

    def _end_turn(self) -> None:
        self._batch, self._pairs = None, {}
        self._turn.release()

    def _rows_of(self, request: Request, reply: Reply) -> dict[int, NDArray[Any]]:
        """Return the row of each item by its index, as far as the reply has one that is of the item's only picture."""
        batch = request.batch
        if not reply.width or self._crops.candidates is not None:
            return {}
        rows = np.empty((len(batch), reply.width), np.float32)
        try:
            missing = reply.place(rows, 0, len(batch), request.id)
        except ReplyError:  # of a call whose callbacks take the replies, nobody has looked at the rows
            return {}
        return {index: rows[at] for at, index in enumerate(batch.indices) if at not in missing}

    async def _measure(self) -> None:
        """Encode with loss what went without, and decide."""
        measured = self._measured
        unknown = [one.exact for one in measured if one.row is None]
        work = self._encode([*(one.lossy for one in measured), *unknown])
        try:
            # A task of its own: a call notes the task it runs in, and this one may be that of the call around it.
            rows = await asyncio.get_running_loop().create_task(work, name="casdk")
        except ServerError as error:
            LOG.warning("the server failed on crops as %s, so all go without loss: %s", self._lossy, error)
            self._use("exact")
            return
        lossy, others = rows[: len(measured)], iter(rows[len(measured) :])
        exact = [next(others) if one.row is None else one.row for one in measured]
        if any(len(row) != lossy.shape[1] for row in exact):
            self._decide(None)
        else:
            self._decide(least_cosine(np.array(exact), lossy))

    def _decide(self, fidelity: float | None) -> None:
        """Write crops as the caller likes, or without loss if the smallest cosine is not known, or too small."""
        self._sent.fidelity = fidelity
        if fidelity is None:
            LOG.warning("the server gave no rows for crops as %s, so all go without loss", self._lossy)
            self._use("exact")
            return
        found = f"crops as {self._lossy}: of {len(self._measured)} images, the smallest cosine is {fidelity:.6f}"
        if fidelity >= self._least:
            LOG.info("%s", found)
            self._use(self._lossy)
        else:
            LOG.warning("%s, below min_fidelity=%g: all go without loss", found, self._least)
            self._use("exact")

    def _use(self, written: Written) -> None:
        """Write all crops like this from now on."""
        self._crops = self._crops._replace(written=written, tried=None)
        self._is_decided = True
        self._measured = []


def least_cosine(exact: NDArray[Any], lossy: NDArray[Any]) -> float | None:
    """Return the smallest cosine of two rows at the same place.

    Args:
        exact: Rows ``[N, D]``, NaN where there is none.
        lossy: The others.

    Returns:
        ``None`` if there are no two, or one of the first has none of the others.
    """
    there = np.isfinite(exact).all(axis=1)
    one, two = exact[there].astype(np.float64), lossy[there].astype(np.float64)
    if not one.size or not np.isfinite(two).all():
        return None
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    products = np.einsum("nd,nd->n", one, two)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return min(1.0, float(cosines.min()))
