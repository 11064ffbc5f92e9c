"""Every error ends a command with the exit code of the documentation."""

import inspect
import re
from pathlib import Path

import pytest
from casdk import errors
from casdk.cli.exits import Exit, exit_of, line_of

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
DOCUMENTED = {int(code): words for code, words in re.findall(r"^\| (\d+) \| (.+?) \|$", PAGE, re.MULTILINE)}
KINDS = [kind for name in errors.__all__ if inspect.isclass(kind := getattr(errors, name))]


def made(kind):
    if issubclass(kind, errors.ItemError):
        return kind(3, "item", "is broken")
    return kind("is broken")


def test_each_code_is_documented():
    assert set(DOCUMENTED) == {int(code) for code in Exit}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_has_a_code_and_one_line(kind):
    error = made(kind)
    assert exit_of(error) not in (Exit.OK, Exit.PARTIAL)
    line = line_of(error, "grpc://there:1")
    assert "is broken" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ConfigError, 2),
        (errors.FileMissingError, 3),
        (errors.InputTypeError, 3),
        (errors.TLSError, 4),
        (errors.DeadlineError, 5),
        (errors.OverloadedError, 6),
        (errors.ReplyError, 6),
        (errors.AuthError, 7),
        (PermissionError, 3),
        (BrokenPipeError, 141),
    ],
)
def test_codes(kind, code):
    assert exit_of(made(kind)) == code


def test_a_line_folds_what_a_server_said():
    assert line_of(errors.ServerError("first\n  second\tthird")) == "first second third"


def test_what_went_wrong_on_the_way_is_for_the_doctor():
    assert "`casdk doctor grpc://there:1`" in line_of(errors.TransportError("refused"), "grpc://there:1")
    assert "doctor" not in line_of(errors.ServerError("boom"), "grpc://there:1")
    assert "doctor" not in line_of(errors.TransportError("refused"))


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (
            'x.png: No such file; if it is a sentence, write Text("x.png")',
            "x.png: No such file; if it is a sentence, give --text",
        ),
        (
            "it is no image; give check_images=False to send them all the same",
            "it is no image; sentences go into a .txt file",
        ),
    ],
)
def test_advice_is_for_the_command_line(reason, line):
    assert line_of(errors.NotAnImageError(3, "x.png", reason)) == f"item 3: {line}"


def test_what_became_of_what_was_done_before_is_told():
    error = errors.TransportError("refused")
    error.add_note("the 3 rows before it are in rows.npy.part")
    assert line_of(error) == "refused; the 3 rows before it are in rows.npy.part"


def test_a_file_of_ours_is_named():
    assert line_of(OSError(28, "No space left on device", "rows.npy.part")) == "rows.npy.part: No space left on device"
