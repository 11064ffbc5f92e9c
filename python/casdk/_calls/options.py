"""The options of a call: what each verb takes, the checks of each value, and how options go with merging.

`Client` calls `read_options` for each call; everything else gets the checked `Options`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any, Final, Literal, TypeAlias, TypedDict, get_args

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from casdk._calls.decisions import ErrorMode
from casdk._calls.piece_memory import PieceMemory
from casdk._calls.sample import Verdict
from casdk._calls.tuning import Tuning
from casdk._content.crops import LOSSY, check_pillow
from casdk._wording import class_name, message_of, shown
from casdk.errors import InputError, InputTypeError, InputValueError
from casdk.models import Response

__all__ = [
    "AUTO",
    "DEFAULTS",
    "DTYPE",
    "DTYPES",
    "MERGES",
    "MINIBATCH",
    "MIN_FIDELITY",
    "CallOptions",
    "EncodeOptions",
    "Images",
    "Known",
    "Options",
    "ReplyOptions",
    "ResultOptions",
    "StreamOptions",
    "check_limit",
    "check_timeout",
    "key_of",
    "read_options",
]


Reader: TypeAlias = Literal["caller", "thread"]
"""Where a sync iterable is read."""
Images: TypeAlias = Literal["original", "exact", "jpeg95", "webp90"]
"""What is sent of images."""


class CallOptions(TypedDict, total=False):
    """Options of every verb.

    Attributes:
        batch_size: Items per request; 32, the server's own minibatch. ``"auto"`` finds out, while the call goes on, how
            many give the most items per second, and with how many requests in flight: the first thousand go 32 at a
            time, and a call of fewer than 4,096 stays with that. For ``rank`` 1, and never ``"auto"``: a server scores
            every query of a request against the candidates of all of them.
        prefetch: Requests in flight for this call; ``Limits.prefetch`` by default.
        parameters: Sent to the executors; ``model_name`` in it selects ``/encode/{model_name}``. Never changed.
        show_progress: Show a bar.
        timeout: Seconds for the whole call, loading and retries included; ``None`` for as long as it takes. By
            default it is the client's own, ``Timeouts.total``.
        reader: Where a sync iterable is read: by the ``"caller"``, in the thread or on the loop that made the call, or
            in a ``"thread"`` of its own, in a copy of the caller's context: then a call whose time runs out ends
            although the iterable blocks.
        check_images: Refuse what is not an image before it is sent.
        images: What is sent of them: the ``"original"``, or ``"exact"`` crops of the pixels that the model looks at,
            without loss, where they are smaller and the server has shown that they give the same rows; or such crops
            with loss, ``"jpeg95"`` or ``"webp90"``, whose rows are nearly the same. Needs ``casdk[image]``. ``index``
            sends originals in any case.
        image_size: The model's side in pixels, for crops; found out by default. Checked all the same.
        min_fidelity: The smallest cosine between the rows of crops without and with loss, for ``images="jpeg95"`` and
            ``"webp90"``: if it is smaller for one of the call's first 32 images, all go without loss. 0.999.
        on_error: Called with the `Response` of each failed request, which then does not stop the call.
    """

    batch_size: int | Literal["auto"] | None
    prefetch: int | None
    parameters: Mapping[str, Any] | None
    show_progress: bool
    timeout: float | None
    reader: Reader
    check_images: bool
    images: Images
    image_size: int | None
    min_fidelity: float
    on_error: Callable[[Response], Any] | None


class ReplyOptions(TypedDict, total=False):
    """Options of every verb that decide what it returns.

    Attributes:
        on_done: Called with the `Response` of each request that went well; the call then returns ``None``.
        on_always: Called with each `Response`, after ``on_done`` and ``on_error``; the call then returns ``None``.
        return_responses: Return the list of Responses, in input order.
    """

    on_done: Callable[[Response], Any] | None
    on_always: Callable[[Response], Any] | None
    return_responses: bool


class ResultOptions(ReplyOptions, total=False):
    """Options of ``encode`` that decide what it returns.

    Attributes:
        errors: ``"raise"`` stops at the first bad item with an `ItemError`; ``"return"`` returns an `EncodeResult`
            with NaN rows and the errors; ``"skip"`` leaves the rows out.
        result: ``"arrow"`` returns the rows as a ``pyarrow.FixedSizeListArray`` on the memory of the matrix, which any
            Arrow library takes over.
    """

    errors: ErrorMode
    result: Literal["arrow"] | None


class StreamOptions(CallOptions, total=False):
    """Options of ``stream`` beside those of every verb.

    Attributes:
        dtype: ``float32`` or ``float16``.
        dedupe: Send equal items once.
        patience: Seconds that the server may be away once it has answered; ``Retry.patience`` by default, which also
            says how long a server is waited for that has never answered.
    """

    dtype: Any
    dedupe: bool
    patience: float | None


class EncodeOptions(StreamOptions, total=False):
    """Options of ``encode`` beside those of ``stream``.

    Attributes:
        out: C-contiguous matrix ``[>= N, D]`` to fill, e.g. a memmap.
    """

    out: np.ndarray[Any, Any] | None


MINIBATCH: Final = 32
"""Items that CLIP servers put on their device at once (``minibatch_size``)."""
AUTO: Final = "auto"
"""The ``batch_size`` of a call that finds out how many items a request had better have."""
DTYPE: Final = "float32"
MIN_FIDELITY: Final = 0.999


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The checked options of one call; `read_options` makes them from the caller's arguments.

    ``batch_size`` is an int, ``None``, `AUTO`, or a `Tuning`: a bulk run passes the one of its first stream to the next
    ones. ``min_fidelity`` is a number, or a `Verdict`, in which a stream reports to a bulk run what it has measured.
    ``out`` is a matrix, or the `PieceMemory` of a bulk run's stream.
    """

    batch_size: Any = None
    prefetch: int | None = None
    parameters: Any = None
    show_progress: bool = False
    timeout: float | UnsetType | None = UNSET
    reader: Reader = "caller"
    check_images: bool = True
    images: Images = "original"
    image_size: int | None = None
    min_fidelity: float | Verdict = MIN_FIDELITY
    on_done: Any = None
    on_error: Any = None
    on_always: Any = None
    return_responses: bool = False
    errors: ErrorMode = "raise"
    dtype: Any = DTYPE
    out: Any = None
    dedupe: bool = False
    patience: float | None = None
    result: Literal["arrow"] | None = None

    def __post_init__(self) -> None:
        if self.result is not None:
            self._check_result()
        if self.images != "original":
            check_pillow(self.images)
        elif self.image_size is not None:
            raise InputValueError("image_size= goes with images='exact', 'jpeg95' or 'webp90'")
        if self.min_fidelity != MIN_FIDELITY and self.images not in LOSSY:
            raise InputValueError("min_fidelity= goes with images='jpeg95' or 'webp90'")

    def _check_result(self) -> None:
        if self.errors == "return":
            raise InputValueError("result='arrow' does not go with errors='return': call its .to_arrow()")
        if self.return_responses or self.on_done is not None or self.on_always is not None:
            raise InputValueError("result='arrow' does not go with on_done, on_always or return_responses")


