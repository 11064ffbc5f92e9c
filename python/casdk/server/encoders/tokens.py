"""Turns texts into CLIP's tokens, for the ONNX models."""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import ftfy
import numpy as np
from numpy.typing import NDArray

__all__ = ["VOCABULARY", "ClipTokens"]

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
"""The file of merges that OpenAI, open_clip and clip_server ship; taken from the model's directory if it is there."""
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
MERGES = 49152 - 256 - 2
"""Lines of the file that CLIP uses, after its first."""
TEXT_CHARACTERS = 16_384
"""Characters of a text that are read, many more than 77 tokens have: the time to split it grows with their square."""
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_Split: TypeAlias = Callable[[str], list[int]]
_SPACE = re.compile(r"\s+")


class ClipTokens:
    """Turns texts into CLIP's token numbers.

    Args:
        directory: The model's; a vocabulary in it is used, else the one inside ``instant-clip-tokenizer``.

    Raises:
        ValueError: The vocabulary in the directory is of another form.
        ImportError: There is no vocabulary in the directory and ``instant-clip-tokenizer`` is not installed.
    """

    def __init__(self, directory: Path) -> None:
        file = directory / VOCABULARY
        self._split, self._start, self._end = _of_file(file) if file.exists() else _of_package(directory)

    def __call__(self, texts: Sequence[str], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return token numbers and attention mask, both ``[N, length]``; a longer text is cut and ended."""
        numbers = np.zeros((len(texts), length), np.int64)
        mask = np.zeros((len(texts), length), np.int64)
        for row, text in enumerate(texts):
            tokens = [self._start, *self._split(_clean(text[:TEXT_CHARACTERS]))[: length - 2], self._end]
            numbers[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return numbers, mask


def _clean(text: str) -> str:
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    return _SPACE.sub(" ", repaired).strip().lower()


def _of_file(file: Path) -> tuple[_Split, int, int]:
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    with gzip.open(file, "rt", encoding="utf-8") as lines:
        merges = [tuple(line.split()) for line in lines.read().split("\n")[1 : MERGES + 1]]
    pairs = [(pair[0], pair[1]) for pair in merges if len(pair) == 2]
    letters = _letters()
    words = [*letters, *(letter + WORD_END for letter in letters), *("".join(pair) for pair in pairs), START, END]
    vocabulary = {word: number for number, word in enumerate(words)}
    try:
        tokenizer = Tokenizer(BPE(vocabulary, pairs, end_of_word_suffix=WORD_END))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{file} is no vocabulary of CLIP: {error}") from error
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(WORDS), "removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens([START, END])

    def split(text: str) -> list[int]:
        return list(tokenizer.encode(text).ids)

    return split, vocabulary[START], vocabulary[END]


def _letters() -> list[str]:
    """Return the character that stands for each byte, in the vocabulary's order: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + position) for position in range(others)]


def _of_package(directory: Path) -> tuple[_Split, int, int]:
    try:
        from instant_clip_tokenizer import Tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError:
        raise ImportError(
            f"no vocabulary: put {VOCABULARY} into {directory}, or install instant-clip-tokenizer (Python < 3.13)"
        ) from None
    tokenizer = Tokenizer()
    return tokenizer.encode, tokenizer.start_of_text(), tokenizer.end_of_text()
