"""Bulk runs on the command line, which a signal stops in order, and the commands under ``casdk bulk``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

import casdk
from casdk.cli.bar import bar_on_stderr
from casdk.cli.content import LINES, RECORDS, STDIN, Content, Entry
from casdk.cli.exits import Exit
from casdk.cli.images import report_crops
from casdk.cli.signals import Stopped, asking
from casdk.cli.sinks import to_json
from casdk.errors import InputValueError

if TYPE_CHECKING:
    from casdk.bulk import BulkResult, Named
    from casdk.bulk.manifest import Manifest

__all__ = ["Stored", "app", "encode_into", "is_target", "open_content", "open_items", "read_shard", "summary"]

STORES: Final = ("s3://", "gs://", "az://")
SUFFIXES: Final = ("", ".npy")
"""Suffixes of targets: a folder has none, and a matrix is a ``.npy`` file."""
READ_ITEMS: Final = 64
"""Items of a store whose names are read at a time."""
STOP_SECONDS: Final = 5.0
"""How long a run that is asked to stop may wait for its requests in flight."""

app: Final = App(name="bulk", help="Targets of bulk runs, as `casdk encode -o NAME.npy` and `-o FOLDER` write them.")


def is_target(out: str) -> bool:
    """Whether a bulk run writes what ``-o`` names."""
    if "://" in out:
        return True  # in a store; for any other URL, the bulk run raises the error
    return out != STDIN and Path(out).suffix.lower() in SUFFIXES


def open_content(words: list[str], *, columns: str | None, names: str | None, text: bool) -> Content | Named:
    """Return the items that a command line names: by paths and sentences, or by columns of tar or Parquet files.

    Args:
        words: Paths and sentences; with columns, files and patterns of files.
        columns: The names of one column, or of two with a comma between them; ``None`` if there are no columns.
        names: The column of Parquet files with the names of the rows.
        text: Whether every line is a sentence.

    Raises:
        ConfigError: The files are of neither kind, or of both; or an option does not fit their kind.
        InputValueError: There is no such file, or no such column in it.
    """
    if columns is None:
        if names is not None:
            raise casdk.ConfigError("--names is for .parquet files with --columns")
        return _open_stored(words, text=text) if _are_stored(words) else Content(words, sentences=text)
    if text:
        raise casdk.ConfigError("--text is for lines: --columns says by itself what holds sentences")
    suffixes = {Path(word).suffix.lower() for word in words}
    from casdk.bulk import parquet, tars

    names_of_columns = [column.strip() for column in columns.split(",")]
    wanted = names_of_columns[0] if len(names_of_columns) == 1 else names_of_columns
    if suffixes == {".parquet"}:
        return parquet(words, columns=wanted, name=names)
    if suffixes != {".tar"}:
        raise casdk.ConfigError("--columns is for .tar files, or for .parquet files: name files of one kind")
    if names is not None:
        raise casdk.ConfigError("--names is for .parquet files: what is in a .tar is called by its key")
    return tars(words, columns=wanted)


class Stored:
    """The items that URLs of a store name, for a command that does not write a bulk target; used in place of `Content`.

    Args:
        named: The items.

    Attributes:
        total: ``None``, so that no list of all items is made: it would have all images in memory.
        unread: Empty, since a folder of a store that cannot be listed is an error.
    """

    total: Final = None
    unread: Final[tuple[InputValueError, ...]] = ()

    def __init__(self, named: Named) -> None:
        self._named = named

    def __iter__(self) -> Iterator[Entry]:
        from casdk.bulk.stores import downloaded

        source, names = self._named.open(), deque[str]()

        def blocks() -> Iterator[list[Any]]:
            while len(block := source.take(READ_ITEMS)):
                names.extend(block.names)
                yield block.items

        for item in downloaded(blocks()):
            yield Entry(names.popleft(), item)


def open_items(words: list[str], *, text: bool, skip: bool) -> Content | Stored:
    """Return the items that a command line names, for a command that does not write a bulk target.

    Args:
        words: Paths and sentences, or URLs of a store.
        text: Whether every line is a sentence.
        skip: Leave out directories that cannot be read.

    Raises:
        ConfigError: URLs of a store are mixed with other words, or with URLs of another kind.
        InputValueError: A path or an object does not exist, or a directory cannot be read.
    """
    if _are_stored(words):
        return Stored(_open_stored(words, text=text))
    return Content(words, sentences=text, skip=skip)


def _are_stored(words: list[str]) -> bool:
    """Whether some words are URLs of a store."""
    return any(word.startswith(STORES) for word in words)


def _open_stored(words: list[str], *, text: bool) -> Named:
    """Return the items that URLs of a store name: the lines of one object, or images.

    Raises:
        ConfigError: URLs of a store are mixed with other words, or with URLs of another kind.
        InputValueError: There is no such object.
    """
    from casdk.bulk import files, lines
    from casdk.bulk.stores import open_store

    for word in words:
        if not word.startswith(STORES):
            raise casdk.ConfigError(f"{words[0]} and {word}: what is in a store and what is not are for a run each")
        open_store(word)  # raises an error if a library for this store is missing
    if len(words) == 1 and Path(words[0]).suffix.lower() in LINES | RECORDS:
        return lines(words[0], text=text)
    if any(Path(word).suffix.lower() in LINES | RECORDS for word in words):
        raise casdk.ConfigError("of a store, name images, or one file of lines")
    return files(words)


def encode_into(client: casdk.Client, target: str, content: Content | Named, options: dict[str, Any]) -> BulkResult:
    """Encode the items that a command line names into a bulk target; a signal ends the run in order.

    Args:
        client: The client that encodes them.
        target: The target.
        content: The items.
        options: Options of `casdk.BulkOptions`.

    Raises:
        ConfigError: Items are to be left out; or the layout separates images and texts, and the items may be either.
    """
    if options.get("errors") == "skip":
        raise casdk.ConfigError("--errors skip: what cannot be encoded is written down here (record)")
    if "layout" in options and not content.holds:
        raise casdk.ConfigError(
            f"--layout {options['layout']}: name images alone, or sentences alone, lines of them with --text; or both "
            "in .tar or .parquet files, with --columns"
        )
    from casdk.bulk.call import make_run  # which imports asyncio, so only a bulk run imports it

    with bar_on_stderr() as shown:
        items: Any = content
        if isinstance(content, Content):
            pairs = ((entry.name, entry.item) for entry in content)
            # A list has a length, so the progress bar can show how much is left.
            items = pairs if content.total is None else list(pairs)
        run = make_run(client, target, items, {**options, "show_progress": shown}, holds=content.holds)
        with asking(run.stop, STOP_SECONDS):
            try:
                result = run.run()
            except Stopped as stopped:
                stopped.goes_on = True
                raise
    if result.encoded:
        report_crops(options["images"], run.cropped, result.fidelity)
    return result


def summary(result: BulkResult, nothing_done: str = "it was finished before, and the input is the same") -> str:
    """Return the line that is printed at the end of a run.

    Args:
        result: The result of the run.
        nothing_done: What the line says of a run that had nothing to do.
    """
    failed = f", {result.failed} of them failed: see its errors" if result.failed else ""
    if result.rows and not (result.encoded or result.dropped):
        return f"{result.target}: {result.rows} rows{failed}; {nothing_done}"
    again = f", {result.reencoded} encoded again" if result.reencoded else ""
    dropped = f", {result.dropped} left out as their items are gone" if result.dropped else ""
    how = f"in {result.seconds:.1f} s, {result.batch_size} items per request"
    return f"{result.target}: {result.rows} rows{failed}{again}{dropped}, {how}"


@app.command
def merge(target: str, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Check what runs with --shard have made of a folder, and join it.

    Args:
        target: The folder, or its URL in a store.
        json: Print JSON.
    """
    from casdk.bulk import merge as join

    result = join(target)
    print(to_json(result).decode() if json else summary(result, "all its shards fit together"))
    return Exit.PARTIAL if result.failed else Exit.OK


