"""A bulk run from its beginning, or from where it was stopped, to its end; one body for both APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import msgspec
import numpy as np

from casdk.bulk.manifest import Manifest, Settings, Shard, Share
from casdk.bulk.modes import Mode, OnLoop, OnThread
from casdk.bulk.progress import Bar
from casdk.bulk.shares import Reading
from casdk.bulk.sources import AsyncSource, open_source
from casdk.bulk.targets import Held, Rows, Target, described
from casdk.bulk.work import Work
from casdk.errors import BulkError, CasdkError, ConfigError, ItemError
from casdk.models import Text

if TYPE_CHECKING:
    from casdk.client import Client
    from casdk.models import EncodeResult

__all__ = ["BulkResult", "Run"]

COMPARED_BATCHES: Final = 32
"""Batches of items that are read at a time where nothing is encoded."""
PROBE: Final = Text("width")
"""Encoded to learn how wide rows are, where all items of a shard have failed."""


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a bulk run has come to.

    Attributes:
        target: The file or the folder, as it was named.
        rows: Rows in it: one for each item of the input.
        failed: How many of the items have no embedding.
        encoded: Rows that this call has made; the others were there. 0: all was there.
        seconds: That this call took.
        batch_size: Items per request.
        space: The vector space of its rows, as `Client.space` returned it before the first item was sent; ``None`` if
            the server encodes neither of the two items that this one sends.
    """

    target: str
    rows: int
    failed: int
    encoded: int
    seconds: float
    batch_size: int
    space: str | None


