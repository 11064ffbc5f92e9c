"""Pictures of a batch -> their crops, for servers that have shown that crops give the same rows.

A session has one `Cropping`; the calls with ``images=`` ask it what a server has shown, and have it make the crops.
"""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from casdk._content.canary import Proof, forms_shown, pictures_of_forms, pictures_of_sizes, size_shown
from casdk._content.crops import DecodingMemory, Lossy, Written, crop_of_array, crop_of_bytes, written_again
from casdk._content.inputs import Sources
from casdk._engine.logging import logger_of
from casdk._engine.process import engine
from casdk._rust import Kind, kind_of_uri, read_uri
from casdk.documents import Document, DocumentArray
from casdk.errors import ServerError

__all__ = ["CroppedBatch", "Cropping", "Crops", "Encode", "Pair", "Proofs", "images_in"]

LOG: Final = logger_of("casdk.calls")
BATCHES_AT_ONCE: Final = 2
"""Batches of a client that are cropped at the same time: one follows while the last pictures of another are decoded."""
ON_DISK: Final = (Kind.PATH, Kind.FILE_URL)

Encode: TypeAlias = "Callable[[Sequence[Any]], Coroutine[Any, Any, np.ndarray[Any, Any]]]"
"""Sends pictures as they are; returns their rows, NaN for a picture without one."""
Asked: TypeAlias = "tuple[str, str, int | None]"
"""A server's address, the model's name at the end of the endpoint, and ``image_size`` if the caller has set it."""
Proofs: TypeAlias = "dict[Asked, Proof | None]"
"""What each server has shown about a model so far; ``None`` if it has shown nothing."""


class Pair(NamedTuple):
    """One crop, written in two ways.

    Attributes:
        position: Position of the item in its batch.
        exact: The crop without loss.
        lossy: The crop with loss.
    """

    position: int
    exact: bytes
    lossy: bytes


class CroppedBatch(NamedTuple):
    """A batch as it is packed.

    Attributes:
        items: The items, with a crop in the place of each picture that has one.
        kinds: The kind of each item.
        crops: How many crops are at each position: a Document may have several candidates.
        pairs: The pictures that could have been sent with loss, if loss is measured.
    """

    items: list[Any]
    kinds: bytes
    crops: list[int]
    pairs: list[Pair]


