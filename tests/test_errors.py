"""Every error is in the tree, can be pickled, and says which item failed or how far the call came."""

import copy
import inspect
import pickle
import threading

import casdk
import numpy as np
import pytest
from casdk import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]


def make(kind):
    return kind(3, "item", "was wrong") if issubclass(kind, errors.ItemError) else kind("was wrong")


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_ours_exported_and_drawn_in_the_tree(kind):
    assert issubclass(kind, errors.CasdkError)
    assert getattr(casdk, kind.__name__) is kind
    assert f"{kind.__name__}" in errors.__doc__
    builtins = [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins" and base is not Exception]
    for base in builtins:
        assert f"{kind.__name__} ({base})" in errors.__doc__


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_pickle(kind):
    error = make(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert "was wrong" in str(error)


def test_an_item_error_names_its_item():
    error = errors.FileMissingError(7, "nosuch.png", "there is no nosuch.png", OSError("x"))
    assert str(error) == "item 7: there is no nosuch.png"
    assert (error.index, error.item, str(error.cause)) == (7, "nosuch.png", "x")
    assert isinstance(error, FileNotFoundError)


def test_a_deadline_says_how_far_it_got():
    assert str(errors.DeadlineError("late", done=3, total=9)) == "late (3 of 9 items were done)"
    assert str(errors.DeadlineError("late", done=3)) == "late (3 items were done)"


def test_every_class_says_what_it_is():
    assert all(inspect.getdoc(kind) for kind in CLASSES)


STOPPED = {
    "partial": np.array([[1, 2], [np.nan, np.nan]], np.float16),
    "start": 4,
    "done": 5,
    "total": 9,
    "attempts": 3,
    "server": "grpc://127.0.0.1:51000",
    "unconfirmed": (5,),
}


@pytest.mark.parametrize(
    "copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickled", "copied"]
)
@pytest.mark.parametrize("kind", CLASSES)
def test_what_was_finished_travels_along(kind, copied):
    error = make(kind)
    for name, value in STOPPED.items():
        setattr(error, name, value)
    again = copied(error)
    assert type(again) is kind
    assert (str(again), repr(again)) == (str(error), repr(error))
    np.testing.assert_array_equal(again.partial, error.partial)
    assert again.partial.dtype == np.float16
    for name in STOPPED.keys() - {"partial"}:
        assert getattr(again, name) == STOPPED[name]


def test_an_error_that_stopped_no_call_says_so():
    error = errors.TransportError("refused")
    assert (error.partial, error.documents, error.unconfirmed, error.total) == (None, None, None, None)
    assert (error.start, error.done, error.attempts, error.server) == (0, 0, 0, "")
    assert str(error) == "refused"


class UnportableError(Exception):
    """Comes out of no pickle, as some of httpx: `pickle` calls it with too few arguments."""

    def __init__(self, message, *, request):
        super().__init__(message)


@pytest.mark.parametrize(
    "item", [memoryview(b"item"), threading.Lock(), lambda: None], ids=["view", "lock", "function"]
)
def test_an_item_that_cannot_be_pickled_does_not_hold_up_its_error(item):
    error = errors.NotAnImageError(3, item, "was wrong", UnportableError("x", request=1))
    error.done, error.partial = 2, np.ones((4, 2), np.float32)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "item 3: was wrong (2 items were done)"
    assert (again.index, again.item, again.cause, again.done) == (3, None, None, 2)
    np.testing.assert_array_equal(again.partial, error.partial)
    copied = copy.copy(error)
    assert copied.item is item
    assert copied.cause is error.cause


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if issubclass(kind, errors.ItemError)])
def test_no_blob_is_shown(kind):
    error = kind(0, b"secret pixels", "was wrong")
    assert repr(error) == f"{kind.__name__}('item 0: was wrong')"
    assert (
        "secret pixels"
        not in f"{error!s}{error!r}{casdk.EncodeResult(embeddings=STOPPED['partial'], errors=(error,))!r}"
    )


@pytest.mark.parametrize(
    ("done", "total", "unconfirmed", "said"),
    [
        (0, 9, None, ""),
        (3, 9, None, " (3 of 9 items were done)"),
        (3, None, None, " (3 items were done)"),
        (0, 9, (), ""),
        (3, 9, (), " (3 of 9 items were stored)"),
        (0, 9, (7,), " (0 of 9 items were stored; item 7 may have been)"),
        (3, None, (3, 4, 8), " (3 items were stored; 3 more, from item 3 to item 8, may have been)"),
    ],
)
def test_how_far_a_call_came(done, total, unconfirmed, said):
    error = errors.TransportError("refused")
    error.done, error.total, error.unconfirmed = done, total, unconfirmed
    assert str(error) == f"refused{said}"