DEFAULTS: Final = Options()
"""The options of a call that names none, made once."""
FLOATS: Final = (np.dtype(np.float32), np.dtype(np.float16))
DTYPES: Final = {dtype.name: dtype for dtype in FLOATS}
"""What ``dtype`` can be, by its name, as `read_options` writes it."""
LARGEST_SIDE: Final = 4096
"""Pixels; the largest ``image_size``."""
MOST_MATCHES: Final = 2**31 - 1
"""The largest ``limit``; what a server can take depends on its integers."""


MERGES: Final[dict[str, Literal["same", "own", "alone"]]] = {
    "batch_size": "own",
    "prefetch": "alone",
    "parameters": "same",
    "show_progress": "alone",
    "timeout": "own",
    "reader": "own",
    "check_images": "same",
    "images": "same",
    "image_size": "same",
    "min_fidelity": "same",
    "on_done": "alone",
    "on_error": "alone",
    "on_always": "alone",
    "return_responses": "alone",
    "errors": "own",
    "dtype": "same",
    "out": "alone",
    "dedupe": "alone",
    "patience": "alone",
    "result": "own",
}
"""How each option goes with merging: calls in one request have the ``same`` value, each call has its ``own`` value, or
a call that sets it is sent ``alone``."""
IMAGES: Final = get_args(Images)
SAME: Final = tuple(name for name, how in MERGES.items() if how == "same")
DEFAULTS_OF_ALONE: Final = tuple((name, getattr(DEFAULTS, name)) for name, how in MERGES.items() if how == "alone")


