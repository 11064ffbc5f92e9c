"""How vector spaces are compared, with rows that NumPy makes."""

from __future__ import annotations

import io
import string

import numpy as np
import pytest
from casdk import ConfigError
from casdk._calls.space import CANARIES, IMAGE, LEAST_COSINE, MODALITIES, Space, difference, usable
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

PRINTED = set(string.ascii_letters + string.digits + ":-_")
widths = st.integers(16, 1024)
seeds = st.integers(0, 2**32 - 1)
modalities = st.sets(st.sampled_from(MODALITIES), min_size=1)


def rows_of(seed, width, kinds=MODALITIES, scale=1.0):
    random = np.random.default_rng(seed)
    return {kind: (random.standard_normal(width) * scale).astype(np.float32) for kind in MODALITIES if kind in kinds}


def test_the_image_is_one_that_needs_no_resizing():
    with Image.open(io.BytesIO(IMAGE)) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (224, 224))
    assert len(IMAGE) < 1000
    assert set(CANARIES) == set(MODALITIES)


@given(seeds, widths, modalities, st.floats(1e-30, 1e30))
def test_a_space_is_read_as_it_was_written(seed, width, kinds, scale):
    space = Space.of(rows_of(seed, width, kinds, scale))
    text = str(space)
    assert len(text) <= 200
    assert set(text) <= PRINTED
    assert Space.read(text, "expect_space") == space
    assert (space.width, space.canaries.keys()) == (width, kinds)


@given(seeds, widths, st.floats(1e-3, 1e3))
def test_noise_and_length_do_not_matter(seed, width, length):
    rows, random = rows_of(seed, width), np.random.default_rng([seed, 1])
    noisy = {}
    for kind, row in rows.items():
        noise = random.standard_normal(width)
        noise *= 1e-3 * np.linalg.norm(row) / np.linalg.norm(noise)
        noisy[kind] = ((row + noise) * length).astype(np.float32)
        assert difference(noisy[kind], row, kind) == ""
    assert Space.of(noisy).difference(Space.of(rows)) == ""


@given(seeds, widths, modalities)
def test_another_space_is_another(seed, width, kinds):
    found, expected = rows_of(seed, width, kinds), rows_of(seed + 1, width)
    reason = Space.of(found).difference(Space.of(expected))
    assert "another direction" in reason
    first = next(kind for kind in MODALITIES if kind in kinds)
    assert ("sentence" if first == "text" else "image") in reason
    assert "another direction" in difference(found[first], expected[first], first)


@given(seeds, st.integers(64, 1024), st.floats(0, 0.02))
def test_the_estimate_is_near_the_cosine(seed, width, far):
    """Of rows that are a little apart, what is written says so about as exactly as the rows themselves."""
    row, random = rows_of(seed, width)["text"].astype(np.float64), np.random.default_rng([seed, 1])
    away = random.standard_normal(width)
    row /= np.linalg.norm(row)
    away -= (away @ row) * row
    other = (1 - far) * row + np.sqrt(1 - (1 - far) ** 2) * away / np.linalg.norm(away)
    assume(not 0.3 < far / (1 - LEAST_COSINE) < 3)
    found, expected = ({"text": one.astype(np.float32)} for one in (other, row))
    alike = far < 1 - LEAST_COSINE
    assert (Space.of(found).difference(Space.of(expected)) == "") is alike
    assert (difference(found["text"], expected["text"], "text") == "") is alike


@given(seeds, widths)
def test_what_only_one_knows_says_nothing(seed, width):
    rows = rows_of(seed, width)
    texts, images, both = Space.of({"text": rows["text"]}), Space.of({"image": rows["image"]}), Space.of(rows)
    for one in (texts, images, both):
        for other in (texts, images, both):
            assert one.difference(other) == ""


def test_another_width_is_another_space():
    wide, narrow = rows_of(1, 768), rows_of(1, 512)
    assert Space.of(wide).difference(Space.of(narrow)) == "its rows have 768 numbers, not 512"
    assert difference(wide["text"], narrow["text"], "text") == "its rows have 768 numbers, not 512"


def test_a_row_of_zeros_is_like_no_other():
    zeros, row = {"text": np.zeros(8, np.float32)}, {"text": np.ones(8, np.float32)}
    assert Space.of(zeros).difference(Space.of(zeros)) == ""
    assert "cosine 0.000" in Space.of(zeros).difference(Space.of(row))
    assert "cosine 0.000" in Space.of(row).difference(Space.of(zeros))


def test_a_row_that_is_not_finite_is_none():
    assert usable(np.ones(4, np.float32))
    assert not usable(np.array([1, np.nan], np.float32))
    assert not usable(np.array([np.inf], np.float32))
    assert not usable(np.empty(0, np.float32))
    assert not usable(None)


def test_the_signs_stay_what_they_are():
    """What is stored beside vectors is compared by later versions, too."""
    row = np.arange(1, 9, dtype=np.float32)
    assert str(Space.of({"text": row, "image": -row})) == STORED
    assert Space.read(f" {STORED}\n", "expect_space").difference(Space.of({"text": row, "image": -row})) == ""


STORED = (
    "casdk1:8:M6NMKjs759a81n_Wf8Wa3l0RM4mr78XNEefFACo7zTu8CIl3IggzIvg7kip_Gd6B:zV"
    "201sXFGSpEKoEqgTtmIqPvzXdVETsz7xk7ANbFM8VE-HeJ3vjN3gjFbtaB5yJ_"
)


WRITTEN = str(Space.of(rows_of(7, 512)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "casdk1:512::",
        WRITTEN[:-1],
        WRITTEN.replace("casdk1", "casdk2"),
        WRITTEN.replace(":512:", ":0:"),
        WRITTEN.replace(":512:", ":٥١٢:"),
        WRITTEN + ":",
        "\udcff" * 300,
    ],
)
def test_what_is_no_space_is_refused(text):
    with pytest.raises(ConfigError, match=r"expect_space must be what client.space\(\) has returned") as refusal:
        Space.read(text, "expect_space")
    assert len(str(refusal.value)) < 160


@pytest.mark.parametrize("text", [b"casdk1", 512, ["casdk1"]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(ConfigError, match="expect_space must be a str"):
        Space.read(text, "expect_space")
