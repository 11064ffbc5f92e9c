"""The table of docs/cli.md names commands that exist; `docs/test_pages.py` runs the commands of the page."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("command", re.findall(r"^\| `casdk (\w+)", PAGE, re.MULTILINE))
def test_a_command_of_the_table_exists(command):
    from casdk.cli.commands import app

    assert command in app