def key_of(options: Options) -> Hashable | None:
    """Return a key, equal for all calls whose options go together in one request; ``None`` for a call sent alone."""
    if options is DEFAULTS:
        return KEY_OF_DEFAULTS
    if any(getattr(options, name) is not default for name, default in DEFAULTS_OF_ALONE):
        return None
    try:
        return tuple(_comparable(getattr(options, name)) for name in SAME)
    except Exception:  # the call is sent alone, and its packer reports what is wrong with the parameters
        return None


def _comparable(value: Any) -> Hashable:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return msgspec.json.encode(value, order="deterministic") if value else None
    return value if isinstance(value, str) and value in IMAGES else str(np.dtype(value))


KEY_OF_DEFAULTS: Final = tuple(_comparable(getattr(DEFAULTS, name)) for name in SAME)
"""The key of a call without any options, made once."""


class Known:
    """The names of the options that a verb takes; `read_options` checks a call's against them.

    Args:
        kinds: TypedDicts of options.
        own: A parameter of the verb itself, which is suggested for a misspelt option, too.
        tunes: Whether the verb takes ``batch_size="auto"``.
    """

    def __init__(self, kinds: Iterable[type], own: str = "", *, tunes: bool = True) -> None:
        self.tunes: Final[bool] = tunes
        self.names: Final[frozenset[str]] = frozenset(name for kind in kinds for name in kind.__annotations__)
        self.own: Final[str] = own

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse an option that the verb does not take, and suggest the one that was probably meant.

        Raises:
            TypeError: There is no option of that name.
        """
        if not (others := options.keys() - self.names):
            return
        from difflib import get_close_matches

        name = min(others)
        meant = get_close_matches(name, self.names | {self.own}, 1)
        hint = f": did you mean {meant[0]!r}?" if meant else ""
        raise TypeError(f"unexpected keyword argument {name!r}{hint}")


OF_ENCODE: Final = Known([EncodeOptions, ResultOptions])


BUILTIN_TYPES: Final = (NoneType, bool, int, float, str, dict, FunctionType, MethodType, BuiltinFunctionType)
"""Reading a value of these types runs none of the caller's code, so an error then comes from a signal's handler."""


def read_options(options: Mapping[str, Any], known: Known = OF_ENCODE) -> Options:
    """Return the options of a call, each value of the caller's checked.

    Args:
        options: The caller's, by name.
        known: What the verb takes.

    Raises:
        InputTypeError: A value is of a type that the option does not take.
        InputValueError: A value is none that the option takes.
        TypeError: There is no option of that name.
    """
    if not options:
        return DEFAULTS
    known.check(options)
    read = Options(**{name: _read_option(name, value) for name, value in options.items()})
    if read.batch_size == AUTO and not known.tunes:
        raise InputValueError(
            "batch_size='auto' does not go with rank, where the candidates of all queries in a request are scored with "
            "each of them: leave it out for a query per request, or give a number"
        )
    return read


def _read_option(name: str, value: Any) -> Any:
    try:
        return CHECKS[name](name, value) if name in CHECKS else value
    except InputError:
        raise
    except Exception as error:  # raised by the caller's own class, whose code `isinstance` may run
        if type(value) in BUILTIN_TYPES:
            raise
        raise InputTypeError(f"{name} cannot be read: {class_name(error)}: {message_of(error)}") from error


def check_limit(limit: object) -> int:
    """Return how many matches a query may have.

    Raises:
        InputTypeError: It is no int.
        InputValueError: It is less than 1, or more than any server can take.
    """
    try:
        return _read_count("limit", limit, MOST_MATCHES)
    except InputError:
        raise
    except Exception as error:
        if type(limit) in BUILTIN_TYPES:
            raise
        raise InputTypeError(f"limit cannot be read: {class_name(error)}: {message_of(error)}") from error


def check_timeout(timeout: float | UnsetType | None) -> float | UnsetType | None:
    """Return the checked ``timeout`` of a call; raises as `read_options` does."""
    return timeout if timeout is UNSET else _read_seconds("timeout", timeout)


def _read_count(name: str, value: Any, most: int = sys.maxsize) -> int:
    """Return a count as Python's own ``int``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputTypeError(f"{name} must be an int, not {type(value).__name__}")
    count = int(value)
    if count < 1:
        raise InputValueError(f"{name} must be at least 1, not {shown(count)}")
    if count > most:
        raise InputValueError(f"{name} must be at most {most}, not {shown(count)}")
    return count


