"""``make interop``: build the reference environments, run the suites against real servers, print the table.

python tests/interop/run.py [pytest's arguments]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = ROOT / "target" / "interop" / "compatibility.md"


def main() -> int:
    """Run everything; returns pytest's exit status."""
    sys.path.insert(0, str(HERE))
    import environment
    from table import Table

    environment.main()
    os.environ["CASDK_INTEROP"] = "1"
    arguments = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "-q"]
    given = sys.argv[1:]
    where = [] if any(Path(argument.partition("::")[0]).exists() for argument in given) else [str(HERE)]
    status = pytest.main([*arguments, *given, *where], plugins=[Table(TABLE)])
    print(f"interop: {TABLE.relative_to(ROOT)}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
