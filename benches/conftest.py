"""The arena for a whole run, and its report at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import report
from arena import Arena
from peers import HAS_FAST_PEER, fast_peer, own_peer

HERE = Path(__file__).parent
RESULTS = HERE.parent / "target" / "bench"
START, END = "<!-- table -->", "<!-- end of table -->"
NAMES = {True: "a server that answers out of a table", False: "casdk's embedded server"}
ARENA = pytest.StashKey[Arena]()


@pytest.fixture(scope="session")
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """The servers, and whoever competes at them."""
    folder = tmp_path_factory.mktemp("authority")
    fast = partial(fast_peer, folder) if HAS_FAST_PEER else own_peer
    arena = Arena({"fast": fast, "own": own_peer})
    request.config.stash[ARENA] = arena
    yield arena
    arena.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of 64 image files of about 100 kB."""
    from PIL import Image

    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(7)
    for number in range(64):
        pixels = noise.integers(0, 256, (180, 185, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return str(folder)


def _publish(page: Path, lines: list[str]) -> None:
    before, rest = page.read_text().split(START)
    page.write_text(f"{before}{START}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.split(END)[1]}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table; keep it, the figures and the picture."""
    arena = config.stash.get(ARENA, None)
    if arena is None or not arena.rows:
        return
    lines = report.lines_of(arena.rows)
    terminalreporter.section(f"casdk = 1, on {report.MACHINE}, against {NAMES[HAS_FAST_PEER]}")
    terminalreporter.write_line("\n".join(lines))
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "table.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "figures.json").write_text(json.dumps([row._asdict() for row in arena.rows], indent=1))
    drawn = report.draw(arena.rows, RESULTS / "picture.svg")
    if os.environ.get("CASDK_BENCH_PUBLISH"):
        _publish(HERE / "README.md", lines)
        _publish(HERE.parent / "README.md", report.main_lines(arena.rows))
        if drawn:
            (HERE / "picture.svg").write_bytes((RESULTS / "picture.svg").read_bytes())
