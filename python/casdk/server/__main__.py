"""``python -m casdk.server``: the embedded server in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import fcntl
import logging
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import msgspec

from casdk._extras import missing_extra
from casdk.server.log import OneLineFormatter
from casdk.server.memory import give_back_what_is_freed
from casdk.server.settings import DEFAULT_PORTS, Settings

# gRPC's core writes lines of its own to stderr, among them one for each call that it refuses.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
try:
    from PIL import Image

    from casdk.server.gateway import Gateway, Ready
except ImportError as _error:
    _missing = missing_extra("casdk.server", "server", _error)
    if __name__ != "__main__":
        raise _missing from None
    print(_missing, file=sys.stderr)
    sys.exit(2)

__all__ = ["main"]

TOKEN_VARIABLE = "CASDK_SERVER_TOKEN"
OVERTIME_SECONDS = 8.0
"""Time after the grace for closing connections and files; then the process is ended, even if it hangs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code: 2 if these options cannot work, else 0."""
    if sys.stderr is None:  # it is closed, and `print` would write to standard output what is meant for it
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    parser = _parser()
    options = parser.parse_args(arguments)
    _log(verbose=options.verbose)
    try:
        settings = _settings(options)
        give_back_what_is_freed()
        # Pillow itself refuses twice this number of pixels, before a format allocates memory when it is opened.
        Image.MAX_IMAGE_PIXELS = settings.max_pixels // 2
        warnings.filterwarnings("ignore", module="PIL")  # about the images of clients, who find the fault in the reply
        asyncio.run(_serve(settings, ready_json=options.ready_json, with_parent=options.with_parent))
    except (ValueError, OSError, ImportError) as error:
        message = missing_extra("casdk.server", "server", error) if isinstance(error, ImportError) else error
        print(f"casdk.server: {message}", file=sys.stderr)
        return 2
    finally:
        faulthandler.cancel_dump_traceback_later()
    return 0


async def _serve(settings: Settings, *, ready_json: bool, with_parent: bool) -> None:
    loop = asyncio.get_running_loop()
    gateway = Gateway(settings)

    is_stopping = False

    def stop(*_: object) -> None:
        nonlocal is_stopping
        if not is_stopping:
            is_stopping = True
            # A loop or a thread that hangs would keep the process for ever. This timer runs on a thread of C's, which
            # needs neither the loop nor the interpreter's lock; it ends the process with code 1 and says what hung.
            faulthandler.dump_traceback_later(settings.grace + OVERTIME_SECONDS, exit=True)
            loop.call_soon_threadsafe(gateway.stop)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, stop)
    if with_parent:
        _when_stdin_ends(stop)
    async with gateway.run() as ready:
        _print_addresses(ready, settings, ready_json=ready_json)
        await gateway.stopped()
        print("casdk.server: finishing what was asked", file=sys.stderr)


def _log(*, verbose: bool) -> None:
    """Log to stderr, in a form that clients cannot forge, and without the lines with which they could fill a log."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLineFormatter(logging.BASIC_FORMAT))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    if not verbose:
        # They log a line for each invalid request, which is answered anyway, and a traceback for each lost client.
        for name in ("uvicorn", "grpc", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _when_stdin_ends(stop: Callable[[], None]) -> None:
    """Call `stop` at the end of stdin: a pipe from the parent, which ends with the parent, even if that is killed.

    A signal reports the end, and not a thread that reads: such a thread never gets the interpreter's lock from a loop
    that hangs in C code, but C code that may take long checks for signals.
    """

    def read_stdin(*_: object) -> None:
        while select.select([0], [], [], 0)[0]:
            if not os.read(0, 1024):
                stop()
                return

    signal.signal(signal.SIGIO, read_stdin)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    read_stdin()  # it may have ended before


def _print_addresses(ready: Ready, settings: Settings, *, ready_json: bool) -> None:
    for address in ready.addresses.values():
        print(f"casdk.server: {address}", file=sys.stderr)
    if ready.ca is not None:
        print(f"casdk.server: certificate to trust: {ready.ca}", file=sys.stderr)
    where = f"kept in {settings.workspace}" if settings.workspace else "forgotten at the end"
    index = f"index {where}" if settings.index else "no index"
    print(f"casdk.server: encoder {settings.encoder}, {index}; Ctrl-C stops", file=sys.stderr)
    if ready_json:
        if sys.stdout is None:
            raise ValueError("--ready-json writes to standard output, which is closed")
        ca = None if ready.ca is None else str(ready.ca)
        line = {"pid": os.getpid(), "addresses": ready.addresses, "ca": ca, "scratch": str(ready.scratch)}
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()


def _settings(options: argparse.Namespace) -> Settings:
    default = dict.fromkeys(DEFAULT_PORTS, 0) if options.free_ports else dict(DEFAULT_PORTS)
    schemes = options.schemes.split(",") if options.schemes else list(DEFAULT_PORTS)
    ports = {scheme: default.get(scheme, 0) for scheme in schemes}
    for scheme, port in options.port:
        if scheme not in ports:
            raise ValueError(f"--port {scheme}={port}: the scheme is not among those served")
        ports[scheme] = port
    if (options.encoder == "onnx") != (options.model is not None):
        raise ValueError("--encoder onnx and --model DIR come together")
    return Settings(
        ports=ports,
        host=options.host.removeprefix("[").removesuffix("]"),
        allow_hosts=options.allow_host,
        encoder=f"onnx:{options.model}" if options.encoder == "onnx" else options.encoder,
        token=options.token,
        cert=options.cert,
        key=options.key,
        index=options.index,
        workspace=options.workspace,
        fetch_uris=options.fetch_uris,
        chaos=options.chaos,
        max_message=options.max_message,
        max_memory=options.max_memory,
        max_pixels=options.max_pixels,
        threads=options.threads,
        grace=options.grace,
    )


def _port(text: str) -> tuple[str, int]:
    scheme, _, port = text.partition("=")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form SCHEME=PORT")
    return scheme, int(port)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line that says what is wrong and what was probably meant, without the usage, which is long."""
        word = message.removeprefix("unrecognized arguments: ").partition("=")[0].split()[0]
        options = [option for action in self._actions for option in action.option_strings]
        meant = get_close_matches(word, options, 1) if word.startswith("-") else []
        hint = f". Did you mean {meant[0]}?" if meant else ""
        self.exit(2, f"casdk.server: {message}{hint} (--help lists the options)\n")


def _parser() -> argparse.ArgumentParser:
    defaults = Settings(ports=DEFAULT_PORTS)
    parser = _Parser(
        prog="python -m casdk.server",
        description="A small CLIP-as-service: encode, rank, index and search on six schemes at once. "
        "The default encoder, features, is deterministic and needs no weights; it is not CLIP.",
    )
    ports = ", ".join(f"{scheme} {port}" for scheme, port in DEFAULT_PORTS.items())
    where = parser.add_argument_group("where")
    where.add_argument("--host", default=defaults.host, help="address to listen on (%(default)s)")
    where.add_argument("--schemes", metavar="A,B", help=f"schemes to serve, else all: {ports}")
    where.add_argument(
        "--port",
        metavar="SCHEME=PORT",
        type=_port,
        action="append",
        default=[],
        help="another port; 0 takes a free one",
    )
    where.add_argument("--free-ports", action="store_true", help="take free ports where --port names none")

    what = parser.add_argument_group("what")
    what.add_argument(
        "--encoder", choices=("features", "onnx"), default="features", help="what makes the embeddings (%(default)s)"
    )
    what.add_argument("--model", type=Path, metavar="DIR", help="with textual.onnx and visual.onnx, for --encoder onnx")
    what.add_argument(
        "--index", action=argparse.BooleanOptionalAction, default=defaults.index, help="answer /index and /search"
    )
    what.add_argument("--workspace", type=Path, metavar="DIR", help="keep the index here; else it ends with the server")
    what.add_argument("--threads", type=int, default=defaults.threads, help="threads that encode (%(default)s)")

    who = parser.add_argument_group("who")
    who.add_argument(
        "--token",
        default=os.environ.get(TOKEN_VARIABLE),
        help=f"what clients must send as authorization; better set {TOKEN_VARIABLE}, which no process list shows",
    )
    who.add_argument("--cert", type=Path, metavar="PEM", help="certificate of the secure schemes; else one is made")
    who.add_argument("--key", type=Path, metavar="PEM", help="its key")
    who.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name by which clients may call a server on loopback, as a proxy in front of it does",
    )
    who.add_argument("--fetch-uris", action="store_true", help="fetch http(s) URIs on a client's behalf")
    who.add_argument(
        "--max-memory",
        type=int,
        default=defaults.max_memory,
        help="what requests may take together, in bytes, beside the server itself (%(default)s)",
    )
    who.add_argument(
        "--max-message", type=int, help=f"largest message, in bytes (a fifteenth of that: {defaults.message_bytes})"
    )
    who.add_argument(
        "--max-pixels", type=int, default=defaults.max_pixels, help="largest image, in pixels (%(default)s)"
    )

    process = parser.add_argument_group("process")
    process.add_argument(
        "--grace", type=float, default=defaults.grace, help="seconds to finish in when stopped (%(default)s)"
    )
    process.add_argument("--ready-json", action="store_true", help="when ready, one line of JSON on stdout")
    process.add_argument("--with-parent", action="store_true", help="stop when stdin ends")
    process.add_argument("--chaos", action="store_true", help="let texts that begin with !! misbehave, for tests")
    process.add_argument("--verbose", action="store_true", help="log failed requests")
    return parser


if __name__ == "__main__":
    sys.exit(main())
