"""Batches -> requests: URLs are fetched, files are read, and items are packed, on workers.

`Run` packs a batch of sentences by itself, on the engine, and calls this for every other batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from casdk._calls.batches import Batch, Request
from casdk._calls.cropping import CroppedBatch, Crops
from casdk._calls.decisions import Call
from casdk._calls.fidelity import FidelityMeasurement
from casdk._calls.options import Options
from casdk._calls.routes import route
from casdk._calls.session import ByteShare, Session
from casdk._content.inputs import are_plain, urls_of
from casdk._engine.callers import Caller
from casdk._engine.process import engine
from casdk._rust import Kind, kind_of_uri
from casdk._transport.codecs import Packed, Packer, failure_of
from casdk._wording import class_name, message_of
from casdk.documents import Document
from casdk.errors import InputTypeError

if TYPE_CHECKING:
    from casdk._calls.verbs import Verb
    from casdk._calls.ways import Way
    from casdk._rust import Codec

__all__ = ["Packing", "Writing", "leave_out"]

T = TypeVar("T")

URI: Final = Document.__dict__["uri"]


class Writing(msgspec.Struct, frozen=True):
    """How the requests of a call are written; calls that ask for the same share one.

    Attributes:
        endpoint: Endpoint of the executor, with the model's name at its end if the call names one.
        model_name: That name, or ``""``.
        packers: The packer for each form that a server may want.
    """

    endpoint: str
    model_name: str
    packers: Mapping[Codec, Packer]


def _make_writing(session: Session, codecs: tuple[Codec, ...], verb: Verb, options: Options) -> Writing:
    endpoint, parameters = route(verb.endpoint, options.parameters, **verb.extra)
    limits, sources = session.limits, session.sources
    packers: dict[Codec, Packer] = {}
    try:
        for codec in codecs:
            packers[codec] = Packer(
                codec,
                endpoint,
                parameters,
                check_images=options.check_images,
                max_item_bytes=limits.max_item_bytes,
                max_message_bytes=limits.max_message_bytes,
                whole=verb.whole,
                candidates=verb.candidates,
                allow_empty=verb.allow_empty,
                local_files=sources.local_files,
                fetch_urls=sources.fetch_urls,
            )
    except Exception as error:
        if options.parameters is None:  # a signal's handler has raised it
            raise
        if isinstance(error, TypeError):  # raised by the packer, whose message names the parameter
            raise InputTypeError(str(error)) from error.__cause__
        # Raised by code of the caller's, in the class of a parameter.
        raise InputTypeError(f"parameters cannot be read: {class_name(error)}: {message_of(error)}") from error
    return Writing(endpoint, endpoint[len(verb.endpoint) + 1 :], packers)


class Packing:
    """Packs the batches of one call into requests; its `Run` has one.

    Args:
        session: The client's session.
        codecs: The forms that requests may have to be written in.
        verb: The call's verb.
        options: The call's options.
        share: The call's share of the bytes that may be in flight.

    Attributes:
        endpoint: Endpoint of the executor, with the model's name at its end if the call names one.
        model_name: That name, or ``""``.
        packers: The packer for each form that a server may want.
        crops: How crops are made, if crops are sent in the place of pictures.
        measurement: Measures how much crops with loss lose, if the call asks for such crops.

    Raises:
        InputTypeError: The call's parameters cannot be sent.
    """

    def __init__(
        self, session: Session, codecs: tuple[Codec, ...], verb: Verb, options: Options, share: ByteShare
    ) -> None:
        asked = codecs, verb.endpoint, verb.whole, verb.candidates, verb.allow_empty, options.check_images
        has_own = options.parameters is not None or verb.extra  # parameters; without them, a client makes it once
        writing = None if has_own else session.writings.get(asked)
        if writing is None:
            writing = _make_writing(session, codecs, verb, options)
            if not has_own:
                session.writings[asked] = writing
        self.endpoint: Final = writing.endpoint
        self.model_name: Final = writing.model_name
        self.packers: Final = writing.packers
        self._session = session
        self._candidates = verb.candidates
        self._share = share
        self.crops: Crops | None = None
        self.measurement: FidelityMeasurement | None = None

    async def pack(
        self, request: Request, way: Way, caller: Caller[Any], is_patient: Callable[[Batch], bool]
    ) -> Packed:
        """Pack a batch of any items, once there is room for it.

        Args:
            request: The request.
            way: The servers, which decide in which form it is written.
            caller: The thread or loop that the call came from, whose objects are in the batch.
            is_patient: Whether a batch may wait until other requests are answered.
        """
        batch = request.batch
        if self._share.is_full() and is_patient(batch):
            await self._share.room()
            batch.taken_at = perf_counter()
        items, kinds, crops, patient, request_id = batch.items, batch.kinds, self.crops, is_patient(batch), request.id
        request.codec = way.codec
        packer = self.packers[request.codec]
        if (packed := packer.pack_sentences(request_id, items, kinds)) is not None:
            return packed
        pack = packer.pack
        theirs = False
        if Kind.DOCUMENT in kinds:
            # Documents may be of the caller's own class, so their URLs are read where they are packed.
            theirs = not are_plain(items)
            find = partial(urls_of, items, kinds, self._candidates)
            at_once: Callable[[], Packed | list[str]] = list if crops else partial(pack, request_id, items, kinds)
            found = await self._on_worker(lambda: find() or at_once(), caller, patient, theirs)
            if isinstance(found, Packed):
                return found
            urls = found
        else:
            urls = urls_of(items, kinds, None)
        fetched = None
        if urls and self._session.sources.fetch_urls:  # if URLs are not allowed, the packer refuses them
            fetched, batch.errors = await self._session.downloads.fetch(urls)
        batch.crops = ()
        if crops is not None:
            items, kinds, batch.crops, _ = await self._crop(batch, fetched, crops)
        return await self._on_worker(lambda: pack(request_id, items, kinds, fetched), caller, patient, theirs)

    async def _crop(self, batch: Batch, fetched: Mapping[str, bytes] | None, crops: Crops) -> CroppedBatch:
        if self.measurement is not None:
            return await self.measurement.crop(batch, fetched)
        return await self._session.cropping.crop(batch.items, batch.kinds, fetched, crops)

    async def _on_worker(self, pack: Callable[[], T], caller: Caller[Any], patient: bool, theirs: bool) -> T:
        """Pack on a worker, or on a reader thread if that runs the caller's code, so that it holds up no other call."""
        turns, workers = self._session.packing, engine().workers
        if theirs:
            turns, workers = self._session.packing_theirs, engine().readers
        while True:
            # No more at a time than there are threads: a message counts as bytes in flight only once it is packed.
            async with turns:
                if not (patient and self._share.is_full()):
                    packed: T = await caller.run_on_worker(pack, workers)
                    return packed
            await self._share.room()