class Cropping:
    """Finds out how the servers of a client prepare images, and makes crops for its calls.

    Args:
        proofs: What servers have shown so far; new proofs are added to it.
    """

    def __init__(self, proofs: Proofs) -> None:
        self._proofs = proofs
        self._proving: defaultdict[Asked, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._memory = DecodingMemory()
        self._turns = asyncio.Semaphore(BATCHES_AT_ONCE)
        self._warned: set[str] = set()

    def warn(self, reason: str) -> None:
        """Log why no crops are sent, once for each reason."""
        if reason not in self._warned:
            self._warned.add(reason)
            LOG.warning("all images are sent as they are: %s", reason)

    def is_known(self, server: str, model: str, size: int | None) -> bool:
        """Whether a server has been asked; the arguments are those of `prove`."""
        return (server, model, size) in self._proofs

    async def prove(self, server: str, model: str, size: int | None, encode: Encode) -> Proof | None:
        """Return what a server shows about a model; each server is asked once.

        Args:
            server: The server's address.
            model: The model's name; empty for the server's default model.
            size: The model's side in pixels, if the caller has set ``image_size``.
            encode: Has the server encode pictures.
        """
        asked = server, model, size
        async with self._proving[asked]:
            if asked not in self._proofs:
                self._proofs[asked] = proof = await _prove(size, encode)
                if proof is None:
                    self.warn(_reason(*asked))
                else:
                    what = server, *_described(proof)
                    LOG.info("%s: images of %d x %d pixels give the rows of originals, of: %s", *what)
            return self._proofs[asked]

    async def crop(
        self, items: Sequence[Any], kinds: bytes, fetched: Mapping[str, bytes] | None, to: Crops
    ) -> CroppedBatch:
        """Return a batch with crops in the place of pictures, each made on a thread, without the caller's code."""
        loop, croppers = asyncio.get_running_loop(), engine().croppers
        read, read_kinds, counts = list(items), bytearray(kinds), [0] * len(items)
        at, parts, making, pairs = [], [], [], []
        async with self._turns:
            for position, (item, kind) in enumerate(zip(items, kinds, strict=True)):
                for part in _parts(item, kind, to.candidates):
                    at.append(position)
                    parts.append(part)
                    making.append(loop.run_in_executor(croppers, to.crop_of, part, fetched or {}, self._memory))
            made = await asyncio.gather(*making)
        for position, part, crop in zip(at, parts, made, strict=True):
            if crop is None:
                continue
            if crop.lossy is not None:
                pairs.append(Pair(position, crop.data, crop.lossy))
            if not crop.is_smaller:
                continue
            counts[position] += 1
            if kinds[position] != Kind.DOCUMENT:
                read[position], read_kinds[position] = crop.data, Kind.BLOB
            else:
                read[position] = part.put(read[position], items[position], crop.data, to.candidates)
        return CroppedBatch(read, bytes(read_kinds), counts, pairs)


class _Part(NamedTuple):
    """One picture of an item.

    Attributes:
        source: A path, a URL, bytes, or pixels.
        kind: The `casdk._rust.Kind` of the source.
        candidate: Position among a Document's candidates; -1 for the picture of the item itself.
    """

    source: Any
    kind: int
    candidate: int = -1

    def put(self, document: Document, original: Document, crop: bytes, candidates: str | None) -> Document:
        """Return a copy of a Document with a crop in the place of this picture; the caller's own does not change."""
        if document is original:
            document = copy.copy(document)
        if self.candidate < 0:
            document.blob = crop
            return document
        assert candidates is not None
        nested = list(getattr(document, candidates))
        nested[self.candidate] = copy.copy(nested[self.candidate])
        nested[self.candidate].blob = crop
        setattr(document, candidates, DocumentArray(nested))
        return document


def _parts(item: Any, kind: int, candidates: str | None) -> list[_Part]:
    """Return the pictures of an item that can be read without running the caller's code."""
    if kind == Kind.TEXT:
        return []
    if kind != Kind.DOCUMENT:
        return [_Part(item, kind)]
    found = [_part_of(item, -1)]
    if candidates is not None and type(item) is Document:
        nested = getattr(item, candidates)
        if type(nested) in (list, DocumentArray):
            found += [_part_of(document, at) for at, document in enumerate(nested)]
    return [part for part in found if part is not None]


def images_in(item: Any, kind: int, candidates: str | None) -> int:
    """Return how many pictures an item has that can be read without running the caller's code.

    Args:
        item: The item.
        kind: Its `casdk._rust.Kind`.
        candidates: Attribute of Documents whose nested Documents are cropped, too.
    """
    return len(_parts(item, kind, candidates))


def _part_of(document: Any, candidate: int) -> _Part | None:
    if type(document) is not Document or document.text:
        return None
    if type(document.blob) is bytes and document.blob:
        return _Part(document.blob, Kind.BLOB, candidate)
    if document.tensor is not None:
        return _Part(document.tensor, Kind.TENSOR, candidate) if type(document.tensor) is np.ndarray else None
    if type(document.uri) is str and document.uri:
        return _Part(document.uri, kind_of_uri(document.uri), candidate)
    return None


class _Made(NamedTuple):
    """The crop of a picture.

    Attributes:
        data: The crop, as it is sent.
        is_smaller: Whether it has fewer bytes than the picture; if not, the picture is sent as it is.
        lossy: The crop with loss, if loss is measured and this has fewer bytes than the picture.
    """

    data: bytes
    is_smaller: bool
    lossy: bytes | None


class Crops(NamedTuple):
    """How one call makes its crops.

    Attributes:
        proof: What the servers have shown.
        sources: Where the client may read images from.
        most: Bytes that an item may have.
        candidates: Attribute of Documents whose nested Documents are cropped, too.
        written: How crops are written.
        tried: How exact crops are written a second time, if loss is measured.
    """

    proof: Proof
    sources: Sources
    most: int
    candidates: str | None
    written: Written = "exact"
    tried: Lossy | None = None

    def crop_of(self, part: _Part, fetched: Mapping[str, bytes], memory: DecodingMemory) -> _Made | None:
        """Return the crop of a picture, or ``None`` if the picture has to be sent as it is."""
        size, forms = self.proof
        try:
            if part.kind == Kind.TENSOR:
                weight, crop = part.source.nbytes, crop_of_array(part.source, size, forms, memory, self.written)
            else:
                data = self._read(part, fetched)
                if data is None or len(data) > self.most:
                    return None
                weight, crop = len(data), crop_of_bytes(data, size, forms, memory, self.written)
        except Exception as error:
            # The packer reads the picture again and reports what is wrong with it; or the server does.
            LOG.debug("an image is sent as it is, since no crop can be made of it: %s", type(error).__name__)
            return None
        if crop is None:
            return None
        lossy = None if self.tried is None else written_again(crop.data, self.tried)
        is_lossy_smaller = lossy is not None and len(lossy) < weight
        return _Made(crop.data, len(crop.data) < weight, lossy if is_lossy_smaller else None)

    def _read(self, part: _Part, fetched: Mapping[str, bytes]) -> bytes | None:
        if part.kind == Kind.BLOB:
            data: bytes = part.source
            return data
        if part.kind == Kind.WEB_URL:
            return fetched.get(part.source)
        if part.kind == Kind.DATA_URI or (part.kind in ON_DISK and self.sources.local_files):
            return read_uri(part.source, self.most)
        return None


async def _prove(size: int | None, encode: Encode) -> Proof | None:
    run = asyncio.get_running_loop().run_in_executor
    croppers = engine().croppers
    try:
        rows = await encode(await run(croppers, pictures_of_sizes, size))
    except ServerError as error:
        LOG.warning("the server failed on the pictures that show how it prepares images: %s", error)
        return None
    shown = size_shown(rows, size)
    if shown is None:
        return None
    try:
        rows = await encode(await run(croppers, pictures_of_forms, shown))
    except ServerError as error:
        LOG.warning("the server failed on pictures of some forms, so only JPEGs are cropped: %s", error)
        rows = np.empty((0, 0))
    return Proof(shown, forms_shown(rows, shown))


def _described(proof: Proof) -> tuple[int, int, str]:
    return proof.size, proof.size, ", ".join(sorted(f"{form.format} {form.mode}" for form in proof.forms))


def _reason(server: str, model: str, size: int | None) -> str:
    which = f"{server} with the model {model!r}" if model else server
    crops = "any size" if size is None else f"{size} x {size} pixels"
    return (
        f"{which} gives other rows for crops of {crops} than for the picture, so it prepares images in another way "
        "than clip_server does"
    )
