"""Documents as JSON and msgpack: what msgspec does not know of itself, and the file of `casdk.DocumentArray.save`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from casdk.documents.model import DocumentArray

__all__ = ["convert", "decode", "encode", "load", "save"]

T = TypeVar("T")
Decode = Callable[[Any, Any], Any]

FORMAT: Final = "casdk.DocumentArray"
VERSION: Final = 1


class _Array(msgspec.Struct):
    dtype: str
    shape: list[int]
    data: bytes


class _File(msgspec.Struct):
    format: str
    version: int
    documents: msgspec.Raw


def encode(value: Any) -> Any:
    """Return in plain types what msgspec cannot write: an array, a NumPy scalar.

    Raises:
        TypeError: The value cannot be written.
    """
    if isinstance(value, np.ndarray) and not value.dtype.hasobject and value.dtype.names is None:
        return _Array(value.dtype.str, list(value.shape), value.tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__} cannot be written")


def decode(value: Any) -> NDArray[Any]:
    """Make an array of what `encode` and msgspec wrote.

    Raises:
        ValueError: It is not what they would have written.
    """
    array = convert(value, _Array)
    return np.frombuffer(bytearray(array.data), dtype=array.dtype).reshape(array.shape)


def convert(value: Any, kind: type[T], decode: Decode | None = None) -> T:
    """Make what plain values stand for, where msgspec asks for what it does not know of itself.

    Raises:
        ValueError: They stand for no such thing. msgspec adds the path of the value to a ValueError, which it does not
            to an error of its own that another call of it has raised.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def save(documents: DocumentArray, path: str | os.PathLike[str]) -> None:
    """Write a file beside the target and put it in its place when it is whole.

    Raises:
        OSError: It cannot be written, e.g. as the disk is full; the error names the target.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    raw = msgspec.Raw(msgspec.msgpack.encode(documents, enc_hook=encode))
    try:
        part.write_bytes(msgspec.msgpack.encode(_File(FORMAT, VERSION, raw)))
        part.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        part.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], kind: type[T], decode: Decode) -> T:
    """Read what `save` wrote.

    Args:
        path: The file.
        kind: `casdk.DocumentArray`.
        decode: msgspec's ``dec_hook`` for what it does not know of itself.

    Raises:
        ValueError: The file is none of ours, broken, or of a later version.
    """
    try:
        file = msgspec.msgpack.decode(Path(path).read_bytes(), type=_File)
        if file.format == FORMAT and file.version <= VERSION:
            return msgspec.msgpack.decode(file.documents, type=kind, dec_hook=decode)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} holds no documents of casdk: {error}") from error
    if file.format != FORMAT:
        raise ValueError(f"{os.fspath(path)} holds no documents of casdk")
    raise ValueError(f"{os.fspath(path)} was written by a later casdk (version {file.version} of the format)")