def read_shard(words: str | None) -> tuple[int, int] | None:
    """Return the two numbers of ``I/N``.

    Raises:
        ConfigError: The words do not have this form.
    """
    if words is None:
        return None
    index, slash, of = words.partition("/")
    if not (slash and index.isdecimal() and of.isdecimal() and int(index) < int(of)):
        raise casdk.ConfigError(f"--shard {words}: write I/N, with I from 0 to N - 1, as 0/3")
    return int(index), int(of)


@app.command
def status(target: str, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Say what a target holds, and whether a process writes it at this moment, and how fast if that can be known.

    Args:
        target: A .npy file, or a folder, or the URL of one in a store.
        json: Print JSON.
    """
    from casdk.bulk.call import open_target

    manifests = open_target(target, "float32").read_manifests()
    if not manifests:
        raise casdk.BulkError(f"{target}: there is no bulk run")
    for manifest in manifests:
        _print_status(target, manifest, json=json)
    return Exit.OK


def _print_status(target: str, manifest: Manifest, *, json: bool) -> None:
    from casdk.bulk.status import writing_of

    writing = writing_of(target, manifest)
    shard = None if manifest.share is None else str(manifest.share)
    status = {
        "target": target,
        "shard": shard,
        "finished": manifest.finished,
        "rows": manifest.rows,
        "failed": manifest.failed,
        "shards": len(manifest.shards),
        "width": manifest.width,
        "space": manifest.space,
        "writing": writing.now,
        "rows_per_second": writing.rows_per_second,
    }
    if json:
        print(to_json(status).decode())
    else:
        state = "finished" if manifest.finished else "not finished"
        name = target if shard is None else f"{target}, shard {shard}"
        speed = f", {writing.rows_per_second:,.0f} rows/s" if writing.rows_per_second else ""
        by = f"; a process writes it now{speed}" if writing.now else ""
        if writing.now is False and not manifest.finished:
            by = "; no process writes it now"
        print(f"{name}: {state}, {manifest.rows} rows, {manifest.failed} failed, {len(manifest.shards)} shards{by}")
