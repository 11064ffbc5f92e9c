"""Documents as JSON and msgpack: types that msgspec does not support, and the file of `casdk.DocumentArray.save`."""

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
    """Return an array or a NumPy scalar as plain types, which msgspec can write.

    Raises:
        TypeError: The value cannot be written.
    """
    if isinstance(value, np.ndarray) and not value.dtype.hasobject and value.dtype.names is None:
        return _Array(value.dtype.str, list(value.shape), value.tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__} cannot be written")


def decode(value: Any) -> NDArray[Any]:
    """Return the array that `encode` and msgspec wrote.

    Raises:
        ValueError: The value has another form.
    """
    array = convert(value, _Array)
    return np.frombuffer(bytearray(array.data), dtype=array.dtype).reshape(array.shape)


def convert(value: Any, kind: type[T], decode: Decode | None = None) -> T:
    """Return the object of a type that msgspec does not support, from plain values; a ``dec_hook`` for msgspec.

    Raises:
        ValueError: The values have another form. msgspec adds the path of the value to a ValueError, which it does not
            do to its own error if another call of msgspec has raised that.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def save(documents: DocumentArray, path: str | os.PathLike[str]) -> None:
    """Write a file beside the target, and rename it to the target when it is complete.

    Raises:
        OSError: The file cannot be written, e.g. because the disk is full; the error names the target.
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
    """Read a file that `save` wrote.

    Args:
        path: The file.
        kind: `casdk.DocumentArray`.
        decode: The ``dec_hook`` for types that msgspec does not support.

    Raises:
        ValueError: `save` did not write this file, or it is broken, or of a later version.
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
