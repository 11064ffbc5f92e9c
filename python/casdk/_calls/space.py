"""The vector space of a model, how two spaces are compared, and its form as a short text; there is no I/O here.

Two servers whose rows have the same width may still hold different models, whose rows must not be mixed. So both are
asked for the rows of the same two items, the canaries: a sentence and an image. Equal models answer with rows in the
same direction, whatever the size of the batch, the number of threads and the type of the numbers; different models do
not. Rows that are in memory are compared directly. The text that is stored beside vectors is smaller: it has, for each
canary, the row times a fixed matrix of signs, as 48 signed bytes, whose cosine estimates the cosine of the rows.
"""

from __future__ import annotations

import re
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from hashlib import shake_256
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from casdk._wording import shown
from casdk.errors import ConfigError

__all__ = ["CANARIES", "IMAGE", "LEAST_COSINE", "MODALITIES", "SENTENCE", "Rows", "Space", "difference", "usable"]

SENTENCE: Final = "a red house under a blue sky, with a yellow sun above a green field"
IMAGE: Final = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAOAAAADgCAIAAACVT/22AAACOUlEQVR42u3coRHCMBiAUcqVDdAdolgMHgFjgMBg2AAMBlEsG2DQoBFUo2sZAcMI"
    "IMpdk7w3AEeS7/6aptn2+upBV/VtAQIFgSJQECgIFIGCQBEoCBQEikBBoAgUBAoCRaAgUAQKAgWBIlAQKKnLbUG41sU8iP+5b84mKB7xIFAQKAIF"
    "gSJQECgIFIGCQBEoCBQEikDhf1p7H3RRDoLeiGP9VoMJCgJFoCBQECgCBYEiUBAoCBSBgkARKAgUBIpAQaAIFAQK37V2J8mdHkxQBAoCBYEiUBAo"
    "AgWBgkARKAgUBIpAQaAIFAQKAkWgIFCSkG2vL7uACQoCRaAgUBAoAgWBErM89AVMlqMoD+ZWPdRpgiJQECgCBYGCQBEoCBSBgkBBoAgUBIpAQaDw"
    "izy1BZeXopXfqaeNekxQBAoCBYEiUBAoCBSBgkARKAgUBIpAQaAIFAQKAkWgIFAECgIFgSJQECgCBYGCQIlPct9m8k0lExQEikBBoCBQBAoCJTn5"
    "/TkPegGTSA8m9HMxQREoCBQEikBBoAgUOiQbjk92ARMUBIpAQaAgUAQKAiVm2awaB72AzSHOe+67VaFOExSBgkARKAgUBIpAQaAIFAQKAkWgIFAE"
    "CgKFXwT/PigmKAgUBIpAQaAIFAQKAkWgIFAECgIFgSJQECgCBYGCQBEoCBQEikBBoAgUBAoCRaAgUAQKAgWBIlAQKAIFgYJAESgIFIGCQEGgCBQE"
    "CgJFoCBQBAoCBYEiUBAoifgAxOUg38oL7bgAAAAASUVORK5CYII="
)
"""A drawing of the `SENTENCE`: a PNG of 224 x 224 pixels of RGB, which most models use without resizing it."""
CANARIES: Final[Mapping[str, str | bytes]] = {"text": SENTENCE, "image": IMAGE}
"""The item that a server is asked to encode, by its modality."""
MODALITIES: Final = tuple(CANARIES)

LEAST_COSINE: Final = 0.999
"""Rows of the same model have at least this cosine. In half precision, in other batches and on other machines it is
0.99999; for another model, or other weights, it is far lower."""
NUMBERS: Final = 48
"""Numbers that stand for a row. Their cosine differs from 1 by as much as that of the rows, within a fifth."""
TAG: Final = "casdk1"
"""The beginning of a space's text; it changes whenever the canaries or the matrix of signs change."""
LARGEST: Final = 127
"""The largest of the signed bytes that stand for a row."""
WRITTEN: Final = re.compile(rf"{TAG}:([1-9][0-9]{{0,6}}):([\w-]{{64}}|):([\w-]{{64}}|)", re.ASCII)

Rows: TypeAlias = Mapping[str, NDArray[np.float32]]
"""The row of each canary that a server has encoded, by its modality."""


