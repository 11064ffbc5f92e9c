"""Where a request goes inside the server: the endpoint of its executor, and the parameters that go along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from casdk._wording import class_name, message_of, shown
from casdk.errors import InputTypeError

__all__ = ["route"]


def route(verb: str, parameters: Mapping[str, Any] | None, **extra: Any) -> tuple[str, dict[str, Any]]:
    """Return endpoint and parameters of a request; the caller's mapping stays as it is.

    Args:
        verb: ``/encode``, ``/rank``...
        parameters: The caller's; of ``/encode`` and ``/rank``, ``model_name`` is taken out and becomes part of the
            endpoint. No indexer listens at ``/index/{model_name}``, where an encoder would answer in its place.
        extra: Added; the caller's own ``drop_image_content`` wins.

    Raises:
        InputTypeError: ``model_name`` cannot be part of an endpoint, or the mapping cannot be read.
    """
    sent = {"drop_image_content": True}
    try:
        sent |= parameters or {}
    except Exception as error:
        if parameters is None:  # a signal handler's
            raise
        raise InputTypeError(f"parameters cannot be read: {class_name(error)}: {message_of(error)}") from error
    sent |= extra
    model: object = sent.pop("model_name", None) if verb in ("/encode", "/rank") else None
    if model is None:
        return verb, sent
    if not isinstance(model, str):
        raise InputTypeError(f"parameters: model_name must be a str, not {class_name(model)}")
    model = str.__str__(model)  # a class of its own may write itself as it likes
    try:
        model.encode()
    except UnicodeEncodeError as error:
        raise InputTypeError(f"parameters: model_name {shown(model)} cannot be sent: {error.reason}") from None
    return f"{verb}/{model}", sent
