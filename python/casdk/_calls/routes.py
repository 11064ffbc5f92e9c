"""The endpoint of a request inside the server, and the parameters that are sent with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from casdk._wording import class_name, message_of, shown
from casdk.errors import InputTypeError

__all__ = ["route"]


def route(verb: str, parameters: Mapping[str, Any] | None, **extra: Any) -> tuple[str, dict[str, Any]]:
    """Return endpoint and parameters of a request; the caller's mapping does not change.

    Args:
        verb: The verb's endpoint: ``/encode``, ``/rank``...
        parameters: The caller's parameters. For ``/encode`` and ``/rank``, ``model_name`` is taken out and becomes part
            of the endpoint. No indexer listens at ``/index/{model_name}``, where an encoder would answer in its place.
        extra: The verb's own parameters. The caller may override only ``drop_image_content``.

    Raises:
        InputTypeError: ``model_name`` cannot be part of an endpoint, or the mapping cannot be read.
    """
    sent = {"drop_image_content": True}
    try:
        sent |= parameters or {}
    except Exception as error:
        if parameters is None:  # raised by a signal's handler
            raise
        raise InputTypeError(f"parameters cannot be read: {class_name(error)}: {message_of(error)}") from error
    sent |= extra
    model: object = sent.pop("model_name", None) if verb in ("/encode", "/rank") else None
    if model is None:
        return verb, sent
    if not isinstance(model, str):
        raise InputTypeError(f"parameters: model_name must be a str, not {class_name(model)}")
    model = str.__str__(model)  # a subclass of the caller's may override `__str__`
    try:
        model.encode()
    except UnicodeEncodeError as error:
        raise InputTypeError(f"parameters: model_name {shown(model)} cannot be sent: {error.reason}") from None
    return f"{verb}/{model}", sent
