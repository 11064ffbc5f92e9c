"""Whether a call may send crops: each of its servers has to show once that crops give the same rows as the pictures.

`Verb.prove` is `allow_crops` for the verbs that may send crops; `Run` awaits it before it sends anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import numpy as np

from casdk._calls.cropping import Crops
from casdk._calls.fidelity import FidelityMeasurement
from casdk._calls.options import Options
from casdk._calls.outages import ServerState
from casdk._calls.outcome import Sent
from casdk._calls.run import Run
from casdk._calls.sample import Verdict
from casdk._calls.session import Session
from casdk._calls.ways import Way
from casdk._content.canary import Proof
from casdk._content.crops import LOSSY, Lossy
from casdk._engine.callers import Caller
from casdk._engine.logging import logger_of
from casdk.errors import DeadlineError, TransportError

if TYPE_CHECKING:
    from casdk._calls.verbs import Verb
    from casdk.servers import ServerStatus

__all__ = ["allow_crops"]

LOG: Final = logger_of("casdk.calls")
ASK_SECONDS: Final = 30.0
"""How long one server of several has to encode the canaries, connecting included."""
LEAST_SECONDS: Final = 1e-9
"""The timeout of a call that has no time left: 0 s would mean no limit."""


async def allow_crops(canary: Verb, run: Run, caller: Caller[Any]) -> None:
    """Let a call send crops in the place of pictures, if its servers have shown that crops give the same rows.

    Args:
        canary: The verb that encodes pictures as they are.
        run: The call, before anything is sent.
        caller: The thread or loop that the call came from.

    Raises:
        CasdkError: Its only server could not be asked.
    """
    session, options, packing = run.session, run.options, run.packing
    size, deadline, sent = options.image_size, run.deadline, run.sent
    asking = _Asking(canary, caller, session, run.way, packing.model_name, size, deadline, sent)
    proof = await (asking.only_server() if run.way.only is not None else asking.all_servers())
    if proof is None:
        return
    packing.crops = crops = Crops(proof, session.sources, session.limits.max_item_bytes, run.verb.candidates)
    if options.images not in LOSSY:
        return
    least = options.min_fidelity
    verdict = least if isinstance(least, Verdict) else Verdict(least)
    if verdict.written is not None:  # by an earlier stream of the same shard
        packing.crops, sent.fidelity = crops._replace(written=verdict.written), verdict.fidelity
        return
    lossy = cast(Lossy, options.images)
    packing.measurement = FidelityMeasurement(session.cropping, crops, lossy, verdict, asking.encode, sent)
    run.call.sample = packing.measurement.sample


class _Asking(msgspec.Struct, frozen=True):
    """Asks each server of a call to encode pictures; `allow_crops` makes one.

    It does not refer to the `Run`, since the run's `FidelityMeasurement` refers to it: that would be a reference cycle.

    Attributes:
        canary: The verb that encodes pictures as they are.
        caller: The thread or loop that the call came from.
        session: The client's session.
        way: The servers of the call.
        model: The model's name; empty for the server's default model.
        size: The model's side in pixels, if the caller has set ``image_size``.
        deadline: When the call ends at the latest.
        sent: How much the call has sent, to which these pictures are added.
    """

    canary: Verb
    caller: Caller[Any]
    session: Session
    way: Way
    model: str
    size: int | None
    deadline: float | None
    sent: Sent

    async def encode(
        self,
        pictures: Sequence[Any],
        way: Way | None = None,
        most_seconds: float | None = None,
        patience: float | None = None,
    ) -> np.ndarray[Any, Any]:
        """Return the rows of pictures, NaN for a picture without one.

        Args:
            pictures: The pictures, which are sent in one request: a second one may be answered by another device.
            way: The way to the server that is asked; by default the call's.
            most_seconds: The most seconds that it may take; by default all that is left of the call's time.
            patience: Seconds that the server may be away; by default the client's.
        """
        limits = [] if self.deadline is None else [max(self.deadline - monotonic(), LEAST_SECONDS)]
        limits += [] if most_seconds is None else [most_seconds]
        options = Options(
            errors="return",
            timeout=min(limits, default=None),
            parameters={"model_name": self.model} if self.model else None,
            batch_size=len(pictures),
            patience=patience,
        )
        asked = Run(self.session, self.canary, pictures, options, way=way or self.way)
        result = await asked.run(self.caller)
        self.sent.ask(asked.sent.bytes)
        rows: np.ndarray[Any, Any] = result()
        return rows

    async def only_server(self) -> Proof | None:
        """Return the proof of the call's only server."""
        return await self.session.cropping.prove(self.way.address, self.model, self.size, self.encode)

    async def all_servers(self) -> Proof | None:
        """Return the proof that holds for all servers."""
        way, cropping = self.way, self.session.cropping
        if not way.is_fixed:
            cropping.warn("the servers of a pool with resolve=True may change, and new ones have shown nothing")
            return None
        tasks = [
            asyncio.get_running_loop().create_task(self._one(Way.to(transport, ServerState()), status), name="casdk")
            for transport, status in zip(way.transports, way.statuses(), strict=True)
        ]
        try:
            shown = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        proofs = {str(transport.endpoint): proof for transport, proof in zip(way.transports, shown, strict=True)}
        if reason := _difference(proofs):
            cropping.warn(reason)
        return _common(proofs)

    async def _one(self, way: Way, status: ServerStatus) -> Proof | None:
        """Return the proof of one of several servers; one that is away has none, and the next call asks it."""
        cropping, asked = self.session.cropping, (way.address, self.model, self.size)

        def encode(pictures: Sequence[Any]) -> Coroutine[Any, Any, np.ndarray[Any, Any]]:
            return self.encode(pictures, way, ASK_SECONDS)

        if status.state != "away" or cropping.is_known(*asked):
            try:
                return await cropping.prove(*asked, encode)
            except (TransportError, DeadlineError) as error:
                # No reason to stop the call, which has other servers and reports an error if none of them answers.
                LOG.debug("%s could not be asked: %s", way.address, error)
        cropping.warn(f"{way.address} could not be asked how it prepares them")
        return None


def _difference(proofs: Mapping[str, Proof | None]) -> str:
    """Return, in words, how the sizes of the servers' models differ; ``""`` if all known sizes are equal."""
    sizes = {server: proof.size for server, proof in proofs.items() if proof is not None}
    if len(set(sizes.values())) < 2:
        return ""
    found = ", ".join(f"{server} at {size} x {size} pixels" for server, size in sizes.items())
    return f"the models of the servers look at squares of other sizes: {found}"


def _common(proofs: Mapping[str, Proof | None]) -> Proof | None:
    """Return the proof that holds for all servers: their one size, and the forms that each of them has shown."""
    shown = [proof for proof in proofs.values() if proof is not None]
    if len(shown) < len(proofs) or len({proof.size for proof in shown}) != 1:
        return None
    return Proof(shown[0].size, frozenset.intersection(*(proof.forms for proof in shown)))
