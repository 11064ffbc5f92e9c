"""The commands: the arguments of each, and what it prints. `casdk.cli.main` calls `run`."""

from __future__ import annotations

import errno
import shlex
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import cyclopts
import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

import casdk
from casdk import Document, InputValueError, Response
from casdk.cli import bench, bulk
from casdk.cli.access import Access
from casdk.cli.bar import bar_on_stderr
from casdk.cli.content import STDIN, Content, Entry, read_document, read_lines, stored
from casdk.cli.exits import Exit, exit_of, fail, line_of, lose_stdout
from casdk.cli.images import Fidelity, Images, Side, options_of, report_crops
from casdk.cli.signals import Stopped, stopping
from casdk.cli.sinks import Sink, open_sink, to_json
from casdk.cli.words import Flag, IndexOn, Json, Limit, Model, OutWord, PathWord, Size, UnknownOptionError, Word

__all__ = ["app", "run"]

app: Final = App(
    name="casdk",
    help="Texts and images in, embeddings, rankings and search results out: a client of CLIP-as-service.",
    help_epilogue="URL is scheme://host[:port] with grpc, grpcs, http, https, websocket or websockets; several, with "
    "commas between, are servers that share the work. "
    "Exit codes: 0 done, 1 some items left out, 2 usage, 3 input or output, 4 unreachable, 5 late, 6 server error, "
    "7 credential refused, 129 terminal closed, 130 interrupted, 143 terminated.",
    version=casdk.__version__,
    suppress_keyboard_interrupt=False,
)
LEAST_SIMILARITY: Final = 0.7
"""How similar a misspelt option has to be to a known one, so that the error suggests that one; from 0 to 1."""
STDOUT_FAILS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    url = next((word for word in arguments if "://" in word), None)
    try:
        with stopping():
            done = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
            return int(done or 0)
    except cyclopts.CycloptsError as error:
        return fail(Exit.USAGE, f"{_usage(error)} (`casdk --help` lists the commands and their options)")
    except Stopped as stopped:
        command = f": {shlex.join(['casdk', *arguments])}" if stopped.goes_on else ""
        return fail(Exit(128 + stopped.number), line_of(stopped) + command)
    except (casdk.CasdkError, OSError) as error:
        if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and _is_of_stdout(error)):
            return lose_stdout(error)
        return fail(exit_of(error), line_of(error, url))


def _is_of_stdout(error: OSError) -> bool:
    """Whether standard output takes no more bytes. The errors of all other files that are written have their names."""
    return error.filename is None and error.errno in STDOUT_FAILS


def _usage(error: cyclopts.CycloptsError) -> str:
    """Return what is wrong with a command line, and what was probably meant."""
    unused = (
        [str(token) for token in error.unused_tokens or ()] if isinstance(error, cyclopts.UnknownCommandError) else []
    )
    if isinstance(error.__cause__, UnknownOptionError):
        word = str(error.__cause__)
        arguments = app[(error.command_chain or ("",))[0]].assemble_argument_collection()
        known = [name for argument in arguments for name in argument.names if name.startswith("-")]
    elif unused and unused[0].startswith("-"):
        word, known = unused[0], ["--version"]
    else:
        return " ".join(str(error).split())
    meant = get_close_matches(word.partition("=")[0], [*known, "--help"], 1, LEAST_SIMILARITY)
    return f"unknown option {word}." + (f" Did you mean {meant[0]}?" if meant else "")


def _print_json(answer: Any) -> None:
    sys.stdout.write(to_json(answer).decode() + "\n")


