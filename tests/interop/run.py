"""``make interop``: build the reference environments, run the suites against real servers, print the table.

python tests/interop/run.py [pytest's arguments]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import environment
import pytest
from commands import CommandError
from table import SKIPPED, Table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = ROOT / "target" / "interop" / "compatibility.md"
TIMEOUT = 600
"""Seconds for a test and the servers it starts, on a machine that is busy with other things."""


def main() -> int:
    """Run everything; returns pytest's exit status."""
    try:
        environment.main()
    except (CommandError, environment.UnavailableError) as error:
        print(f"interop: {error}", file=sys.stderr)
        return 1
    os.environ["CASDK_INTEROP"] = "1"
    arguments = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "-q", "-o", f"timeout={TIMEOUT}"]
    given = sys.argv[1:]
    where = [] if any(Path(argument.partition("::")[0]).exists() for argument in given) else [str(HERE)]
    status = pytest.main([*arguments, *given, *where], plugins=[Table(TABLE)])
    print(f"interop: {TABLE.relative_to(ROOT)}")
    if status or given:
        return int(status)
    return _compare_with_readme()


def _compare_with_readme() -> int:
    table = TABLE.read_text()
    if SKIPPED in table or table in (ROOT / "README.md").read_text():
        return 0
    print(f"interop: README.md has another table than this run: paste {TABLE.relative_to(ROOT)} there", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
