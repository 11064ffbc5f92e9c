"""How far the rows of crops with loss are off: each call measures it on its own first images, before it sends others.

The first images of a call (`Sample`) are sent as exact crops, and the caller gets their rows. When another image is to
be sent, the same crops are encoded again, with loss, and the rows are compared. A call without another image does not
measure anything. `casdk._calls.proofs` makes the measurement of a call that wants crops with loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from casdk._calls.batches import Batch, Request
from casdk._calls.cropping import CroppedBatch, Cropping, Crops, Pair, images_in
from casdk._calls.outcome import Sent
from casdk._calls.sample import FEWEST_IMAGES, SAMPLE_IMAGES, Sample, Verdict
from casdk._calls.tasks import Tasks
from casdk._content.crops import Lossy, Written
from casdk._engine.logging import logger_of
from casdk.errors import ReplyError, ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from casdk._transport.codecs import Reply
    from casdk._transport.transport import Received

__all__ = ["FidelityMeasurement", "least_cosine"]

LOG: Final = logger_of("casdk.calls")


class Encode(Protocol):
    """Has the server of a call encode crops; returns their rows, NaN for a crop without one."""

    async def __call__(self, pictures: Sequence[Any], *, patience: float) -> NDArray[Any]: ...


class _Measured(NamedTuple):
    """An image of the sample that was sent as an exact crop.

    Attributes:
        item: Index of its item.
        exact: The exact crop.
        lossy: The crop with loss.
        row: The row of the exact crop; ``None`` if the answer has no row for each item, as that of ``rank``.
    """

    item: int
    exact: bytes
    lossy: bytes
    row: NDArray[Any] | None


class FidelityMeasurement:
    """Decides for one call whether its crops are written with loss; used on the engine's loop, by `Packing` and `Run`.

    Args:
        cropping: Makes the crops.
        crops: How crops are made.
        lossy: How the caller wants crops to be written.
        verdict: Gets the decision and the measured cosine.
        encode: Has the server encode crops.
        sent: How much the call has sent; it gets the measured cosine, too.

    Attributes:
        sample: The images that are measured.
    """

    def __init__(
        self, cropping: Cropping, crops: Crops, lossy: Lossy, verdict: Verdict, encode: Encode, sent: Sent
    ) -> None:
        self.sample: Final = Sample(lambda item, kind: images_in(item, kind, crops.candidates), verdict)
        self._cropping = cropping
        self._crops = crops._replace(tried=lossy)
        self._lossy: Lossy = lossy
        self._verdict = verdict
        self._encode = encode
        self._sent = sent
        self._is_measuring = False
        self._pairs: dict[int, list[Pair]] = {}
        """The crops of images on their way, by the index of their item."""
        self._measured: list[_Measured] = []

    async def crop(self, batch: Batch, fetched: Mapping[str, bytes] | None) -> CroppedBatch:
        """Return a batch with crops in the place of pictures, written as decided, or without loss before that.

        Args:
            batch: The batch; `leave` has to be called when the attempt to send it is over.
            fetched: The images behind its URLs.
        """
        cropped = await self._cropping.crop(batch.items, batch.kinds, fetched, self._crops)
        pairs: dict[int, list[Pair]] = {}
        for pair in cropped.pairs:
            pairs.setdefault(batch.indices[pair.position], []).append(pair)
        self._pairs.update(pairs)
        return cropped

    def leave(self, request: Request, received: Received | None) -> None:
        """Note that the attempt to send a batch is over.

        Args:
            request: The attempt.
            received: The reply, if its rows were stored.
        """
        left = {index: pairs for index in request.batch.indices if (pairs := self._pairs.pop(index, None))}
        if received is None or not left:
            return
        rows = self._rows_of(request, received.reply)
        self._measured += [
            _Measured(index, pair.exact, pair.lossy, rows.get(index)) for index, pairs in left.items() for pair in pairs
        ]
        self._measured.sort(key=lambda one: one.item)
        del self._measured[SAMPLE_IMAGES:]

    def _rows_of(self, request: Request, reply: Reply) -> dict[int, NDArray[Any]]:
        """Return the row of each item by its index; none, if an item may have several pictures, or replies no rows."""
        batch = request.batch
        if not reply.width or self._crops.candidates is not None:
            return {}
        rows = np.empty((len(batch), reply.width), np.float32)
        try:
            missing = reply.place(rows, 0, len(batch), request.id)
        except ReplyError:  # if callbacks take the replies, their rows were not checked before
            return {}
        return {index: rows[at] for at, index in enumerate(batch.indices) if at not in missing}

    def begin(self, tasks: Tasks, patience: float) -> None:
        """Begin to measure the loss, since another image is to be sent.

        Args:
            tasks: The call's tasks, among which the measurement is one.
            patience: Seconds that the server may be away.
        """
        if not self._is_measuring:
            self._is_measuring = True
            tasks.spawn(self._measure, patience)

    async def _measure(self, patience: float) -> None:
        if len(self._measured) < FEWEST_IMAGES:
            self.sample.grow()
        else:
            await self._compare(patience)
        self._is_measuring = False

    async def _compare(self, patience: float) -> None:
        """Have the sample encoded with loss, compare the rows, and decide."""
        measured = self._measured
        # The reply of ``rank`` has scores and no rows, so the exact crops have to be encoded, too.
        unknown = [one.exact for one in measured if one.row is None]
        try:
            rows = await self._encode([*(one.lossy for one in measured), *unknown], patience=patience)
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
        """Write crops as the caller wants; or without loss, if the smallest cosine is unknown or too small."""
        self._sent.fidelity = self._verdict.fidelity = fidelity
        if fidelity is None:
            LOG.warning("the server gave no rows for crops as %s, so all go without loss", self._lossy)
            self._use("exact")
            return
        found = f"crops as {self._lossy}: of {len(self._measured)} images, the smallest cosine is {fidelity:.6f}"
        if fidelity >= self._verdict.least:
            LOG.info("%s", found)
            self._use(self._lossy)
        else:
            LOG.warning("%s, below min_fidelity=%g: all go without loss", found, self._verdict.least)
            self._use("exact")

    def _use(self, written: Written) -> None:
        """Write all crops in this way from now on, and let the rest of the items be sent."""
        end = self.sample.end
        assert end is not None  # a measurement begins only when an item behind the sample waits
        self._verdict.written, self._verdict.first = written, end
        self._crops = self._crops._replace(written=written, tried=None)
        self._measured = []
        self.sample.close()


def least_cosine(exact: NDArray[Any], lossy: NDArray[Any]) -> float | None:
    """Return the smallest cosine of two rows at the same position.

    Args:
        exact: Rows ``[N, D]`` of exact crops, NaN for a crop without one.
        lossy: Rows ``[N, D]`` of the crops with loss, NaN for a crop without one.

    Returns:
        ``None`` if no exact crop has a row, or one that has a row has none with loss.
    """
    there = np.isfinite(exact).all(axis=1)
    one, two = exact[there].astype(np.float64), lossy[there].astype(np.float64)
    if not one.size or not np.isfinite(two).all():
        return None
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    products = np.einsum("nd,nd->n", one, two)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return min(1.0, float(cosines.min()))
