"""`--images` at the prompt."""

import pytest


@pytest.mark.parametrize("out", [(), ("-o", "rows.npy")])
def test_encode_says_when_no_image_went_as_a_crop(command, url, images, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("encode", url, images["png"], "--images", "exact", "--image-size", "224", *out)
    assert ran.code == 0
    assert ran.err.startswith("casdk: no image was sent as a crop: all are smaller, or the server prepares images")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--images", "jpeg95"), 3, "images='jpeg95' does not go with a bulk run"),
        (("--min-fidelity", "0.9"), 2, "--min-fidelity is not for -o NAME.npy or a folder"),
    ],
)
def test_a_bulk_run_sends_nothing_with_loss(command, url, images, options, code, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("encode", url, images["png"], *options, "-o", "rows.npy")
    assert ran.code == code
    assert said in ran.err
    assert list(tmp_path.glob("rows*")) == []


def test_a_cosine_goes_with_loss_alone(command, url, images):
    ran = command("encode", url, images["png"], "--images", "exact", "--min-fidelity", "0.9")
    assert (ran.code, "min_fidelity= goes with images='jpeg95' or 'webp90'" in ran.err) == (3, True)
