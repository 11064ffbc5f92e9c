"""Everything that can run on the README and the pages runs as it stands, against the embedded server.

The python blocks of a page run one after the other in one program, as a reader would type them. A block with a title is
for the library of that name, which has an environment of its own (`ELSEWHERE`). Commands run in a shell.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import casdk
import pytest
from casdk.server import Served, serve
from casdk.testing import certificates
from pages import ADDRESS, PAGES, ROOT, fences, titled

ECOSYSTEM = {path.stem for path in (ROOT / "tests" / "ecosystem" / "pins").glob("*.txt")}
ELSEWHERE = {
    **dict.fromkeys(ECOSYSTEM, "tests/ecosystem/test_ecosystem.py"),
    "docarray": "tests/interop/test_docarray.py",
}
"""Title of a block -> the test that runs it, in an environment of its own."""
LANGUAGES = {"python", "console", "text"}
PROGRAMS = sorted({fence.page for fence in fences() if fence.language == "python" and not fence.title})
COMMANDS = sorted(
    {
        line.removeprefix("$ ").partition("  #")[0].removesuffix(" &").strip()
        for fence in fences()
        if fence.language == "console"
        for line in fence.text.splitlines()
        if line.startswith("$ ")
    }
)
"""Each command once, without its comment; one in the background is the same in the foreground."""
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def folder(images: dict[str, Path], server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader works: pictures, and the files that the page on TLS names."""
    shutil.copy(images["png"], tmp_path / "apple.png")
    shutil.copytree(images["png"].parent, tmp_path / "photos")
    shutil.copy(server.ca, tmp_path / "ca.pem")
    mine, key = certificates.authority().client().write(tmp_path)
    mine.rename(tmp_path / "client.pem")
    key.rename(tmp_path / "client.key")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name == "CLIP_AUTH_TOKEN"]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def here(server: Served) -> Callable[[str], str]:
    """A function that puts the server's addresses into a text."""
    return lambda text: ADDRESS.sub(lambda found: server.address(found[1]), text)


def test_there_is_something_to_run():
    assert "README.md" in PROGRAMS
    assert len(PROGRAMS) >= 10
    assert len(COMMANDS) >= 10


def test_every_fence_is_read():
    """No block escapes because it is written in another way, or in a language that nothing checks."""
    for page, text in PAGES.items():
        marks = len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE))
        assert marks == 2 * sum(fence.page == page for fence in fences()), page
    for fence in fences():
        assert fence.language in LANGUAGES, fence
        assert not fence.rest, fence


def test_every_title_has_an_environment():
    assert {fence.title for fence in titled()} <= ELSEWHERE.keys()
    for test in set(ELSEWHERE.values()):
        assert "titled()" in (ROOT / test).read_text()


class TestPython:
    """Each page that indexes has a server of its own, so that no search finds what another page has indexed."""

    @pytest.fixture
    def server(self, page: str, server: Served) -> Iterator[Served]:
        if "index(" not in PAGES[page]:
            yield server
            return
        with serve() as served:
            yield served

    @pytest.fixture
    def log_level(self, caplog: pytest.LogCaptureFixture) -> None:
        """Has pytest take the level of the log back, which a page sets as a program does."""
        caplog.set_level(logging.NOTSET, "casdk.calls")

    @pytest.mark.parametrize("page", PROGRAMS)
    @pytest.mark.usefixtures("folder", "log_level")
    def test_page(self, page: str, here: Callable[[str], str]) -> None:
        names: dict[str, Any] = {"__name__": "page"}
        try:
            for fence in fences():
                if fence.page == page and fence.language == "python" and not fence.title:
                    code = "\n" * (fence.line - 1) + here(fence.text)
                    exec(compile(code, ROOT / page, "exec"), names)
        finally:
            for value in names.values():
                if isinstance(value, casdk.Client):
                    value.close()


@pytest.mark.parametrize(
    "code", [code if code in PAGES["README.md"] else pytest.param(code, marks=pytest.mark.soak) for code in COMMANDS]
)
def test_command(code: str, here: Callable[[str], str], folder: Path) -> None:
    """A command ends well and says nothing on stderr, or is one of those that others try."""
    if found := re.fullmatch(r"make ([a-z-]+)( [A-Z]+=.*)?", code):
        assert re.search(rf"^{found[1]}:.*## ", MAKEFILE, re.MULTILINE)
    elif found := re.fullmatch(r'pip install "?(?:casdk|\$\(ls dist/\*\.whl\))(?:\[([a-z,]+)\])?"?', code):
        assert set((found[1] or "").split(",")) <= PROJECT["optional-dependencies"].keys() | {""}
    elif found := re.fullmatch(r"python -m casdk\.server([^&|;]*)", code):
        serve = [sys.executable, "-m", "casdk.server", *found[1].split(), "--free-ports", "--with-parent"]
        subprocess.run(serve, stdin=subprocess.DEVNULL, capture_output=True, check=True)  # ends when stdin does
    elif found := re.match(r"(?:python|uvicorn|jupyter \w+) (examples/\S+)", code):
        assert (ROOT / found[1]).exists()
    else:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        command = ["bash", "-euo", "pipefail", "-c", here(code)]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr) == (0, ""), run.stdout


@pytest.mark.parametrize(
    ("page", "link"), [(page, link) for page, text in PAGES.items() for link in re.findall(r"\]\(([^)#]+)", text)]
)
def test_link_leads_somewhere(page: str, link: str) -> None:
    assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists()


@pytest.mark.parametrize(
    "target", sorted({name for text in PAGES.values() for name in re.findall(r"`make ([a-z-]+)", text)})
)
def test_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE)


def test_every_page_is_in_the_navigation():
    named = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(named) == len(set(named))
    assert {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")} <= set(named)