def _read_batch_size(name: str, value: Any) -> Any:
    if isinstance(value, Tuning):
        return value
    if isinstance(value, str):
        if str.__str__(value) != AUTO:
            raise InputTypeError(f"{name} must be an int or 'auto', not {shown(value)}")
        return AUTO
    return _read_count_or_none(name, value)


def _read_count_or_none(name: str, value: Any) -> int | None:
    return None if value is None else _read_count(name, value)


def _read_seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputTypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not seconds > 0:
        raise InputValueError(f"{name} must be more than 0 seconds, not {shown(value)}")
    if seconds == math.inf:
        raise InputValueError(f"{name} must be finite; None is for as long as it takes")
    return seconds


def _read_cosine(name: str, value: Any) -> float | Verdict:
    if isinstance(value, Verdict):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputTypeError(f"{name} must be a number, not {type(value).__name__}")
    if not 0 <= value <= 1:
        raise InputValueError(f"{name} must be from 0 to 1, not {shown(value)}")
    return float(value)


def _read_flag(name: str, value: Any) -> bool:
    if not isinstance(value, int | np.bool_):
        raise InputTypeError(f"{name} must be True or False, not {shown(value)}")
    return bool(value)


def _read_word(name: str, value: Any, *words: str | None) -> str | None:
    """Return one of a few words as a plain ``str``: a subclass of the caller's may override how it compares."""
    word = str.__str__(value) if isinstance(value, str) else None
    if word not in words or (word is None and value is not None):
        quoted = [repr(word) for word in words]
        raise InputValueError(f"{name} must be {', '.join(quoted[:-1])} or {quoted[-1]}, not {shown(value)}")
    return word


def _read_callback(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise InputTypeError(f"{name} must be callable, not {type(value).__name__}")
    return value


def _read_parameters(name: str, value: Any) -> Any:
    if value is not None and not isinstance(value, Mapping):
        raise InputTypeError(f"{name} must be a mapping, not {type(value).__name__}")
    return value


def _read_dtype(name: str, value: Any) -> Any:
    try:
        dtype = np.dtype(value)
    except Exception:  # NumPy reads the attribute ``dtype`` of the caller's object, which may raise anything
        dtype = None
    if dtype is None or dtype not in FLOATS:
        raise InputValueError(f"{name} must be float32 or float16, not {shown(value)}")
    return DTYPE if dtype == FLOATS[0] else dtype.name


def _read_matrix(name: str, value: Any) -> Any:
    if value is None or issubclass(type(value), PieceMemory):
        return value
    if not issubclass(type(value), np.ndarray):
        raise InputTypeError(f"{name} must be an ndarray, not {class_name(value)}")
    plain = np.ndarray.view(value, np.ndarray)  # a subclass may override its shape, dtype and flags
    if plain.ndim != 2 or plain.dtype not in FLOATS or not plain.flags.carray:
        raise InputValueError(
            f"{name} must be a writeable, aligned, C-contiguous [N, D] float32 or float16, "
            f"not {list(plain.shape)} {plain.dtype}"
        )
    return value


CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "batch_size": _read_batch_size,
    "prefetch": _read_count_or_none,
    "parameters": _read_parameters,
    "show_progress": _read_flag,
    "timeout": _read_seconds,
    "reader": lambda name, value: _read_word(name, value, "caller", "thread"),
    "check_images": _read_flag,
    "images": lambda name, value: _read_word(name, value, *IMAGES),
    "image_size": lambda name, value: None if value is None else _read_count(name, value, LARGEST_SIDE),
    "min_fidelity": _read_cosine,
    "on_done": _read_callback,
    "on_error": _read_callback,
    "on_always": _read_callback,
    "return_responses": _read_flag,
    "errors": lambda name, value: _read_word(name, value, "raise", "return", "skip"),
    "dtype": _read_dtype,
    "out": _read_matrix,
    "dedupe": _read_flag,
    "patience": _read_seconds,
    "result": lambda name, value: _read_word(name, value, "arrow", None),
}
"""The function that checks each option, by the option's name."""
