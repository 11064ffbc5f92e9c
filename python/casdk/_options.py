"""What a call can be told, for both twins of every verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypedDict

import msgspec
import numpy as np

from casdk._calls import ErrorMode
from casdk.errors import InputTypeError, InputValueError
from casdk.models import Response

__all__ = ["DEFAULTS", "DTYPE", "MINIBATCH", "CallOptions", "EncodeOptions", "Options", "route"]


class CallOptions(TypedDict, total=False):
    """Options of every verb.

    Attributes:
        batch_size: Items per request; 32, the server's own minibatch. For ``rank`` 1: a server scores every
            query of a request against the candidates of all of them.
        prefetch: Requests in flight for this call; ``Limits.prefetch`` by default.
        parameters: Sent to the executors; ``model_name`` in it selects ``/encode/{model_name}``. Never changed.
        show_progress: Show a bar.
        timeout: Seconds for the whole call, loading and retries included; ``Timeouts.total`` by default.
        check_images: Refuse what is not an image before it is sent.
        on_error: Called with the `Response` of each failed request, which then does not stop the call.
    """

    batch_size: int
    prefetch: int | None
    parameters: Mapping[str, Any] | None
    show_progress: bool
    timeout: float | None
    check_images: bool
    on_error: Callable[[Response], Any] | None


class EncodeOptions(CallOptions, total=False):
    """Options of ``encode`` beside those of every verb.

    Attributes:
        dtype: ``float32`` or ``float16``.
        out: C-contiguous matrix ``[>= N, D]`` to fill, e.g. a memmap.
        dedupe: Send equal items once.
    """

    dtype: Any
    out: np.ndarray[Any, Any] | None
    dedupe: bool


MINIBATCH: Final = 32
"""What CLIP servers put on their device at once (``minibatch_size``)."""
DTYPE: Final = "float32"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one call, checked."""

    batch_size: int | None = None
    prefetch: int | None = None
    parameters: Any = None
    show_progress: bool = False
    timeout: float | None = None
    check_images: bool = True
    on_done: Any = None
    on_error: Any = None
    on_always: Any = None
    return_responses: bool = False
    errors: ErrorMode = "raise"
    dtype: Any = DTYPE
    out: Any = None
    dedupe: bool = False
    result: Literal["arrow"] | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            _check_count("batch_size", self.batch_size)
        if self.prefetch is not None:
            _check_count("prefetch", self.prefetch)
        if self.parameters is not None and not isinstance(self.parameters, Mapping):
            raise InputTypeError(f"parameters must be a mapping, not {type(self.parameters).__name__}")
        if self.timeout is not None and not self.timeout > 0:
            raise InputValueError(f"timeout must be more than 0 seconds, not {self.timeout!r}")
        if self.errors not in ("raise", "return", "skip"):
            raise InputValueError(f"errors must be 'raise', 'return' or 'skip', not {self.errors!r}")
        if not (self.on_done is None and self.on_error is None and self.on_always is None):
            self._check_callbacks()
        if self.dtype is not DTYPE or self.out is not None:
            _check_matrix(self.dtype, self.out)
        if self.result is not None:
            self._check_result()

    @property
    def gathers(self) -> bool:
        """Whether the call returns what the replies come to, and not the responses, or nothing."""
        return self.on_done is None and self.on_always is None and not self.return_responses

    def _check_callbacks(self) -> None:
        for name in ("on_done", "on_error", "on_always"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise InputTypeError(f"{name} must be callable, not {type(getattr(self, name)).__name__}")

    def _check_result(self) -> None:
        if self.result != "arrow":
            raise InputValueError(f"result must be 'arrow' or None, not {self.result!r}")
        if self.errors == "return":
            raise InputValueError("result='arrow' does not go with errors='return': call its .to_arrow()")
        if self.return_responses or self.on_done is not None or self.on_always is not None:
            raise InputValueError("result='arrow' does not go with on_done, on_always or return_responses")


DEFAULTS: Final = Options()
"""Those of a call that is told nothing, made and checked once."""
FLOATS: Final = (np.dtype(np.float32), np.dtype(np.float16))


def _check_count(name: str, value: object) -> None:
    if type(value) is int and value > 0:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputTypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise InputValueError(f"{name} must be at least 1, not {value}")


def _check_matrix(dtype: object, out: object) -> None:
    try:
        known = np.dtype(dtype) in FLOATS  # type: ignore[call-overload]
    except TypeError:
        known = False
    if not known:
        raise InputValueError(f"dtype must be float32 or float16, not {dtype!r}")
    if out is None:
        return
    if not isinstance(out, np.ndarray):
        raise InputTypeError(f"out must be an ndarray, not {type(out).__name__}")
    if out.ndim != 2 or out.dtype not in FLOATS or not out.flags.c_contiguous or not out.flags.writeable:
        raise InputValueError(
            f"out must be a writeable C-contiguous [N, D] float32 or float16, not {list(out.shape)} {out.dtype}"
        )


def route(verb: str, parameters: Mapping[str, Any] | None, **extra: Any) -> tuple[str, dict[str, Any]]:
    """Return endpoint and parameters of a request; the caller's mapping stays as it is.

    Args:
        verb: ``/encode``, ``/rank``...
        parameters: The caller's; of ``/encode`` and ``/rank``, ``model_name`` is taken out and becomes part of the
            endpoint. No indexer listens at ``/index/{model_name}``, where an encoder would answer in its place.
        extra: Added; the caller's own ``drop_image_content`` wins.

    Raises:
        InputTypeError: ``model_name`` is no str.
    """
    sent = {"drop_image_content": True, **(parameters or {}), **extra}
    model = sent.pop("model_name", None) if verb in ("/encode", "/rank") else None
    if model is None:
        return verb, sent
    if not isinstance(model, str):
        raise InputTypeError(f"parameters: model_name must be a str, not {type(model).__name__}")
    return f"{verb}/{model}", sent
