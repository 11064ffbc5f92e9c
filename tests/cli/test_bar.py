"""The client's bar is drawn on standard error while a command runs."""

import os
import pty
import subprocess
import sys

import pytest
import rich
from casdk.cli.bar import bar_on_stderr

SCRIPT = """
import sys, rich
from casdk.cli.bar import bar_on_stderr
with bar_on_stderr() as drawn:
    rich.print("inside", drawn)
rich.print("outside")
"""


def test_a_terminal_gets_the_bar_and_standard_output_nothing_of_it():
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        # At the end of a terminal, Linux raises.
        while chunk := read(ours):
            shown += chunk
        out = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0
    assert b"inside" in shown
    assert b"True" in shown
    assert out == b"outside\n"


def read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


def test_what_is_no_terminal_gets_none(capfd):
    console = rich.get_console()
    with bar_on_stderr() as drawn:
        assert drawn is False
        assert rich.get_console() is console
    assert capfd.readouterr() == ("", "")


def test_the_console_is_put_back_after_an_error(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(rich, "_console", None)
    with pytest.raises(KeyError):
        fail_inside()
    assert not rich.get_console().stderr


def fail_inside():
    with bar_on_stderr():
        assert rich.get_console().stderr
        raise KeyError("x")
