"""Builds the messages of errors: values, classes and errors of the caller's, shortened and never raising."""

from __future__ import annotations

from typing import Final

__all__ = ["EXITING", "class_name", "message_of", "shown"]

SHOWN_CHARACTERS: Final = 60
"""Characters of a value of the caller's in the text of an error."""
EXITING = "Python is exiting: no call can be made any more"
"""Message of the `ClosedError` of a call that is made while Python exits."""


def shown(value: object) -> str:
    """Return a value of the caller's for an error's text: shortened, or its type if the value cannot be shown."""
    try:
        if isinstance(value, bytes | bytearray) and len(value) > SHOWN_CHARACTERS:
            return f"<{len(value)} bytes>"
        text = repr(value[: SHOWN_CHARACTERS + 1] if type(value) is str else value)
        text.encode()
    except Exception:
        return f"a {class_name(value)}"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def message_of(error: BaseException) -> str:
    """Return the message of an exception of the caller's, or its class if its message cannot be read."""
    try:
        message = str(error)
        message.encode()
    except Exception:
        return class_name(error)
    return message


def class_name(value: object) -> str:
    """Return the name of a value's class, which its metaclass may answer for."""
    try:
        name = str(type(value).__name__)
        name.encode()
    except Exception:
        return "object"
    return name
