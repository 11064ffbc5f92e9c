"""Content of every kind a client takes, with what an executor sees of it."""

from __future__ import annotations

import base64
import io
import random
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = ["amber", "basil", "candle", "dolphin", "ember", "fjord", "granite", "harbour", "iris", "jasmine"]
WORDS += ["kettle", "lantern", "meadow", "nectar", "opal", "pebble", "quartz", "ribbon", "saffron", "thistle"]
WORDS += ["umber", "velvet", "willow", "yarrow", "zephyr", "acorn", "birch", "comet", "dune", "elm", "fern"]
KINDS = ("text", "path", "data-uri", "blob", "tensor", "mixed")


@dataclass(frozen=True)
class Sample:
    """One item.

    Attributes:
        item: As `Client.encode` takes it.
        fields: The same as fields of a Document.
        content: The bytes the deterministic executor makes its row of.
        known: The same content as fields of docarray's Document, for the reference.
    """

    item: Any
    fields: dict[str, Any]
    content: bytes
    known: dict[str, Any]


def samples(kind: str, salt: str, count: int, directory: Path) -> list[Sample]:
    """Return ``count`` items, unlike any of another salt; files are written to ``directory``."""
    kinds = [k for k in KINDS if k != "mixed"] if kind == "mixed" else [kind]
    return [_sample(kinds[i % len(kinds)], f"{salt} {i}", directory) for i in range(count)]


def _sample(kind: str, salt: str, directory: Path) -> Sample:
    if kind == "text":
        # Words of its own, so that a model of no sense tells it from every other text.
        text = f"{salt}: {' '.join(random.Random(salt).sample(WORDS, 12))}, über alles 图"
        return Sample(text, {"text": text}, text.encode(), {"text": text})
    pixels = np.random.default_rng(zlib.crc32(salt.encode())).integers(0, 256, (24, 32, 3), np.uint8)
    png = _png(pixels)
    known = {"blob": png}
    if kind == "path":
        path = directory / f"{zlib.crc32(salt.encode())}.png"
        path.write_bytes(png)
        return Sample(str(path), {"uri": str(path)}, png, known)
    if kind == "data-uri":
        uri = "data:image/png;base64," + base64.b64encode(png).decode()
        return Sample(uri, {"uri": uri}, png, known)
    if kind == "blob":
        return Sample(png, {"blob": png}, png, known)
    return Sample(pixels, {"tensor": pixels}, pixels.tobytes(), known)


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "png")
    return written.getvalue()
