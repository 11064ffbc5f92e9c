"""Sums of words, and pieces that are put together; the sums themselves are tested in the core."""

import numpy as np
import pytest
from casdk._rust import gather, sum_words


def test_pieces_are_put_together_and_summed_up():
    data = np.random.default_rng(7).integers(0, 256, 100, np.uint8)
    out = np.zeros(120, np.uint8)
    total = gather(out, 15, [data[:1], data[1:40], data[40:40], data[40:]], 3)
    assert total == sum_words(data, 3)
    np.testing.assert_array_equal(out, np.concatenate([np.zeros(15), data, np.zeros(5)]))
    words = np.frombuffer(bytes(3) + data.tobytes() + bytes(1), "<u8").tolist()
    assert total == sum(words) % 2**64


def test_what_does_not_fit_is_refused():
    out = np.zeros(8, np.uint8)
    with pytest.raises(IndexError, match="there is no room for 9 bytes"):
        gather(out, 0, [np.zeros(9, np.uint8)], 0)
    with pytest.raises(TypeError, match="C-contiguous"):
        gather(out, 0, [np.zeros(8, np.uint8)[::2]], 0)
    with pytest.raises(TypeError, match="C-contiguous"):
        sum_words(np.zeros(8, np.uint8)[::2], 0)