def leave_out(batch: Batch, packed: Packed, call: Call) -> None:
    """Reduce a batch to the items in its message; items without room are sent next, and unfit items are refused."""
    if packed.taken < len(batch):
        call.cut(batch.part(packed.taken))
        batch.indices = batch.indices[: packed.taken]
        batch.items = batch.items[: packed.taken]
        batch.kinds = batch.kinds[: packed.taken]
        batch.crops = batch.crops[: packed.taken]
    if not packed.failures:
        return
    for position, kind, reason in packed.failures:
        item = batch.items[position]
        place = _place_of(item)
        cause: BaseException | None = packed.causes.get(position)
        if (lost := (batch.errors or {}).get(place)) is not None:
            cause, reason = lost, f"{reason}: {lost}"
        elif kind == "not_image" and reason.startswith("it ") and place and kind_of_uri(place) != Kind.DATA_URI:
            reason = f"{place}: {reason}"
        call.refuse(failure_of(kind, batch.indices[position], item, reason, cause))
    unfit = {position for position, _, _ in packed.failures}
    rest = batch.without(unfit)
    batch.crops = [crops for position, crops in enumerate(batch.crops) if position not in unfit]
    batch.indices, batch.items, batch.kinds = rest.indices, rest.items, rest.kinds


def _place_of(item: object) -> str:
    """Return the path or URL of an item. A Document's is read from the slot, since a subclass may override ``uri``."""
    if isinstance(item, str):
        return item
    uri = URI.__get__(item) if isinstance(item, Document) else ""
    return uri if type(uri) is str else ""
