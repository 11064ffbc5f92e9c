"""How a command ends: its exit code, and one line of what went wrong and what to do."""

from __future__ import annotations

from enum import IntEnum

from casdk.errors import (
    AuthError,
    CasdkError,
    ConfigError,
    DeadlineError,
    InputError,
    NotAnImageError,
    ReplyError,
    ServerError,
    TransportError,
)

__all__ = ["Exit", "exit_of", "line_of"]


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    PARTIAL = 1
    """Some items failed and were left out, as ``--errors skip`` asks; the others are done."""
    USAGE = 2
    """A command line, address, option or credential that cannot work; nothing was sent."""
    INPUT = 3
    """A file or an item cannot be used, or a file cannot be written."""
    UNREACHABLE = 4
    """No connection, or it broke: DNS, TCP, TLS, proxy, another protocol on that port."""
    LATE = 5
    """Time ran out."""
    SERVER = 6
    """The server answered with an error, or with what is no answer."""
    AUTH = 7
    """The server refused the credential."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE = 141
    """What reads the output has ended."""


_EXITS: tuple[tuple[type[BaseException], Exit], ...] = (
    (AuthError, Exit.AUTH),
    (ConfigError, Exit.USAGE),
    (InputError, Exit.INPUT),
    (DeadlineError, Exit.LATE),
    (TransportError, Exit.UNREACHABLE),
    (ServerError, Exit.SERVER),
    (ReplyError, Exit.SERVER),
    (CasdkError, Exit.SERVER),
    (BrokenPipeError, Exit.PIPE),
    (OSError, Exit.INPUT),
)


def exit_of(error: BaseException) -> Exit:
    """Return the exit code that an error ends a command with."""
    return next(code for kind, code in _EXITS if isinstance(error, kind))


def line_of(error: BaseException, url: str | None = None) -> str:
    """Return an error as one line.

    Args:
        error: What happened; its own message says what to do, where that is known on the spot.
        url: The server, if the command had one: what went wrong on the way there is for ``casdk doctor``.
    """
    line = " ".join(str(error).split()) or type(error).__name__
    code = exit_of(error)
    if isinstance(error, NotAnImageError):
        return line.replace("give check_images=False to send them all the same", "sentences go into a .txt file")
    if code is Exit.AUTH:
        return f"{line}; set CLIP_AUTH_TOKEN or give --credential-file"
    if url is not None and code in (Exit.UNREACHABLE, Exit.LATE):
        return f"{line}; `casdk doctor {url}` looks for the cause"
    return line
