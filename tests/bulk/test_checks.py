"""What is checked of rows that have come back."""

import numpy as np
import pytest
from casdk import BulkError, EmptyItemError
from casdk.bulk.checks import check_errors, check_width
from casdk.models import EncodeResult


def test_the_first_item_that_failed_is_named():
    rows = np.zeros((3, 2), np.float32)
    check_errors(EncodeResult(embeddings=rows, start=10), [4, 5, 9], ["a", "b", "c"])
    errors = tuple(EmptyItemError(index, "", "nothing") for index in (12, 11))
    with pytest.raises(BulkError, match=r"item 5, 'b', cannot be encoded: EmptyItemError: nothing; the") as caught:
        check_errors(EncodeResult(embeddings=rows, errors=errors, start=10), [4, 5, 9], ["a", "b", "c"])
    assert caught.value.__cause__ is errors[1]


def test_rows_of_another_width_are_refused():
    check_width(np.zeros((3, 2)), 2, "t")
    with pytest.raises(BulkError, match="have 3 numbers now, and t has 2: another model"):
        check_width(np.zeros((1, 3)), 2, "t")
