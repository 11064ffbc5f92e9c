"""What the contenders are given to encode: the same for all of them."""

import base64
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path


def texts(count: int) -> list[str]:
    return list(generate_texts(count))


def generate_texts(count: int) -> Iterator[str]:
    return (f"a photo of the number {i:06}, taken at noon" for i in range(count))


def paths(folder: str, count: int) -> list[str]:
    """Return ``count`` paths of image files, the folder's files over and over."""
    files = sorted(str(path) for path in Path(folder).iterdir())
    return list(islice(cycle(files), count))


def blobs(folder: str, count: int) -> list[bytes]:
    return [Path(path).read_bytes() for path in paths(folder, count)]


def data_uris(folder: str, count: int) -> list[str]:
    return [f"data:image/png;base64,{base64.b64encode(blob).decode()}" for blob in blobs(folder, count)]
