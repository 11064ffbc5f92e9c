"""Texts become the tokens of CLIP's own tokenizer."""

import gzip
import sys

import numpy as np
import pytest
from casdk.server.encoders.tokens import VOCABULARY, ClipTokens


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    pytest.importorskip("instant_clip_tokenizer")
    return ClipTokens(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("  Hello\n WORLD! ", [3306, 1002, 256]),
        ("&amp;lt;", [283]),
        ("", []),
    ],
)
def test_tokens_are_clips(packaged, text, tokens):
    numbers, mask = packaged([text], 77)
    assert numbers[0].tolist() == [49406, *tokens, 49407] + [0] * (75 - len(tokens))
    assert mask[0].sum() == len(tokens) + 2


def test_a_long_text_is_cut_and_ended(packaged):
    numbers, mask = packaged(["cat " * 200, "cat"], 77)
    assert numbers.shape == mask.shape == (2, 77)
    assert numbers[0].tolist() == [49406, *[2368] * 75, 49407]
    assert mask[0].all()


@pytest.fixture
def small(tmp_path):
    """A vocabulary of a few merges, in the form of the file."""
    merges = ["c a", "ca t</w>", "d o", "do g</w>", "a t</w>"]
    with gzip.open(tmp_path / VOCABULARY, "wt", encoding="utf-8") as file:
        file.write("\n".join(["#version", *merges, ""]))
    return ClipTokens(tmp_path)


def test_a_vocabulary_of_the_models_directory_is_used(small):
    numbers, _ = small(["cat Dog at", "c", "cat's 12"], 12)
    merged = {"ca": 512, "cat</w>": 513, "do": 514, "dog</w>": 515, "at</w>": 516}
    start, end = 517, 518
    assert numbers[0, :5].tolist() == [start, merged["cat</w>"], merged["dog</w>"], merged["at</w>"], end]
    assert numbers[1, :3].tolist() == [start, 256 + ord("c") - ord("!"), end]
    apostrophe, s_end = ord("'") - ord("!"), 256 + ord("s") - ord("!")
    one, two = (256 + ord(digit) - ord("!") for digit in "12")
    assert numbers[2, :7].tolist() == [start, merged["cat</w>"], apostrophe, s_end, one, two, end]


def test_bytes_of_any_language_have_tokens(small):
    numbers, mask = small(["日本 é"], 20)
    assert mask.sum() == 2 + 6 + 2
    assert np.all(numbers[0, 1:9] < 512)


def test_a_file_that_is_no_vocabulary_is_named(tmp_path):
    with gzip.open(tmp_path / VOCABULARY, "wt", encoding="utf-8") as file:
        file.write("#version\nun known\n")
    with pytest.raises(ValueError, match="is no vocabulary of CLIP"):
        ClipTokens(tmp_path)


def test_without_a_vocabulary_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "instant_clip_tokenizer", None)
    with pytest.raises(ImportError, match=r"bpe_simple_vocab_16e6\.txt\.gz"):
        ClipTokens(tmp_path)
