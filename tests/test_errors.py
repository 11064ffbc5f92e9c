import inspect
import pickle

import casdk
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
