"""How a command ends: with an exit code, and with one line that says what went wrong and what to do."""

from __future__ import annotations

import os
import re
import sys
from enum import IntEnum

from casdk.errors import (
    AuthError,
    BulkError,
    CasdkError,
    ConfigError,
    DeadlineError,
    InputError,
    ReplyError,
    ServerError,
    TransportError,
)

__all__ = ["Exit", "exit_of", "fail", "for_command_line", "line_of", "lose_stdout"]


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    PARTIAL = 1
    """Some items failed, and were left out or written down as such; the others are done."""
    USAGE = 2
    """A command line, address, option or credential that cannot work; nothing was sent."""
    INPUT = 3
    """A file or an item cannot be used, or a file cannot be written."""
    UNREACHABLE = 4
    """No connection, or it broke: DNS, TCP, TLS, proxy, another protocol on that port; or the server is away, as who
    stands before it says (502, 503, 504, UNAVAILABLE)."""
    LATE = 5
    """Time ran out."""
    SERVER = 6
    """The server answered with an error, or with what is no answer."""
    AUTH = 7
    """The server refused the credential."""
    HUNG_UP = 129
    """The terminal was closed (SIGHUP)."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE = 141
    """What reads the output has ended."""
    TERMINATED = 143
    """Something asked it to end (SIGTERM)."""


_EXITS: tuple[tuple[type[BaseException], Exit], ...] = (
    (AuthError, Exit.AUTH),
    (ConfigError, Exit.USAGE),
    (InputError, Exit.INPUT),
    (DeadlineError, Exit.LATE),
    (TransportError, Exit.UNREACHABLE),
    (ServerError, Exit.SERVER),
    (ReplyError, Exit.SERVER),
    (BulkError, Exit.INPUT),
    (CasdkError, Exit.SERVER),
    (BrokenPipeError, Exit.PIPE),
    (KeyboardInterrupt, Exit.INTERRUPTED),
    (OSError, Exit.INPUT),
)


_ADVICE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r'if it is a sentence, write Text\(".*?"\)'), "if it is a sentence, give --text"),
    (re.compile(r"give check_images=False to send them all the same"), "sentences go into a .txt file"),
    (re.compile(r"TLS\(ca=\.\.\.\)"), "--ca FILE"),
    (re.compile(r"TLS\(cert=\.\.\., key=\.\.\.\)"), "--cert FILE and --key FILE"),
    (re.compile(r"the same call goes on"), "the same command goes on"),
    (re.compile(r"overwrite=True"), "--overwrite"),
    (re.compile(r"update=True"), "--update"),
    (re.compile(r"retry_errors=True"), "--retry-errors"),
    (re.compile(r"shard=(?=[ :])"), "--shard"),
    (re.compile(r"layout='([^']*)'"), r"--layout \1"),
    (re.compile(r"casdk\.bulk\.merge"), "casdk bulk merge"),
    (re.compile(r"errors='record'"), "--errors record"),
    (re.compile(r"it as TLS\(server_name=\.\.\.\)"), "it as --server-name NAME"),
)


def for_command_line(advice: str) -> str:
    """Return the advice of an error with the command line's options in the place of Python's."""
    for words, ours in _ADVICE:
        advice = words.sub(ours, advice)
    return advice


def exit_of(error: BaseException) -> Exit:
    """Return the exit code that an error ends a command with."""
    if isinstance(error, BulkError) and isinstance(error.__cause__, CasdkError | OSError):
        return exit_of(error.__cause__)
    return next(code for kind, code in _EXITS if isinstance(error, kind))


def line_of(error: BaseException, url: str | None = None) -> str:
    """Return an error as one line.

    Args:
        error: The error; its notes are added to its message.
        url: The server, if the command had one; then the line of a failed connection names ``casdk doctor``.
    """
    return "; ".join([_line_of(error, url), *map(for_command_line, getattr(error, "__notes__", ()))])


def _line_of(error: BaseException, url: str | None) -> str:
    line = for_command_line(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, OSError) and not isinstance(error, CasdkError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    code = exit_of(error)
    if code is Exit.AUTH:
        return f"{line}; set CLIP_AUTH_TOKEN or give --credential-file"
    if url is not None and code in (Exit.UNREACHABLE, Exit.LATE):
        return f"{line}; `casdk doctor {url}` looks for the cause"
    return line


def fail(code: Exit, line: str) -> int:
    """Print what went wrong on standard error, and return the exit code."""
    print(f"casdk: {line}", file=sys.stderr)
    return code


def lose_stdout(error: OSError) -> int:
    """Stop writing to standard output, which has failed, and return the exit code.

    Buffered output is sent to the null device, because it would fail again when Python ends.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return Exit.PIPE
    return fail(Exit.INPUT, f"standard output: {error.strerror}")
