"""The test pictures show how a server prepares images, or show nothing, but never a wrong size."""

import io

import numpy as np
import pytest
from casdk._content.canary import (
    PHOTO,
    SIZES,
    forms_shown,
    pictures_of_forms,
    pictures_of_sizes,
    size_shown,
    sizes_tried,
)
from casdk._content.crops import Form, square_of
from PIL import Image

RNG = np.random.default_rng(3)
WEIGHTS = RNG.standard_normal((3 * 28 * 28, 24))


def opened(picture):
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    return Image.open(io.BytesIO(picture))


def embed(pictures, side, *, noise=0.0, spoil=None):
    """Rows of a model with sides of that size, behind clip_server's steps; ``spoil`` takes their place for some."""
    rows = []
    for picture in pictures:
        image = opened(picture)
        square = spoil(image, side) if spoil is not None else square_of(image, side)
        small = np.asarray(square.resize((28, 28), Image.Resampling.BOX), np.float64)
        rows.append(small.ravel() @ WEIGHTS + noise * RNG.standard_normal(24))
    return np.array(rows)


def bilinear(image, side):
    return image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("side", [224, 336, 512])
def test_the_size_is_the_one_whose_crop_gives_the_pictures_row(side):
    rows = embed(pictures_of_sizes(None), side)
    assert size_shown(rows, None) == side
    assert size_shown(rows + 0.0, None) == side


def test_a_size_that_was_named_is_checked():
    assert sizes_tried(None) == SIZES
    assert sizes_tried(336) == (336, 320)
    assert sizes_tried(300) == (300, 288)
    for side, shown in ((336, 336), (300, 300), (224, None)):
        named = 300 if side == 300 else 336
        assert size_shown(embed(pictures_of_sizes(named), side), named) == shown
    # The other size that is tried is never taken for the one that was named.
    assert size_shown(embed(pictures_of_sizes(336), 320), 336) is None


def test_noise_of_the_arithmetic_is_no_difference():
    assert size_shown(embed(pictures_of_sizes(None), 224, noise=1e-3), None) == 224


def test_noise_that_hides_the_sizes_proves_nothing():
    assert size_shown(embed(pictures_of_sizes(None), 224, noise=1e6), None) is None


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((13, 8)),  # a server that does not look
        np.full((13, 8), np.nan),
        np.zeros((13, 8)),
        np.ones((13, 0)),
        np.ones((2, 8)),
        RNG.standard_normal((13, 8)),
        np.array([[1.0, 2.0]] * 2 + [[np.nan] * 2] * 11),
        np.array([[1.0, 2.0], [np.nan] * 2] + [[1.0, 2.0]] + [[5.0, 2.0]] * 10),
    ],
)
def test_rows_that_prove_nothing(rows):
    assert size_shown(rows, None) is None


def test_a_server_that_prepares_images_in_another_way_is_found_out():
    rows = embed(pictures_of_sizes(None), 224, spoil=bilinear)
    assert size_shown(rows, None) is None
    assert size_shown(embed(pictures_of_sizes(224), 224, spoil=bilinear), 224) is None


def test_a_form_is_proven_where_its_crop_gives_the_pictures_row():
    pictures = pictures_of_forms(224)
    forms = forms_shown(embed(pictures, 224), 224)
    assert len(forms) == 1 + (len(pictures) - 2) / 2
    assert {PHOTO, Form("JPEG", "CMYK"), Form("PNG", "P"), Form("MPO", "RGB"), Form("array", "RGB")} <= forms


def test_each_form_has_to_show_itself():
    def spoil(image, side):
        return bilinear(image, side) if image.mode in ("P", "I;16", "CMYK") else square_of(image, side)

    forms = forms_shown(embed(pictures_of_forms(224), 224, spoil=spoil), 224)
    assert {form.mode for form in forms} == {"RGB", "RGBA", "L", "LA", "1"}


def test_what_has_no_row_is_not_proven():
    rows = embed(pictures_of_forms(224), 224)
    rows[2] = np.nan
    assert Form("JPEG", "L") not in forms_shown(rows, 224)
    assert forms_shown(np.empty((0, 0)), 224) == {PHOTO}


def test_the_canary_is_small():
    assert sum(map(len, pictures_of_sizes(None))) < 1_000_000
    assert sum(len(bytes(picture)) for picture in pictures_of_forms(224)) < 1_500_000
