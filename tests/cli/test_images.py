"""`--images exact` at the prompt."""

import pytest


@pytest.mark.parametrize("out", [(), ("-o", "rows.npy")])
def test_encode_says_when_no_image_went_as_a_crop(command, url, images, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("encode", url, images["png"], "--images", "exact", "--image-size", "224", *out)
    assert ran.code == 0
    assert ran.err.startswith("casdk: no image was sent as a crop: all are smaller, or the server prepares images")