@app.command
def encode(
    url: Word,
    /,
    *paths: PathWord,
    out: OutWord | None = None,
    text: Annotated[bool, Flag] = False,
    errors: Literal["raise", "skip", "record"] | None = None,
    dtype: Literal["float32", "float16"] | None = None,
    normalize: Annotated[bool, Flag] = False,
    layout: Literal["clip-retrieval"] | None = None,
    columns: str | None = None,
    names: str | None = None,
    shard_rows: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    shard: str | None = None,
    overwrite: Annotated[bool, Flag] = False,
    update: Annotated[bool, Flag] = False,
    retry_errors: Annotated[bool, Flag] = False,
    by_hash: Annotated[bool, Parameter(name="--hash", negative="")] = False,
    report: Path | None = None,
    batch_size: Size = None,
    model: Model = None,
    images: Images = "original",
    image_size: Side = None,
    min_fidelity: Fidelity = None,
    json: Json = False,
    access: Access | None = None,
) -> int:
    """Turn texts and images into embeddings.

    Args:
        url: The server.
        paths: Image files, directories of images, .txt files (an item per line), .jsonl files (an object with text or
            uri per line), URLs of images, sentences of several words; - for lines of standard input, as when no path
            is given. In their place, patterns of images in a store, as s3://bucket/photos/*.jpg, or one file of lines.
        out: A .npy file (with names and errors of its rows beside it), or a name without a suffix, for a folder of
            Parquet files, also in a store (s3://bucket/name, gs:// or az://): both are written by a bulk run, which may
            be killed and goes on. Or a .parquet or .jsonl
            file; or - for lines of JSON on standard output, which is also what a pipe gets. A terminal gets a summary.
        text: Take every line as a sentence, also one that looks like an image's path or URL.
        errors: Stop at the first item that cannot be encoded (raise), or leave it out and say so (skip); a bulk run
            writes it down (record) unless you say raise.
        dtype: Type of the numbers; float32, unless the layout says otherwise.
        normalize: Divide each row by its length; by a bulk run alone, as all that follows up to --report.
        layout: Make a folder that autofaiss and clip-back read, of images or, with --text, of sentences; of both, with
            --columns.
        columns: What to encode of .tar or .parquet files, of which the paths may be patterns then: a column, or one of
            images and one of captions with a comma between, as jpg,txt.
        names: The column of .parquet files that says what rows are called.
        shard_rows: Rows of one file in a folder, and what a run that is killed may have to encode again; 100,000 by
            default.
        shard: I/N, where N runs make one folder together, on as many machines as you like: this one makes every N-th
            shard from shard I on, counted from 0. `casdk bulk merge` joins what they have made.
        overwrite: Begin again, whatever is there.
        update: Bring a target up to date: encode what is new or has changed, and leave out what is gone.
        retry_errors: Encode again what has failed; all other rows stay as they are.
        by_hash: Tell files by their bytes, and not by size and time; the same for all runs into a target.
        report: A file for a page of HTML, with throughput over time and the errors.
    """
    words, target = [*map(str, paths)], None if out is None else str(out)
    access = access or Access()
    options = {**_options(batch_size, model), **options_of(images, image_size, min_fidelity)}
    of_bulk: dict[str, Any] = {"overwrite": overwrite, "update": update, "retry_errors": retry_errors}
    of_bulk |= {"hash": by_hash, "report": report, "normalize": normalize or None, "layout": layout}
    of_bulk |= {"shard": bulk.read_shard(shard), "shard_rows": shard_rows}
    if target is not None and bulk.is_target(target):
        of_bulk |= {"errors": errors, "dtype": dtype, "patience": access.patience, "timeout": access.timeout}
        options |= {name: value for name, value in of_bulk.items() if value is not None}
        with access.client(url) as client:
            content = bulk.open_content(words, columns=columns, names=names, text=text)
            result = bulk.encode_into(client, target, content, options)
        _print_json(result) if json else print(bulk.summary(result))
        return Exit.PARTIAL if result.failed else Exit.OK
    of_bulk |= {"columns": columns, "names": names}
    if errors == "record" or any(value not in (None, False) for value in of_bulk.values()):
        unfit = ", ".join(f"--{name.replace('_', '-')}" for name in of_bulk)
        raise casdk.ConfigError(f"{unfit} and --errors record are for -o NAME.npy or a folder")
    with access.client(url) as client:
        items = bulk.open_items(words, text=text, skip=errors == "skip")
        sink = open_sink("-" if target is None and json else target, dtype or "float32")
        skipped = _encode_into(sink, client, items, options, skip=errors == "skip")
    if target not in (None, "-") and json:
        _print_json({"rows": sink.rows, "width": sink.width, "skipped": skipped, "out": target})
    elif line := sink.summary(skipped):
        print(line)
    return Exit.PARTIAL if skipped else Exit.OK


