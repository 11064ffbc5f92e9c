"""Check that the types of all public names are complete, by ``pyright --verifytypes``.

``complete.py PYRIGHT VENV [NAME ...]``: names are those that cannot be known there, because the library of the class
they derive from is not installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def main(pyright: str, venv: str, *allowed: str) -> int:
    """Print what is incomplete; return the exit code."""
    folder = Path(venv).absolute()
    environment = {
        **os.environ,
        "VIRTUAL_ENV": str(folder),
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    command = [str(Path(pyright).absolute()), "--verifytypes", "casdk", "--ignoreexternal", "--outputjson"]
    run = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    told = json.loads(run.stdout)["typeCompleteness"]
    symbols = [symbol for symbol in told["symbols"] if symbol["isExported"]]
    incomplete = [symbol for symbol in symbols if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]]
    wrong = [symbol for symbol in incomplete if symbol["name"] not in allowed]
    for symbol in wrong:
        for finding in symbol["diagnostics"]:
            print(f"{symbol['name']}: {finding['message']}", file=sys.stderr)
    if len(symbols) < 1000:
        print(f"only {len(symbols)} names were found in {folder}", file=sys.stderr)
    print(f"types of {len(symbols) - len(incomplete)} of {len(symbols)} public names are complete")
    return 1 if wrong or len(symbols) < 1000 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
