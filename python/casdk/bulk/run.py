"""A bulk run: it opens the target, compares the input with it, and makes the missing shards; one body for both APIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import numpy as np

from casdk.bulk.checks import check_errors, check_width
from casdk.bulk.comparing import Comparison
from casdk.bulk.copies import Copied, Copies
from casdk.bulk.hashing import by_bytes
from casdk.bulk.intake import Intake
from casdk.bulk.manifest import EXACT, Manifest, Settings, Shard, Share
from casdk.bulk.matrix import MatrixTarget
from casdk.bulk.modes import Mode, OnLoop, OnThread
from casdk.bulk.opening import open_manifest
from casdk.bulk.progress import Bar
from casdk.bulk.report import Report
from casdk.bulk.requests import Requests
from casdk.bulk.result import BulkResult, reported
from casdk.bulk.retries import Encoded, Retries
from casdk.bulk.row_blocks import ShardMemory
from casdk.bulk.shards import ParquetTarget
from casdk.bulk.sources import AsyncSource, Source
from casdk.bulk.stores import downloaded
from casdk.bulk.targets import FillableTarget, Held, Rows, Target, described, normalized
from casdk.bulk.updates import Update
from casdk.bulk.work import NAMES_AT_ONCE, Work
from casdk.errors import ConfigError, ItemError
from casdk.models import Text

if TYPE_CHECKING:
    from casdk._calls.sample import Verdict
    from casdk.client import Client
    from casdk.models import EncodeResult

__all__ = ["Run"]

PROBE: Final = Text("width")
"""The item that is encoded to learn the width of a row when all items of a shard have failed."""


class Run:
    """One call of ``encode_to``.

    Args:
        client: The client that encodes the items.
        target: The target that the rows are written to.
        source: The items.
        settings: The options that decide on the bytes of the target.
        options: The other options of `Client.stream`.
        tunes: Whether to find out how many items a request had better have; those of the settings are the first.
        share: Which shards are made; ``None`` for all.
        resume: Whether to continue a target that was begun.
        overwrite: Whether to begin again.
        update: Whether to bring the target up to date with a changed input.
        retry_errors: Whether to encode failed items again.
        errors: Whether a bad item is recorded, or stops the run.
        report: The HTML report of the run, if one is wanted.
        timeout: Seconds for the whole run.
        show_progress: Whether to show a bar.

    Attributes:
        cropped: Number of images that were sent as crops.
    """

    def __init__(
        self,
        client: Client,
        target: Target,
        source: Source | AsyncSource,
        settings: Settings,
        options: Mapping[str, Any],
        *,
        tunes: bool = False,
        share: Share | None = None,
        resume: bool = True,
        overwrite: bool = False,
        update: bool = False,
        retry_errors: bool = False,
        errors: Literal["record", "raise"] = "record",
        report: Report | None = None,
        timeout: float | None = None,
        show_progress: bool = False,
    ) -> None:
        self._client = client
        self._target = target
        self._source: Any = by_bytes(source) if settings.hash else source
        self._copies = Copies(target if update and isinstance(target, MatrixTarget) else None)
        self._parts = max(1, len(source.holds))
        self._settings = settings
        self._options = dict(options)
        self._updates = update and isinstance(target, ParquetTarget)
        self._retry_errors = retry_errors
        self._errors = errors
        self._report = report
        self._timeout = timeout
        total = self._source.total
        if share is not None and total is not None:
            total = share.rows_of(total, settings.shard_rows)
        self._requests = Requests(total, tunes=tunes, row_items=self._parts, joins=errors == "record")
        self._bar = Bar(target.name, total, lambda: client.servers, shown=show_progress)
        self._stopping: BaseException | None = None
        self._intake: Intake | None = None
        self._manifest = Manifest(settings=settings, share=share)
        ways = {"resume": resume, "overwrite": overwrite, "update": update}
        self._open = partial(open_manifest, target, self._manifest, self._requests, **ways)
        self._comparison = Comparison(target, self._copies.for_comparison(self._source), settings, self._check_asked)
        self._read = self._comparison.read
        self._update: Update | None = None
        self._deadline: float | None = None
        self.cropped: int = 0
        self._encoded = self._reencoded = 0
        self._asked_space = False

    def stop(self, reason: BaseException) -> None:
        """Let the run end soon by raising `reason`, after the requests in flight. Any thread or handler may call it."""
        self._stopping = reason
        if self._intake is not None:
            self._intake.end()

    def _check_asked(self) -> None:
        """Raise the exception that `stop` was called with, if it was called."""
        if self._stopping is not None:
            raise self._stopping

    def run(self) -> BulkResult:
        """Run it on the caller's thread."""
        if isinstance(self._source, AsyncSource):
            raise ConfigError("an async iterable is for aencode_to")
        steps = self._run(OnThread(self._client))
        try:
            steps.send(None)
        except StopIteration as ended:
            return cast(BulkResult, ended.value)
        raise AssertionError("OnThread never suspends the coroutine")

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
            await self._make_target(mode)
        except BaseException as error:
            said = reported(error, self._target.name, self._manifest)
            if self._report is not None:
                await mode.do(self._report.write_stop, self._manifest, said)
            if said is error:
                raise
            raise said from error
        finally:
            if lock is not None:
                await mode.do(lock.release)
        return self._result(monotonic() - begun_at)

    async def _make_target(self, mode: Mode) -> None:
        """Open the target, compare the input with it, make the missing shards, and give the target its final form."""
        self._manifest = await mode.do(self._open)
        self._settings = self._manifest.settings
        self._source = await mode.do(self._copies.open, mode, self._source)
        with self._bar:
            if self._updates and (self._manifest.finished or self._manifest.entries):
                await self._begin_update(mode)
            else:
                await self._compare(mode)
            self._bar.start(self._manifest.rows, self._manifest.failed, self._manifest.fidelity)
            while not self._manifest.finished:
                await self._make_shard(mode)
        await mode.do(self._target.complete, self._manifest)
        await mode.do(self._copies.count)
        if self._report is not None:
            await mode.do(self._report.write, self._manifest, "finished")

    def _result(self, seconds: float) -> BulkResult:
        return BulkResult(
            target=self._target.name,
            rows=self._manifest.rows,
            failed=self._manifest.failed,
            encoded=self._encoded,
            reencoded=self._reencoded + (self._update or self._copies).replaced,
            dropped=(self._update or self._copies).dropped,
            seconds=seconds,
            batch_size=self._settings.batch_size,
            space=self._manifest.space,
            fidelity=self._manifest.fidelity,
        )

    # comparing the input with the target

    def _write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest, which from here on says what the target holds."""
        self._target.write_manifest(manifest)
        self._manifest = manifest

    def _settle_requests(self) -> None:
        """End the search for the size of requests, if there is one, and write its result to the manifest."""
        manifest = self._requests.settle(self._manifest)
        if manifest is not self._manifest:
            self._settings = manifest.settings
            self._write_manifest(manifest)

    async def _compare(self, mode: Mode) -> None:
        """Read the items of all shards that exist, and compare them with the manifest.

        Raises:
            BulkError: The input has changed.
        """
        for number in range(len(self._manifest.shards)):
            shard = self._manifest.shards[number]
            await self._comparison.pass_over(mode, shard.number)
            await self._compare_shard(mode, shard)
            self._read.add(shard.rows, shard.items)
        manifest = self._manifest
        if not manifest.ended:
            return
        if manifest.finished and manifest.share is not None:
            # The input ended in one of this run's shards, or in a shard of another run.
            self._read.ended = False
            await self._comparison.pass_over(mode, None)
            manifest.check_input(self._read.input, self._target.name)
        elif len(await mode.take(self._source, 1)):
            manifest.refuse_growth(self._target.name)

    async def _compare_shard(self, mode: Mode, shard: Shard) -> Work:
        """Compare one shard, or the beginning of one, and encode its failed items again if the caller wants that."""
        target = self._target
        if not (shard.failed and self._retry_errors and isinstance(target, FillableTarget)):
            return await self._comparison.shard(mode, self._manifest, shard)
        failures = await mode.do(target.failures, self._manifest, shard)

        async def encode(places: list[int], names: list[str], items: list[Any]) -> Encoded:
            first = self._manifest.start_of(shard.number)
            return await self._encode_again(mode, [first + place for place in places], names, items)

        again = Retries(failures, encode, self._settings.batch_size)
        work = await self._comparison.shard(mode, self._manifest, shard, again)
        await again.end()
        if again.changed:
            self._manifest = await mode.do(target.fill, self._manifest, shard, again.rows, again.errors)
        work.failed = len(again.errors)
        return work

    async def _encode_again(self, mode: Mode, rows: list[int], names: list[str], items: list[Any]) -> Encoded:
        """Encode failed items; return a row for each, and the errors of those that fail again."""
        await self._check_space(mode)
        embeddings: list[Rows] = []
        errors: dict[int, ItemError] = {}
        pieces = mode.stream(downloaded([items]), self._options_of_stream(self._settings.verdict(EXACT)))
        try:
            while (piece := await mode.next(pieces)) is not None:
                if self._errors == "raise":
                    check_errors(piece, rows[piece.start :], names[piece.start :], self._parts)
                if len(piece.errors) < len(piece.embeddings):
                    check_width(piece.embeddings, self._manifest.width, self._target.name)
                embeddings.extend(self._normalized(piece.embeddings))
                errors.update({error.index: error for error in piece.errors})
                failed = len({error.index // self._parts for error in piece.errors})
                self._count(piece, names[piece.start :], len(piece.embeddings) // self._parts, failed)
        finally:
            await mode.close(pieces)
        self._reencoded += len(items) // self._parts
        return embeddings, errors

    # updating a folder

    async def _begin_update(self, mode: Mode) -> None:
        """Find out which items of the input the target does not have; the run then encodes only these."""
        assert isinstance(self._target, ParquetTarget)
        make = partial(Update, self._target, self._manifest, retry_errors=self._retry_errors)
        self._update = await mode.do(make)
        self._source = self._update.missing(mode, self._source, lambda: self._stopping is not None)
        self._manifest = self._manifest.to_update()
        await mode.take(self._source, 0)
        self._check_asked()
        self._manifest = await mode.do(self._update.take_up, self._manifest)
        self._read.shards = len(self._manifest.shards)
        self._read.ended = self._update.has_ended

    # making shards

    async def _make_shard(self, mode: Mode) -> None:
        """Make the next shard, or find that the input has ended."""
        manifest = self._manifest
        if not manifest.ended:
            await self._comparison.pass_over(mode, manifest.next_number)
        if manifest.ended or self._read.ended:
            await self._end(mode)
            return
        if (made := manifest.made_ahead) is not None:
            await mode.do(self._write_manifest, manifest.with_shard(made, manifest.width))
            await self._compare_shard(mode, made)
            self._read.add(made.rows, made.items)
            return
        work = Work(manifest.next_number)
        if manifest.begun is not None:
            work = self._update.begun if self._update else await self._compare_shard(mode, manifest.begun)
        work.verdict = manifest.verdict
        await self._check_space(mode)
        manifest = self._manifest
        self._width, self._writing, self._half_written = manifest.width, False, False
        before = work.rows, self._encoded
        try:
            await self._encode(mode, work)
            if self._stopping is not None and work.rows < self._settings.shard_rows:
                raise self._stopping
            if work.rows:
                await self._end_shard(mode, work)
        except BaseException:
            await mode.do(self._keep, work, *before)
            raise
        self._read.add(work.rows, work.digest)
        if not work.rows:
            await self._end(mode)

    async def _end(self, mode: Mode) -> None:
        """Finish the manifest, because the input has ended.

        Raises:
            BulkError: The target has rows behind the end of the input.
        """
        self._manifest.check_end(self._target.name)
        if self._update is not None:
            self._manifest = await mode.do(self._update.leave_out, self._manifest)
        if not self._manifest.finished:
            await mode.do(self._write_manifest, self._manifest.with_end(self._read.input))

    async def _check_space(self, mode: Mode) -> None:
        """Ask the server once for its vector space, and compare it with the target's, or make it the target's.

        Raises:
            BulkError: The target has rows of another space.
        """
        if self._asked_space:
            return
        self._asked_space = True
        manifest = self._manifest
        if manifest.space is None and manifest.rows:
            return
        model_name = self._settings.parameters.get("model_name")
        options = {"timeout": self._seconds_left(), "patience": self._options["patience"]}
        try:
            space = await mode.space(model_name, options)
        except ItemError:
            # The server encodes neither of the two canaries, so its space is not known.
            space = None
        manifest.check_space(space, self._target.name)
        if space is not None and manifest.space is None:
            await mode.do(self._write_manifest, manifest.with_space(space))

    def _seconds_left(self) -> float | None:
        """Return the seconds that the run may still take; ``None`` for no limit."""
        return None if self._deadline is None else max(self._deadline - monotonic(), 1e-9)

    def _options_of_stream(self, verdict: Verdict | None = None) -> dict[str, Any]:
        changed = {} if verdict is None else {"min_fidelity": verdict}
        batch_size = self._requests.batch_size(self._settings)
        return {**self._options, **changed, "batch_size": batch_size, "timeout": self._seconds_left()}

    async def _encode(self, mode: Mode, work: Work) -> None:
        """Encode the items of a shard by a stream of its own, so that no request has items of two shards."""
        settings, held = self._settings, cast("list[EncodeResult]", [])
        self._intake = intake = Intake(self._source, work, settings.batch_size, settings.shard_rows)
        if self._stopping is not None:
            intake.end()
        target = self._target if self._parts == 1 and not self._copies.has_rows else None
        memory = ShardMemory(self._requests.joined_items(settings), target, work.rows)
        options = self._options_of_stream(work.verdict) | {"out": memory}
        pieces = mode.stream(intake.items(self._requests.fewest_items), options)
        try:
            while (piece := await mode.next(pieces)) is not None:
                if self._stopping is not None:
                    piece = self._requests.without_short(piece, settings)
                    if not len(piece.embeddings):
                        break
                held.append(piece)
                if len(held) == mode.burst:
                    await mode.do(self._place, work, held)
                if self._requests.is_found:
                    await mode.do(self._settle_requests)
        finally:
            await mode.close(pieces)
            if not self._half_written:
                await mode.do(partial(self._place, work, held, is_last=True))

    def _place(self, work: Work, held: list[EncodeResult], *, is_last: bool = False) -> None:
        """Write pieces to the target, and the copied rows between them; each written piece leaves the list."""
        try:
            while held:
                for piece in self._copies.with_copies(held.pop(0)):
                    self._place_one(work, piece)
            for piece in self._copies.next_copies() if is_last else ():
                self._place_one(work, piece)
        except BaseException:
            # The rows before the remaining pieces are missing, so these cannot be written either.
            held.clear()
            self._copies.drop_ranges()
            raise

    def _place_one(self, work: Work, piece: EncodeResult) -> None:
        """Write a piece to the target.

        Raises:
            BulkError: An item failed and the run stops at errors; or the rows have another width than those before.
        """
        rows, count = piece.embeddings, len(piece.embeddings) // self._parts
        errors, names, failed = dict[int, ItemError](), list[str](), 0
        if piece.errors:
            errors = {error.index - piece.start: error for error in piece.errors}
            names = [name for name in work.names(count) for _ in range(self._parts)]
            failed = len({place // self._parts for place in errors})
            if self._errors == "raise":
                first = self._manifest.start_of(work.number) + work.rows
                places = [first + item // self._parts for item in range(len(rows))]
                check_errors(piece, places, names, self._parts)
        if len(errors) == len(rows):
            rows = np.full((len(rows), self._width), np.nan, np.float32)
        elif not self._width:
            self._width = rows.shape[1]
        else:
            check_width(rows, self._width, self._target.name)
        self._half_written = True
        if not self._width:
            work.waiting.append((count, errors))
        else:
            if not self._writing:
                self._begin(work)
            self._target.add(rows if isinstance(piece, Copied) else self._normalized(rows), errors)
        work.count(count, failed)
        if self._writing and work.unlabelled >= NAMES_AT_ONCE:
            self._add_labels(work, NAMES_AT_ONCE)
        self._half_written = False
        self._count(piece, names, count, failed)

    def _add_labels(self, work: Work, fewest: int) -> None:
        """Give the target the labels of the rows that it has, once there are so many."""
        for labels in work.take_labels(fewest):
            self._target.add_labels(labels)

    def _count(self, piece: EncodeResult, names: Sequence[str], rows: int, failed: int) -> None:
        """Count encoded rows for the result, the bar and the report; names are only needed if an item has failed."""
        self._bar.advance(rows, failed, piece.sent_bytes or 0, piece.fidelity)
        if isinstance(piece, Copied):
            return
        self._encoded += rows
        self.cropped += piece.cropped
        if self._report is not None:
            errors = [(names[error.index - piece.start], described(error)) for error in piece.errors]
            self._report.add(rows, errors)

    def _begin(self, work: Work) -> None:
        """Begin to write the shard, now that the width of a row is known."""
        self._writing = True
        self._target.begin(self._manifest, self._width)
        for count, errors in work.waiting:
            self._target.add(np.full((count * self._parts, self._width), np.nan, np.float32), errors)
        work.waiting = []

    def _normalized(self, rows: Rows) -> Rows:
        return normalized(rows) if self._settings.normalize else rows

    async def _end_shard(self, mode: Mode, work: Work) -> None:
        if not self._width:
            self._width = len((await mode.encode([PROBE], self._options))[0])
        await mode.do(self._commit, work)

    def _commit(self, work: Work) -> None:
        self._settle_requests()
        self._half_written = True
        if not self._writing:
            self._begin(work)
        self._add_labels(work, 1)
        shard = self._target.commit(work.as_shard(), work.contents)
        self._writing = self._half_written = False
        self._write_manifest(self._manifest.with_shard(shard, self._width))

    def _keep(self, work: Work, rows_before: int, encoded_before: int) -> None:
        """Keep what there is of a shard when the run stops, if that is more than the rows it began with."""
        if not self._writing:
            return
        goes_on = work.goes_on_behind((self._encoded - encoded_before) * self._parts)
        if self._half_written or work.rows == rows_before or not goes_on:
            self._target.drop()
            return
        try:
            self._settle_requests()
            self._add_labels(work, 1)
            shard = self._target.keep(work.as_shard(), work.contents)
            self._write_manifest(self._manifest.with_begun(shard, self._width))
        except OSError:  # the disk is full, which is likely what stopped the run: what was kept before is there
            self._target.drop()
