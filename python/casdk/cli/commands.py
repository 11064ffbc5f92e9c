"""The commands: what each takes, and what it prints."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import cyclopts
import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

import casdk
from casdk import Document, InputValueError, ItemError
from casdk.cli import bench, doctor
from casdk.cli.access import Access
from casdk.cli.content import STDIN, Content, Entry, read_document, read_lines
from casdk.cli.exits import Exit, exit_of, line_of
from casdk.cli.pipeline import Bar, Piece, run_pieces
from casdk.cli.sinks import STDOUT, Sink, open_sink

__all__ = ["app", "run"]

app: Final = App(
    name="casdk",
    help="Texts and images in, embeddings, rankings and search results out: a client of CLIP-as-service.",
    help_epilogue="URL is scheme://host[:port] with grpc, grpcs, http, https, websocket or websockets. "
    "Exit codes: 0 done, 1 some items left out, 2 usage, 3 input, 4 unreachable, 5 late, 6 server error, 7 credential "
    "refused, 130 interrupted.",
    version=casdk.__version__,
    suppress_keyboard_interrupt=False,
)


def _check_words(kind: Any, words: Sequence[str] | str) -> None:
    """Refuse what looks like an option nobody knows; a lone ``-`` is standard input."""
    for word in (words,) if isinstance(words, str) else words:
        if word.startswith("-") and word != STDIN:
            raise ValueError(f"unknown option {word}")


Word = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_check_words)]
Flag: Parameter = Parameter(negative="")
Json = Annotated[bool, Flag, Parameter(help="Print JSON.")]
Size = Annotated[int | None, Parameter(help="Items per request; 32 by default.", validator=Number(gte=1))]
Limit = Annotated[int, Parameter(help="Matches per query.", validator=Number(gte=1))]
Model = Annotated[str | None, Parameter(help="Model to ask for, where the flow has several.")]


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    url = next((word for word in arguments if "://" in word), None)
    try:
        done = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return int(done or 0)
    except cyclopts.CycloptsError as error:
        return _fail(
            Exit.USAGE, f"{' '.join(str(error).split())} (`casdk --help` lists the commands and their options)"
        )
    except KeyboardInterrupt:
        return _fail(Exit.INTERRUPTED, "interrupted")
    except BrokenPipeError:
        # What is still buffered for the reader that left would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE
    except (casdk.CasdkError, OSError) as error:
        return _fail(exit_of(error), line_of(error, url))


def _fail(code: Exit, line: str) -> int:
    print(f"casdk: {line}", file=sys.stderr)
    return code


def _say(answer: Any) -> None:
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")


@app.command
def encode(
    url: Word,
    /,
    *paths: Word,
    out: Annotated[str, Parameter(alias="-o", allow_leading_hyphen=True)] = STDOUT,
    text: Annotated[bool, Flag] = False,
    errors: Literal["raise", "skip"] = "raise",
    dtype: Literal["float32", "float16"] = "float32",
    batch_size: Size = None,
    model: Model = None,
    json: Json = False,
    access: Access | None = None,
) -> int:
    """Turn texts and images into embeddings.

    Args:
        url: The server.
        paths: Image files, directories of images, .txt files (an item per line), .jsonl files (an object with text or
            uri per line); - for lines of standard input, as when no path is given.
        out: File to write: .npy, .parquet or .jsonl; - for lines of JSON on standard output.
        text: Take every line as a sentence, also one that looks like an image's path or URL.
        errors: Stop at the first item that cannot be encoded, or leave it out and say so.
        dtype: Type of the numbers.
    """
    with (access or Access()).client(url) as client, open_sink(out, dtype) as sink:
        content = Content(paths, sentences=text)

        async def call(items: list[Any]) -> Any:
            return await client.aencode(items, errors="return", **_options(batch_size, model))

        skipped = asyncio.run(_encode(call, content, sink, skip=errors == "skip"))
        if skipped and not sink.rows:
            raise InputValueError(f"none of {skipped} items could be encoded, so nothing was written")
    if out != STDOUT:
        summary = {"rows": sink.rows, "width": sink.width, "skipped": skipped, "out": out}
        _say(summary) if json else print(f"{out}: {sink.rows} x {sink.width} {dtype}")
    return Exit.PARTIAL if skipped else Exit.OK


async def _encode(call: Any, content: Content, sink: Sink, *, skip: bool) -> int:
    """Write the rows of all items; return how many there are none of."""
    skipped = 0
    with Bar("encode", content.total) as bar:
        async with contextlib.aclosing(run_pieces(call, content)) as pieces:
            async for piece in pieces:
                bad = _bad_of(piece)
                if bad and not skip:
                    raise bad[min(bad)]
                for position, error in bad.items():
                    _fail(Exit.PARTIAL, f"left out: {piece.entries[position].name}: {line_of(error)}")
                good = [position for position in range(len(piece.entries)) if position not in bad]
                names = [piece.entries[position].name for position in good]
                sink.write([piece.first + position for position in good], names, piece.result.embeddings[good])
                skipped += len(bad)
                bar.advance(len(piece.entries))
    return skipped


def _bad_of(piece: Piece[casdk.EncodeResult]) -> dict[int, ItemError]:
    bad = {error.index: error for error in piece.result.errors}
    for error in piece.result.errors:
        error.index += piece.first
    return bad


def _options(batch_size: int | None, model: str | None) -> dict[str, Any]:
    given = {"batch_size": batch_size, "parameters": None if model is None else {"model_name": model}}
    return {name: value for name, value in given.items() if value is not None}


@app.command
def index(
    url: Word,
    /,
    *paths: Word,
    text: Annotated[bool, Flag] = False,
    batch_size: Size = None,
    json: Json = False,
    access: Access | None = None,
) -> int:
    """Store texts and images in the server's index.

    Args:
        url: The server, a flow with an indexer.
        paths: As for encode; the id and tags of an object in a .jsonl file are kept with it.
        text: Take every line as a sentence, also one that looks like an image's path or URL.
    """
    with (access or Access()).client(url) as client:
        content = Content(paths, sentences=text)

        async def call(items: list[Any]) -> Any:
            return await client.aindex(items, **_options(batch_size, None))

        indexed = asyncio.run(_index(call, content))
    _say({"indexed": indexed}) if json else print(f"{indexed} indexed")
    return Exit.OK


async def _index(call: Any, content: Content) -> int:
    indexed = 0
    with Bar("index", content.total) as bar:
        async with contextlib.aclosing(run_pieces(call, content)) as pieces:
            async for piece in pieces:
                indexed += len(piece.entries)
                bar.advance(len(piece.entries))
    return indexed


@app.command
def search(url: Word, /, *queries: Word, limit: Limit = 10, json: Json = False, access: Access | None = None) -> int:
    """Find what is nearest in the server's index.

    Args:
        url: The server, a flow with an indexer.
        queries: Sentences, or paths and URLs of images; - for lines of standard input.
    """
    entries = _words(queries, "queries")
    with (access or Access()).client(url) as client:
        found = client.search([entry.item for entry in entries], limit=limit)
    for entry, query in zip(entries, found, strict=True):
        matches = [
            {"id": match.id, **_content_of(match), "cosine": match.scores["cosine"].value, "tags": match.tags}
            for match in query.matches
        ]
        if json:
            _say({"query": entry.name, "matches": matches})
        else:
            _print_matches(entry.name, matches, "cosine")
    return Exit.OK


@app.command
def rank(url: Word, query: Word, /, *candidates: Word, json: Json = False, access: Access | None = None) -> int:
    """Order candidates by how well they go with a query.

    Args:
        url: The server.
        query: A sentence, or the path or URL of an image.
        candidates: Of the same kinds; - for lines of standard input.
    """
    entries = _words(candidates, "candidates")
    asked = read_document(query)
    names = {}
    for entry in entries:
        document = read_document(entry.name)
        names[document.id] = entry.name
        asked.matches.append(document)
    with (access or Access()).client(url) as client:
        [ranked] = client.rank([asked])
    matches = [
        {
            "candidate": names[match.id],
            "score": match.scores["clip_score"].value,
            "cosine": match.scores["clip_score_cosine"].value,
        }
        for match in ranked.matches
    ]
    _say({"query": query, "matches": matches}) if json else _print_matches(query, matches, "score", "cosine")
    return Exit.OK


def _words(words: Sequence[str], what: str) -> list[Entry]:
    if not words:
        raise casdk.ConfigError(f"no {what}: give them as arguments, or - for lines of standard input")
    lines = [line for word in words for line in (read_lines(sys.stdin) if word == STDIN else (word,))]
    if not lines:
        raise InputValueError(f"no {what}: standard input holds no lines")
    return [Entry(line, line) for line in lines]


def _content_of(document: Document) -> dict[str, str]:
    return {"uri": document.uri} if document.uri else {"text": document.text}


def _print_matches(title: str, matches: list[dict[str, Any]], *numbers: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns = [name for name in ("candidate", "text", "uri", "id") if any(name in match for match in matches)]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for name in numbers:
        table.add_column(name, justify="right")
    for name in columns:
        table.add_column(name, overflow="fold")
    for match in matches:
        table.add_row(*(f"{match[name]:.4f}" for name in numbers), *(str(match.get(name, "")) for name in columns))
    Console(markup=False, highlight=False).print(table)


@app.command
def profile(url: Word, text: str = "hello", /, *, json: Json = False, access: Access | None = None) -> int:
    """Show where the time of one request goes.

    Args:
        url: The server.
        text: What to send.
    """
    with (access or Access()).client(url) as client:
        told = client.profile(text, quiet=True)
    if json:
        _say({**msgspec.structs.asdict(told), "executors": [{"name": n, "time": t} for n, t in told.executors]})
    else:
        told.print()
    return Exit.OK


app.command(bench.bench)
app.command(doctor.doctor)


serve: Final = App(
    name="serve",
    help="Run the embedded server; needs casdk[server]. `casdk serve --help` lists its options.",
    help_flags=[],
    version_flags=[],
)
app.command(serve)


@serve.default
def run_server(*options: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
    """Run the embedded server."""
    try:
        from casdk.server.__main__ import main
    except ImportError as error:
        raise casdk.ConfigError(f'the server needs {error.name}: pip install "casdk[server]"') from None
    try:
        return main(options)
    except SystemExit as left:  # argparse has said what it had to say
        return int(left.code or 0)