def _encode_into(
    sink: Sink, client: casdk.Client, content: Content | bulk.Stored, options: dict[str, Any], *, skip: bool
) -> int:
    """Write the rows of all items into a sink; return how many items were left out.

    Raises:
        InputValueError: No item has a row.
    """
    for unread in content.unread:
        fail(Exit.PARTIAL, f"left out: {unread}")
    with sink:
        skipped = _write_rows(client, content, sink, {"dtype": sink.dtype, **options}, skip=skip) + len(content.unread)
        if skipped and not sink.rows:
            raise InputValueError(f"none of {skipped} items could be encoded, so nothing was written")
    return skipped


def _write_rows(
    client: casdk.Client, content: Content | bulk.Stored, sink: Sink, options: dict[str, Any], *, skip: bool
) -> int:
    """Encode all items and write their rows; return how many items have none."""
    skipped = cropped = 0
    fidelity: float | None = None
    names: deque[str] = deque()

    def items() -> Iterator[Any]:
        for entry in content:
            names.append(entry.name)
            yield entry.item

    # A list has a length, so the progress bar can show how much is left.
    source = items() if content.total is None else list(items())
    with bar_on_stderr() as shown:
        for piece in client.stream(source, errors="return", show_progress=shown, **options):
            named = [names.popleft() for _ in piece.embeddings]
            bad = {error.index - piece.start: error for error in piece.errors}
            if bad and not skip:
                first = min(bad)
                sink.write(piece.start, named[:first], piece.embeddings[:first])
                raise bad[first]
            for position in sorted(bad):
                fail(Exit.PARTIAL, f"left out: {named[position]}: {line_of(bad[position])}")
            sink.write(piece.start, named, piece.embeddings, bad)
            skipped += len(bad)
            cropped += piece.cropped
            fidelity = fidelity if piece.fidelity is None else piece.fidelity
    report_crops(options["images"], cropped, fidelity)
    return skipped


def _options(batch_size: int | Literal["auto"] | None, model: str | None) -> dict[str, Any]:
    options = {"batch_size": batch_size, "parameters": None if model is None else {"model_name": model}}
    return {name: value for name, value in options.items() if value is not None}


@app.command
def index(
    url: Word,
    /,
    *paths: PathWord,
    text: Annotated[bool, Flag] = False,
    batch_size: Size = None,
    index_on: IndexOn = None,
    json: Json = False,
    access: Access | None = None,
) -> int:
    """Store texts and images in the server's index; what is in there already is replaced.

    Args:
        url: The server, a flow with an indexer.
        paths: As for encode. The id and tags of an object in a .jsonl file are kept with it; the id of an image is
            its absolute path or its URL.
        text: Take every line as a sentence, also one that looks like an image's path or URL.
    """
    indexed = 0

    def count(response: Response) -> None:
        nonlocal indexed
        indexed += len(response.docs)

    with (access or Access()).client(url, index_on=index_on) as client:
        content = Content([str(path) for path in paths], sentences=text)
        documents = map(stored, content)
        try:
            with bar_on_stderr() as shown:
                client.index(
                    documents if content.total is None else list(documents),
                    on_done=count,
                    show_progress=shown,
                    **_options(batch_size, None),
                )
        except BaseException as error:
            if indexed:
                error.add_note(f"{indexed} items were indexed before")
            raise
    _print_json({"indexed": indexed}) if json else print(f"{indexed} indexed")
    return Exit.OK