class Space(msgspec.Struct, frozen=True):
    """A vector space, as it is stored and compared.

    Attributes:
        width: Numbers in a row.
        canaries: `NUMBERS` signed bytes for each modality that the server encodes.
    """

    width: int
    canaries: dict[str, bytes]

    @classmethod
    def of(cls, rows: Rows) -> Space:
        """Return the space of a server, from its rows of the canaries, of which there is at least one."""
        width = next(iter(rows.values())).size
        return cls(width, {modality: _coarse(row) for modality, row in rows.items()})

    @classmethod
    def read(cls, text: object, name: str) -> Space:
        """Return the space that a text stands for.

        Args:
            text: The text, as `str` returns it for a space.
            name: Name of the option, for the error.

        Raises:
            ConfigError: It is no such text.
        """
        if not isinstance(text, str):
            raise ConfigError(f"{name} must be a str that client.space() has returned, not {type(text).__name__}")
        found = WRITTEN.fullmatch(text.strip())
        if found is None or not (found[2] or found[3]):
            raise ConfigError(f"{name} must be what client.space() has returned, all of it, not {shown(text)}")
        written = zip(MODALITIES, found.groups()[1:], strict=True)
        return cls(int(found[1]), {modality: urlsafe_b64decode(part) for modality, part in written if part})

    def __str__(self) -> str:
        parts = (urlsafe_b64encode(self.canaries.get(modality, b"")).decode() for modality in MODALITIES)
        return ":".join((TAG, str(self.width), *parts))

    def difference(self, expected: Space) -> str:
        """Return, in a few words, how this space differs from the expected one; ``""`` if it does not.

        A modality that only one of the two has is not compared.
        """
        if self.width != expected.width:
            return f"its rows have {self.width} numbers, not {expected.width}"
        numbers = [_numbers(space) for space in (self, expected)]
        return _difference(*numbers)


def usable(row: NDArray[np.float32] | None) -> bool:
    """Whether a server has encoded a canary: its row is there, and finite."""
    return row is not None and row.size > 0 and bool(np.isfinite(row).all())


def difference(row: NDArray[np.float32], other: NDArray[np.float32], modality: str) -> str:
    """Return, in a few words, how two servers' rows of a canary differ; ``""`` if they do not."""
    if row.size != other.size:
        return f"its rows have {row.size} numbers, not {other.size}"
    return _difference({modality: row}, {modality: other})


def _difference(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> str:
    for modality in MODALITIES:
        if modality in found and modality in expected:
            cosine = _cosine(found[modality], expected[modality])
            if cosine < LEAST_COSINE:
                item = "sentence" if modality == "text" else "image"
                return f"it encodes the same {item} in another direction (cosine {cosine:.3f})"
    return ""


def _cosine(row: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the cosine of two rows; it is 1 if both are zeros, and 0 if only one is."""
    one, two = row.astype(np.float64), other.astype(np.float64)
    norms = float(np.linalg.norm(one)), float(np.linalg.norm(two))
    if not all(norms):
        return float(norms[0] == norms[1])
    return float((one / norms[0]) @ (two / norms[1]))


def _coarse(row: NDArray[np.float32]) -> bytes:
    """Return the signed bytes that stand for a row; only its direction counts."""
    wide = row.astype(np.float64)
    largest = np.abs(wide).max()
    if largest:
        wide /= largest  # so that the square of no number overflows or vanishes
    sums = _signs(wide.size) @ wide
    most = np.abs(sums).max()
    return np.rint(sums * (LARGEST / most if most else 0.0)).astype(np.int8).tobytes()


def _numbers(space: Space) -> dict[str, NDArray[np.int8]]:
    return {modality: np.frombuffer(written, np.int8) for modality, written in space.canaries.items()}


@lru_cache(1)
def _signs(width: int) -> NDArray[np.int8]:
    """Return the matrix ``[NUMBERS, width]`` of -1 and 1 that every row of that width is multiplied with."""
    count = NUMBERS * width
    drawn = np.frombuffer(shake_256(f"casdk space {width}".encode()).digest((count + 7) // 8), np.uint8)
    bits = np.unpackbits(drawn, count=count).reshape(NUMBERS, width)
    return bits.view(np.int8) * np.int8(2) - np.int8(1)
