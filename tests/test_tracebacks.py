"""Frames of casdk are dropped from tracebacks, and those of the caller's code stay."""

import traceback

import casdk
from casdk import CallbackError, CasdkError
from casdk._calls.tracebacks import drop_frames


def names_of(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def callers_own():
    raise ValueError("of the caller's own code")


def caught(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def test_an_error_of_ours_loses_all_its_frames():
    error = caught(lambda: casdk.Client("nothing"))
    assert isinstance(error, CasdkError)
    drop_frames(error)
    assert names_of(error) == []


def test_what_the_callers_own_code_raised_is_still_found():
    def run():
        try:
            callers_own()
        except ValueError as error:
            raise CallbackError("a callback raised") from error

    error = caught(run)
    drop_frames(error)
    assert names_of(error) == []
    assert names_of(error.__cause__)[-1] == "callers_own"


def test_errors_that_lead_to_each_other_are_looked_at_once():
    one, other = CasdkError("one"), CasdkError("other")
    one.__cause__, other.__context__ = other, one
    drop_frames(one)
    assert one.__cause__ is other
