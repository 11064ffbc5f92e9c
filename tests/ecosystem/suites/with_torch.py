"""torch: tensors are images, a DataLoader feeds a call, and rows become tensors without a copy."""

import numpy as np
import pytest
import torch
from casdk import Image, InputTypeError, ItemTypeError
from torchvision.io import ImageReadMode, read_image


@pytest.fixture
def pixels(picture):
    """``[C, H, W]``, as torchvision reads it."""
    return read_image(str(picture), ImageReadMode.RGB)


def test_a_tensor_is_an_image(client, picture, pixels):
    tensor = pixels.contiguous().permute(1, 2, 0)
    assert not tensor.is_contiguous()
    expected = client.encode([picture])
    for given in (tensor, tensor.contiguous(), Image(tensor), tensor.numpy()):
        np.testing.assert_array_equal(client.encode([given]), expected)


def test_a_batch_of_tensors(client, picture, pixels):
    batch = torch.stack([pixels, pixels.flip(2)]).permute(0, 2, 3, 1)
    rows = client.encode(batch)
    np.testing.assert_array_equal(rows, client.encode(list(batch.numpy())))
    np.testing.assert_array_equal(rows[0], client.encode([picture])[0])


def test_a_data_loader(client, pixels):
    images = torch.stack([pixels] * 5).permute(0, 2, 3, 1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size=2)
    rows = np.concatenate([client.encode(batch) for (batch,) in loader])
    np.testing.assert_array_equal(rows, client.encode(images))


def test_the_rows_are_torchs_without_a_copy(client):
    rows = client.encode(["a", "b"])
    tensor = torch.from_numpy(rows)
    assert tensor.data_ptr() == rows.ctypes.data


def test_channels_first(client, pixels):
    with pytest.raises(ItemTypeError, match="move the channels from the first to the last place"):
        client.encode([pixels])


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.zeros(4, 4, 3), "uint8"),
        (torch.zeros(4, 4, 3, requires_grad=True), "uint8"),
        (torch.empty(4, 4, 3, dtype=torch.uint8, device="meta"), "cannot be read as an array"),
        (torch.zeros(4, 4, 3, dtype=torch.bfloat16), "cannot be read as an array"),
    ],
)
def test_what_is_no_image(client, tensor, says):
    with pytest.raises(ItemTypeError, match=f"item 0: .*{says}"):
        client.encode([tensor])


def test_one_image_is_no_batch(client, pixels):
    with pytest.raises(InputTypeError, match=r"write \[image\]"):
        client.encode(pixels.permute(1, 2, 0))
    with pytest.raises(InputTypeError, match="without dimensions"):
        client.encode(torch.tensor(1))
