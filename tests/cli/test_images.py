"""`--images exact` at the prompt."""


def test_encode_says_when_no_image_went_as_a_crop(command, url, images):
    ran = command("encode", url, images["png"], "--images", "exact", "--image-size", "224")
    assert ran.code == 0
    assert ran.err.startswith("casdk: no image was sent as a crop: all are smaller, or the server prepares images")
