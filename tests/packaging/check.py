"""``make dist-check``: install what ``make dist`` built as users do, on each Python, and run it.

The wheel goes into an empty environment without a compiler on the path, once with the core's dependencies alone and
once with extras; the sdist into one with a compiler. Afterwards the wheel's types are checked for completeness.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
EXTRAS = "cli,image,server"


def main() -> int:
    """Check every Python named, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, required=True, help="folder with one wheel and one sdist")
    parser.add_argument("--pyright", type=Path, help="checks the types of the installed wheel")
    parser.add_argument("pythons", nargs="+", help="interpreters")
    options = parser.parse_args()
    [wheel], [sdist] = options.dist.glob("casdk-*-cp311-abi3-*.whl"), options.dist.glob("casdk-*.tar.gz")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB; {sdist.name}: {sdist.stat().st_size / 1e6:.2f} MB")
    for python in options.pythons:
        version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
        for name, requirement, compiler in (
            ("wheel", str(wheel), False),
            (f"wheel[{EXTRAS}]", f"{wheel}[{EXTRAS}]", False),
            ("sdist", str(sdist), True),
        ):
            with tempfile.TemporaryDirectory() as folder:
                sizes = install(python, Path(folder, "venv"), requirement, compiler=compiler)
            if name == "wheel":
                check_readme(wheel.stat().st_size, sizes["casdk"], sizes["all"])
            print(
                f"{version}: {name}: casdk {sizes['casdk'] / 1e6:.1f} MB, with all it needs {sizes['all'] / 1e6:.1f} MB"
            )
    if options.pyright:
        with tempfile.TemporaryDirectory() as folder:
            verify_types(options.pyright, wheel, Path(folder, "venv"), options.pythons[0])
    return 0


def install(python: str, venv: Path, requirement: str, *, compiler: bool) -> dict[str, int]:
    """Install into an empty environment and run the smoke test there; return the sizes it found."""
    subprocess.run([python, "-m", "venv", venv], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    binary = ["--only-binary", ":all:"]
    if compiler:
        binary = ["--no-binary", "casdk"]
    else:
        environment["PATH"] = str(venv / "bin")
    pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *binary]
    subprocess.run([*pip, requirement], check=True, env=environment)
    run = [venv / "bin" / "python", HERE / "smoke.py"]
    smoke = subprocess.run(run, check=True, env=environment, cwd=venv, stdout=subprocess.PIPE, text=True)
    sizes: dict[str, int] = json.loads(smoke.stdout)
    return sizes


def check_readme(*sizes: int) -> None:
    """Hold the sizes that the README tells to those there are: of the wheel, installed, and with what it needs."""
    found = re.search(
        r"([\d.]+) MB, ([\d.]+) MB installed; ([\d.]+) MB with", (HERE.parents[1] / "README.md").read_text()
    )
    assert found is not None
    for told, size in zip(found.groups(), sizes, strict=True):
        if abs(float(told) * 1e6 - size) > size / 10:
            raise SystemExit(f"the README says {told} MB where it is {size / 1e6:.2f} MB")


def verify_types(pyright: Path, wheel: Path, venv: Path, python: str) -> None:
    """Hold the types of the wheel to completeness, every library that one of them derives from installed."""
    subprocess.run([python, "-m", "venv", venv], check=True)
    pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{wheel}[{EXTRAS},testing,arrow,otel,langchain,llamaindex]"], check=True)
    complete = HERE.parent / "typing" / "complete.py"
    subprocess.run([sys.executable, complete, pyright, venv], check=True)


if __name__ == "__main__":
    sys.exit(main())
