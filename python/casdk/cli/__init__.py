"""The ``casdk`` command. Needs ``pip install "casdk[cli]"``; nothing of casdk imports it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from casdk._extras import missing_extra
from casdk._rust import __version__

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code, one of `casdk.cli.exits.Exit`.

    Args:
        arguments: Words after ``casdk``; those of this process by default.
    """
    _open_streams()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        return _print_version()
    try:
        import cryptography  # noqa: F401
        import cyclopts  # noqa: F401
    except ImportError as error:
        print(f"casdk: {missing_extra('the command line', 'cli', error)}", file=sys.stderr)
        return 2
    from casdk.cli.commands import run

    return run(words)


def _open_streams() -> None:
    """Open the standard streams that the shell has closed, and let standard output take every character.

    Python sets a stream that a shell has closed (``>&-``) to None. Then a connection would get the stream's descriptor,
    and `print` would write to standard output what is meant for standard error.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _print_version() -> int:
    """Print the version, without importing the libraries of the other commands, which would take longer."""
    from casdk.cli.exits import Exit, lose_stdout

    try:
        print(__version__, flush=True)
    except OSError as error:
        return lose_stdout(error)
    return Exit.OK
