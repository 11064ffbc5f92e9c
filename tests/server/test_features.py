"""The built-in encoder is deterministic, and similar texts and pictures get similar rows."""

import hashlib

import numpy as np
import pytest
from casdk.server.encoders import Features
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

FEATURES = Features()
DIGEST = "d76fd6713df4093d6e01d4acf6ba653df869f0c6b0c97663b24f67a6ee380e74"
"""Of the rows below; they must never change, or an index made before would be worthless."""


def _image(seed, size=(64, 48), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


@given(st.lists(st.text(max_size=80), max_size=12))
def test_a_row_of_a_text_does_not_depend_on_its_batch(texts):
    rows = FEATURES.encode_texts(texts)
    assert rows.shape == (len(texts), 512)
    assert rows.dtype == np.float32
    for text, row in zip(texts, rows, strict=True):
        assert np.array_equal(Features().encode_texts([text])[0], row)
        assert np.linalg.norm(row) == pytest.approx(1.0 if text else 0.0, abs=1e-6)


def test_rows_are_the_same_everywhere():
    rows = FEATURES.encode_texts(["a cat", "ünïcödé 日本語", "", "word " * 5000])
    image = Image.new("RGB", (64, 64), (10, 200, 30))
    image.paste((250, 0, 90), (8, 16, 40, 60))
    rows = np.concatenate((rows, FEATURES.encode_images([image])))
    assert hashlib.sha256(rows.tobytes()).hexdigest() == DIGEST


def test_like_texts_are_close():
    cat, cats, dog, other = FEATURES.encode_texts(
        ["a photo of a cat", "the photo of a black cat", "a photo of a dog", "quantum chromodynamics"]
    )
    assert cat @ cats > cat @ other
    assert cat @ dog > cat @ other
    assert np.array_equal(*FEATURES.encode_texts(["Some TEXT", "some text"]))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1"])
def test_images_of_every_mode_have_a_row(mode):
    (row,) = FEATURES.encode_images([_image(1, mode=mode)])
    assert np.linalg.norm(row) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 2), (640, 480)])
def test_images_of_every_size_have_a_row(size):
    (row,) = FEATURES.encode_images([_image(1, size)])
    assert np.isfinite(row).all()
    assert row.any()


def test_a_row_of_an_image_does_not_depend_on_its_batch():
    images = [_image(seed) for seed in range(20)]
    rows = FEATURES.encode_images(images)
    assert rows.shape == (20, 512)
    assert np.array_equal(rows, np.concatenate([FEATURES.encode_images([image]) for image in images]))


def test_like_images_are_close():
    red, reddish, blue = (Image.new("RGB", (50, 50), colour) for colour in ((250, 5, 5), (230, 25, 10), (5, 5, 250)))
    a, b, c = FEATURES.encode_images([red, reddish, blue])
    assert a @ b > a @ c


def test_nothing_gives_no_rows():
    assert FEATURES.encode_texts([]).shape == FEATURES.encode_images([]).shape == (0, 512)


def test_width_and_model_are_chosen():
    assert Features(64).encode_texts(["a"]).shape == Features(64).encode_images([_image(1)]).shape == (1, 64)
    assert Features(model="m").name == "features/m"
    assert np.array_equal(FEATURES.for_model("m").encode_texts(["a"]), Features(model="m").encode_texts(["a"]))
    assert not np.array_equal(FEATURES.encode_texts(["a"]), Features(model="m").encode_texts(["a"]))