class Run:
    """One call of ``encode_to``.

    Args:
        client: Encodes.
        target: Where rows go.
        content: The items.
        settings: What decides about the bytes of the target.
        options: What else `Client.stream` is told.
        share: Which shards are made; ``None`` for all.
        resume: Whether to go on with a target that was begun.
        overwrite: Whether to begin again, whatever is there.
        errors: Whether a bad item is recorded, or stops the run.
        timeout: Seconds in all.
        show_progress: Whether to show a bar.

    Attributes:
        cropped: Images of which a crop was sent.

    Raises:
        InputTypeError: The content is no iterable of items.
    """

    def __init__(
        self,
        client: Client,
        target: Target,
        content: Any,
        settings: Settings,
        options: Mapping[str, Any],
        *,
        share: Share | None = None,
        resume: bool = True,
        overwrite: bool = False,
        errors: Literal["record", "raise"] = "record",
        timeout: float | None = None,
        show_progress: bool = False,
    ) -> None:
        self._client = client
        self._target = target
        self._source: Any = open_source(content)
        self._settings = settings
        self._options = dict(options)
        self._resume = resume
        self._overwrite = overwrite
        self._errors = errors
        self._timeout = timeout
        total = self._source.total
        if share is not None and total is not None:
            total = share.rows_of(total, settings.shard_rows)
        self._bar = Bar(target.name, total, shown=show_progress)
        self._stopping: BaseException | None = None
        self._manifest = Manifest(settings=settings, share=share)
        self._read = Reading(settings.shard_rows)
        self._deadline: float | None = None
        self._encoded = 0
        self.cropped: int = 0
        self._asked_space = False

    def stop(self, reason: BaseException) -> None:
        """Ask it to end soon, with an exception: what is in flight is waited for, and kept. May be called anywhere."""
        self._stopping = reason

    def run(self) -> BulkResult:
        """Run it where the caller is."""
        if isinstance(self._source, AsyncSource):
            raise ConfigError("an async iterable is for aencode_to")
        steps = self._run(OnThread(self._client))
        try:
            steps.send(None)
        except StopIteration as ended:
            return cast(BulkResult, ended.value)
        raise AssertionError("nothing that a thread waits for is awaited")

    async def arun(self) -> BulkResult:
        """Run it for a caller on an event loop."""
        return await self._run(OnLoop(self._client))

    async def _run(self, mode: Mode) -> BulkResult:
        begun_at = monotonic()
        if self._timeout is not None:
            self._deadline = begun_at + self._timeout
        lock: Held | None = None
        try:
            lock = await mode.do(self._target.lock)
            self._manifest = await mode.do(self._open)
            with self._bar:
                await self._compare(mode)
                self._bar.start(self._manifest.rows, self._manifest.failed)
                while not self._manifest.finished:
                    await self._make_shard(mode)
            await mode.do(self._target.complete, self._manifest)
        except BaseException as error:
            if (reported := self._reported(error)) is error:
                raise
            raise reported from error
        finally:
            if lock is not None:
                lock.release()
        return BulkResult(
            target=self._target.name,
            rows=self._manifest.rows,
            failed=self._manifest.failed,
            encoded=self._encoded,
            seconds=monotonic() - begun_at,
            batch_size=self._settings.batch_size,
            space=self._manifest.space,
        )

    def _reported(self, error: BaseException) -> BaseException:
        """Return what the caller gets of an error: it says how far the run came, and what to do."""
        rows = self._manifest.rows
        how_far = f"{self._target.name} holds {rows} rows" if rows else "no row was finished"
        if isinstance(error, BulkError):
            reported = error
        elif isinstance(error, CasdkError | OSError):
            what = str(error)
            if isinstance(error, OSError) and error.filename and error.strerror:
                what = f"{error.filename}: {error.strerror}"
            reported = BulkError(f"{what}; {how_far}, and the same call goes on from there")
        else:
            error.add_note(f"{how_far}, and the same call goes on from there")
            return error
        reported.target, reported.rows, reported.failed = self._target.name, rows, self._manifest.failed
        return reported

    # what there is

    def _open(self) -> Manifest:
        """Find out what there is of the target; of a new one, its manifest comes first.

        Raises:
            BulkError: It is not to be gone on with.
        """
        target = self._target
        if self._overwrite:
            target.clear()
        elif (manifest := target.read_manifest()) is not None:
            manifest.check_settings(self._settings, target.name)
            if not self._resume and not manifest.finished:
                raise BulkError(f"{target.name} was begun before: resume=True goes on, overwrite=True begins again")
            target.check(manifest)
            return manifest
        else:
            for path in target.foreign_files():
                raise BulkError(
                    f"{path} is there, and of no bulk run: give another target, or overwrite=True to lose it"
                )
        self._write_manifest(self._manifest)
        return self._manifest

    def _write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest: from here on, that is what the target holds."""
        self._target.write_manifest(manifest)
        self._manifest = manifest

    async def _compare(self, mode: Mode) -> None:
        """Read the items of all shards that there are, and hold them to what they were.

        Raises:
            BulkError: They are others.
        """
        manifest = self._manifest
        for shard in manifest.shards:
            await self._pass_over(mode, shard.number)
            await self._compare_shard(mode, shard)
            self._read.add(shard.rows, shard.items)
        if not manifest.ended:
            return
        if manifest.finished and manifest.share is not None:
            # It ended in a shard of its own, or in one that another run makes.
            self._read.ended = False
            await self._pass_over(mode, None)
            manifest.check_input(self._read.input, self._target.name)
        elif len(await mode.take(self._source, 1)):
            manifest.refuse_growth(self._target.name)

    async def _pass_over(self, mode: Mode, number: int | None) -> None:
        """Read the items of shards that other runs make: those before the shard of a number, or all that are left."""
        size, most = self._settings.shard_rows, self._settings.batch_size * COMPARED_BATCHES
        while not self._read.ended and (number is None or self._read.shards < number):
            work = Work(self._read.shards)
            while len(block := await mode.take(self._source, min(size - work.rows, most))):
                if self._stopping is not None:
                    raise self._stopping
                work.note(block)
                work.count(len(block))
                if work.rows == size:
                    break
            self._read.add(work.rows, work.digest)

    async def _compare_shard(self, mode: Mode, shard: Shard) -> Work:
        """Compare one shard, or the beginning of one; returns what was read of it."""
        manifest, work, other = self._manifest, Work(shard.number), ""
        first = manifest.start_of(shard.number)
        names = self._target.names_of(manifest, shard)
        while work.rows < shard.rows and not other:
            most = self._settings.batch_size * COMPARED_BATCHES
            block = await mode.take(self._source, min(shard.rows - work.rows, most))
            if not len(block):
                break
            for place, (now, before) in enumerate(zip(block.names, names, strict=False), first + work.rows):
                if now != before:
                    other = f"item {place} is {now!r} now, and was {before!r}"
                    break
            work.note(block)
            work.count(len(block))
        manifest.check_items(shard, work.rows, work.digest, other, self._target.name)
        work.failed = shard.failed
        return work

    # what is made

    async def _make_shard(self, mode: Mode) -> None:
        """Make the next shard whole, or find that the input has ended."""
        manifest = self._manifest
        if not manifest.ended:
            await self._pass_over(mode, manifest.next_number)
        if manifest.ended or self._read.ended:
            await mode.do(self._write_manifest, manifest.with_end(self._read.input))
            return
        work = Work(manifest.next_number)
        if manifest.begun is not None:
            work = await self._compare_shard(mode, manifest.begun)
        if not self._asked_space:
            await self._check_space(mode)
            manifest = self._manifest
        self._width, self._writing, self._half_written, kept = manifest.width, False, False, work.rows
        try:
            await self._encode(mode, work)
            if self._stopping is not None and work.rows < self._settings.shard_rows:
                raise self._stopping
            if work.rows:
                await self._end_shard(mode, work)
        except BaseException:
            await mode.do(self._keep, work, kept)
            raise
        self._read.add(work.rows, work.digest)
        if not work.rows:
            await mode.do(self._write_manifest, manifest.with_end(self._read.input))

    async def _check_space(self, mode: Mode) -> None:
        """Ask the server for its vector space: that of the target from now on, if it has no row yet.

        Raises:
            BulkError: The target has rows of another one.
        """
        self._asked_space = True
        manifest = self._manifest
        if manifest.space is None and manifest.rows:
            return
        model_name = self._settings.parameters.get("model_name")
        options = {"timeout": self._seconds_left(), "patience": self._options["patience"]}
        try:
            space = await mode.space(model_name, options)
        except ItemError:
            # The server encodes neither a text nor an image, so there is nothing to tell its space by.
            space = None
        manifest.check_space(space, self._target.name)
        if space is not None and manifest.space is None:
            await mode.do(self._write_manifest, manifest.with_space(space))

    def _seconds_left(self) -> float | None:
        """Return the seconds that the run may still take; ``None`` if as long as it likes."""
        return None if self._deadline is None else max(self._deadline - monotonic(), 1e-9)

    async def _encode(self, mode: Mode, work: Work) -> None:
        """Have the items of a shard encoded: a stream of its own, so that no request has items of two shards."""
        options = {**self._options, "timeout": self._seconds_left()}
        items = self._items_on_loop(work) if isinstance(self._source, AsyncSource) else self._items(work)
        pieces, held = mode.stream(items, options), cast("list[EncodeResult]", [])
        try:
            while (piece := await mode.next(pieces)) is not None:
                if self._stopping is not None and len(piece.embeddings) < self._settings.batch_size:
                    # The request was cut short; when the run goes on, that one shall be as if it never had been.
                    break
                held.append(piece)
                if len(held) == mode.burst:
                    await mode.do(self._place, work, held)
        finally:
            await mode.close(pieces)
            if not self._half_written:
                await mode.do(self._place, work, held)

    def _items(self, work: Work) -> Iterator[Any]:
        """Yield the items of a shard that are still to be encoded."""
        while most := self._room(work):
            block = self._source.take(most)
            if not len(block):
                return
            work.note(block)
            yield from block.items

    async def _items_on_loop(self, work: Work) -> AsyncIterator[Any]:
        while most := self._room(work):
            block = await self._source.take(most)
            if not len(block):
                return
            work.note(block)
            for item in block.items:
                yield item

    def _room(self, work: Work) -> int:
        """Return how many items may be read now."""
        if self._stopping is not None:
            return 0
        return min(self._settings.batch_size, self._settings.shard_rows - work.read)

    def _place(self, work: Work, held: list[EncodeResult]) -> None:
        """Put pieces into the target, and take each from the list as it is in there."""
        while held:
            self._place_one(work, held.pop(0))

    def _place_one(self, work: Work, piece: EncodeResult) -> None:
        """Put a piece into the target.

        Raises:
            BulkError: An item failed, and that stops this run; or the rows are not as wide as those before.
        """
        rows, names = piece.embeddings, work.names(len(piece.embeddings))
        errors = {error.index - piece.start: error for error in piece.errors}
        if errors and self._errors == "raise":
            place = min(errors)
            row = self._manifest.start_of(work.number) + work.rows + place
            raise BulkError(
                f"item {row}, {names[place]!r}, cannot be encoded: {described(errors[place])}; the same call goes on "
                "there, and with errors='record' beyond it"
            ) from errors[place]
        if len(errors) == len(names):
            rows = np.full((len(names), self._width), np.nan, np.float32)
        elif not self._width:
            self._width = rows.shape[1]
        elif rows.shape[1] != self._width:
            raise BulkError(
                f"embeddings have {rows.shape[1]} numbers now, and {self._target.name} has {self._width}: another "
                "model answers at this address"
            )
        self._half_written = True
        if not self._width:
            work.waiting.append((names, errors))
        else:
            if not self._writing:
                self._begin(work)
            self._target.add(names, self._normalized(rows), errors)
        work.count(len(names), len(errors))
        self._half_written = False
        self._encoded += len(names)
        self.cropped += piece.cropped
        self._bar.advance(len(names), len(errors))

    def _begin(self, work: Work) -> None:
        """Begin to write, now that it is known how wide rows are."""
        self._writing = True
        self._target.begin(self._manifest, self._width)
        for names, errors in work.waiting:
            self._target.add(names, np.full((len(names), self._width), np.nan, np.float32), errors)
        work.waiting = []

    def _normalized(self, rows: Rows) -> Rows:
        if not self._settings.normalize:
            return rows
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        lengths[lengths == 0] = 1
        return cast(Rows, rows / lengths)

    async def _end_shard(self, mode: Mode, work: Work) -> None:
        if not self._width:
            [row] = await mode.encode([PROBE], self._options)
            self._width = len(row)
        await mode.do(self._commit, work)

    def _commit(self, work: Work) -> None:
        self._half_written = True
        if not self._writing:
            self._begin(work)
        shard = self._target.commit(work.as_shard())
        self._writing = self._half_written = False
        self._write_manifest(self._manifest.with_shard(shard, self._width))

    def _keep(self, work: Work, kept: int) -> None:
        """Keep what there is of a shard when the run stops."""
        if not self._writing:
            return
        if self._half_written or work.rows == kept:
            self._target.drop()
            return
        try:
            self._write_manifest(self._manifest.with_begun(self._target.keep(work.as_shard()), self._width))
        except OSError:  # the disk is full, which is likely what stopped the run: what was kept before is there
            self._target.drop()
