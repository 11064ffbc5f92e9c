"""The option `--images` of the commands."""

import pytest


@pytest.mark.parametrize("out", [(), ("-o", "rows.npy")])
def test_encode_says_when_no_image_went_as_a_crop(command, url, images, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("encode", url, images["png"], "--images", "exact", "--image-size", "224", *out)
    assert ran.code == 0
    assert ran.err.startswith("casdk: no image was sent as a crop: all are smaller, or the server prepares images")


@pytest.mark.parametrize("out", [(), ("-o", "rows.npy")])
def test_crops_with_loss_may_be_asked_for(command, url, images, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("encode", url, images["png"], "--images", "jpeg95", "--min-fidelity", "0.9", *out)
    assert ran.code == 0
    assert ran.err.startswith("casdk: no image was sent as a crop")


def test_a_cosine_goes_with_loss_alone(command, url, images):
    ran = command("encode", url, images["png"], "--images", "exact", "--min-fidelity", "0.9")
    assert (ran.code, "min_fidelity= goes with images='jpeg95' or 'webp90'" in ran.err) == (3, True)
