"""``make dist-check``: install what ``make dist`` built as users do, on each Python, and run it.

The wheel goes into an empty environment without a compiler on the path, once with extras and once with the core's
dependencies alone; the sdist into one with a compiler. What has no extras speaks to a server of what has them, in an
environment with neither grpcio nor websockets. Afterwards the wheel's types are checked for completeness.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
        with tempfile.TemporaryDirectory() as folder:
            served = Path(folder, "served")
            sizes = {f"wheel[{EXTRAS}]": install(python, served, f"{wheel}[{EXTRAS}]", compiler=False)}
            with serve(served) as ready:
                sizes["wheel"] = install(python, Path(folder, "wheel"), str(wheel), ready, compiler=False)
                sizes["sdist"] = install(python, Path(folder, "sdist"), str(sdist), ready, compiler=True)
        for name, found in sizes.items():
            print(
                f"{version}: {name}: casdk {found['casdk'] / 1e6:.1f} MB, with all it needs {found['all'] / 1e6:.1f} MB"
            )
        check_readme(wheel.stat().st_size, sizes["wheel"]["casdk"], sizes["wheel"]["all"])
    if options.pyright:
        with tempfile.TemporaryDirectory() as folder:
            verify_types(options.pyright, wheel, Path(folder, "venv"), options.pythons[0])
    return 0


def install(python: str, venv: Path, requirement: str, *arguments: str, compiler: bool) -> dict[str, int]:
    """Install into an empty environment and run the smoke test there, with arguments; return the sizes it found."""
    subprocess.run([python, "-m", "venv", venv], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    binary = ["--only-binary", ":all:"]
    if compiler:
        binary = ["--no-binary", "casdk"]
    else:
        environment["PATH"] = str(venv / "bin")
    pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *binary]
    subprocess.run([*pip, requirement], check=True, env=environment)
    run = [venv / "bin" / "python", HERE / "smoke.py", *arguments]
    smoke = subprocess.run(run, check=True, env=environment, cwd=venv, stdout=subprocess.PIPE, text=True)
    sizes: dict[str, int] = json.loads(smoke.stdout)
    return sizes


@contextmanager
def serve(venv: Path) -> Iterator[str]:
    """Run the embedded server of an environment; yield what it says when it is ready, which is JSON."""
    command = [venv / "bin" / "python", "-m", "casdk.server", "--free-ports", "--ready-json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=venv) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.terminate()


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
    subprocess.run([*pip, f"{wheel}[{EXTRAS},testing,arrow,otel,stores,langchain,llamaindex]"], check=True)
    complete = HERE.parent / "typing" / "complete.py"
    subprocess.run([sys.executable, complete, pyright, venv], check=True)


if __name__ == "__main__":
    sys.exit(main())
