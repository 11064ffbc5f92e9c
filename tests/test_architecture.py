"""ARCHITECTURE.md describes the life of one call: the page has to name the files that a call passes, in order."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "ARCHITECTURE.md"
MOST_ENTRIES = 80
"""Of functions, the resuming of a coroutine included: what a reader of one call has to follow."""
FOLLOW = """
import json, sys, threading
from pathlib import Path

import casdk

PACKAGE, entered, calls = Path(casdk.__file__).parent, [], []


def note(frame, event, argument):
    file = Path(frame.f_code.co_filename)
    if following and event == "call" and file.is_relative_to(PACKAGE):
        entered.append((file.relative_to(PACKAGE).as_posix(), frame.f_code.co_qualname))


following = False
threading.setprofile(note)  # for the engine's thread, which the first call starts
with casdk.Client(sys.argv[1]) as client:
    for _ in range(3):
        client.encode(["a"])
    for _ in range(20):
        sys.setprofile(note)
        following = True
        client.encode(["a"])
        following = False
        sys.setprofile(None)
        calls.append(entered.copy())
        entered.clear()
print(json.dumps(min(calls, key=len)))
"""


@pytest.fixture(scope="module")
def entered(server):
    """File and name of each function of ours that one text enters, on both threads, in order.

    Of the shortest of twenty calls, since what the server sends may come in more than one read.
    """
    ran = subprocess.run(
        [sys.executable, "-c", FOLLOW, server.address("grpc")], capture_output=True, text=True, timeout=60, check=True
    )
    return [tuple(entry) for entry in json.loads(ran.stdout)]


def test_the_page_names_the_files_that_a_call_passes(entered):
    _, _, page = PAGE.read_text().partition("## The life of one call")
    named = re.findall(r"^\d+\. `([^`]+)`", page.partition("\n## ")[0], re.MULTILINE)
    assert named == list(dict.fromkeys(file for file, _ in entered))


def test_a_call_is_short_enough_to_be_followed(entered):
    assert len(entered) <= MOST_ENTRIES