@app.command
def search(
    url: Word,
    /,
    *queries: PathWord,
    limit: Limit = 10,
    images: Images = "original",
    image_size: Side = None,
    min_fidelity: Fidelity = None,
    index_on: IndexOn = None,
    json: Json = False,
    access: Access | None = None,
) -> int:
    """Find what is nearest in the server's index.

    Args:
        url: The server, a flow with an indexer.
        queries: Sentences, or paths and URLs of images; - for lines of standard input.
    """
    entries = _words([str(query) for query in queries], "queries")
    with (access or Access()).client(url, index_on=index_on) as client:
        asked = [read_document(entry.name) for entry in entries]
        found = client.search(asked, limit=limit, **options_of(images, image_size, min_fidelity))
    for entry, query in zip(entries, found, strict=True):
        matches = [
            {"id": match.id, **_content_of(match), "cosine": match.scores["cosine"].value, "tags": match.tags}
            for match in query.matches
        ]
        if json:
            _print_json({"query": entry.name, "matches": matches})
        else:
            _print_matches(entry.name, matches, "cosine")
    return Exit.OK


@app.command
def rank(
    url: Word,
    query: PathWord,
    /,
    *candidates: PathWord,
    images: Images = "original",
    image_size: Side = None,
    min_fidelity: Fidelity = None,
    json: Json = False,
    access: Access | None = None,
) -> int:
    """Order candidates by how well they go with a query.

    Args:
        url: The server.
        query: A sentence, or the path or URL of an image.
        candidates: Of the same kinds; - for lines of standard input.
    """
    asked_for = str(query)
    entries = _words([str(candidate) for candidate in candidates], "candidates")
    asked = read_document(asked_for)
    names = {}
    for entry in entries:
        document = read_document(entry.name)
        names[document.id] = entry.name
        asked.matches.append(document)
    with (access or Access()).client(url) as client:
        [ranked] = client.rank([asked], **options_of(images, image_size, min_fidelity))
    matches = [
        {
            "candidate": names[match.id],
            "score": match.scores["clip_score"].value,
            "cosine": match.scores["clip_score_cosine"].value,
        }
        for match in ranked.matches
    ]
    if json:
        _print_json({"query": asked_for, "matches": matches})
    else:
        _print_matches(asked_for, matches, "score", "cosine")
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
def space(url: Word, /, *, model: Model = None, json: Json = False, access: Access | None = None) -> int:
    """Print what distinguishes the server's vector space from all others, to be stored beside vectors.

    Args:
        url: The server.
    """
    with (access or Access()).client(url) as client:
        found = client.space(model)
    _print_json({"space": found}) if json else print(found)
    return Exit.OK


@app.command
def profile(url: Word, text: str = "hello", /, *, json: Json = False, access: Access | None = None) -> int:
    """Show where the time of one request goes.

    Args:
        url: The server.
        text: What to send.
    """
    urls = url.split(",")
    for one in urls:
        with (access or Access()).client(one) as client:
            found = client.profile(text, quiet=True)
        where = {"address": one} if len(urls) > 1 else {}
        if json:
            executors = [{"name": n, "time": t} for n, t in found.executors]
            _print_json({**where, **msgspec.structs.asdict(found), "executors": executors})
        else:
            print(*where.values(), sep="\n", end="\n" if where else "")
            found.print()
    return Exit.OK


app.command(bench.bench)
app.command(bulk.app)


@app.command
def doctor(
    url: str,
    /,
    *,
    json: Annotated[bool, Parameter(negative="", help="Print each step as a line of JSON.")] = False,
    access: Access | None = None,
) -> int:
    """Find out why a server cannot be used: walk from DNS to one embedding and stop at what is wrong.

    Args:
        url: The server.
    """
    from casdk.cli.doctor import report

    return report(url, access or Access(), json=json)


Shell = Literal["bash", "zsh", "fish"]


@app.command
def completion(shell: Shell | None = None, /, *, install: Annotated[bool, Flag] = False) -> int:
    """Print the script that completes commands, options and paths with the tab key, or install it.

    Args:
        shell: The shell; by default the one that runs this.
        install: Write the script to where the shell looks for it, and to its start-up file that it is to be read.
    """
    from casdk.cli.completion import install_script, script_of

    print(install_script(app, shell) if install else script_of(app, shell), end="")
    return Exit.OK


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
        raise casdk.ConfigError(str(error)) from None
    try:
        return main(options)
    except SystemExit as left:  # argparse has said what it had to say
        return int(left.code or 0)
