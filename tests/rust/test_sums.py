"""Sums of words, and bytes that are copied and summed up; the sums themselves are tested in the core."""

import numpy as np
import pytest
from casdk._rust import copy_and_sum, sum_words


@pytest.mark.parametrize("size", [100, 3 << 20])
def test_bytes_are_copied_to_their_place_and_summed_up(size):
    data = np.random.default_rng(7).integers(0, 256, size, np.uint8)
    out = np.zeros(size + 20, np.uint8)
    total = copy_and_sum(out, 15, data, 3)
    assert total == sum_words(data, 3)
    np.testing.assert_array_equal(out, np.concatenate([np.zeros(15), data, np.zeros(5)]))
    whole = bytes(3) + data.tobytes()
    words = np.frombuffer(whole + bytes(-len(whole) % 8), "<u8").tolist()
    assert total == sum(words) % 2**64


def test_what_does_not_fit_is_refused():
    out = np.zeros(8, np.uint8)
    with pytest.raises(IndexError, match="there is no room for 9 bytes"):
        copy_and_sum(out, 0, np.zeros(9, np.uint8), 0)
    with pytest.raises(TypeError, match="C-contiguous"):
        copy_and_sum(out, 0, np.zeros(8, np.uint8)[::2], 0)
    with pytest.raises(TypeError, match="C-contiguous"):
        sum_words(np.zeros(8, np.uint8)[::2], 0)
