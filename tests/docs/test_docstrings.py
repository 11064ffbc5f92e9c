"""The examples in docstrings run as they stand, against the embedded server and in a folder with pictures."""

from __future__ import annotations

import doctest
import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import casdk
import pytest
from casdk.server import Served, serve
from pages import ADDRESS

PACKAGE = Path(casdk.__file__).parent
MODULES = sorted(
    ".".join(("casdk", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text()
)
"""Modules with an example. Lines that need more than casdk's own libraries carry `doctest: +SKIP`."""


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A server whose index no other page uses."""
    with serve() as served:
        yield served


@pytest.fixture
def folder(images: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, with `apple.png` and `photos`, and an environment without proxies and credentials."""
    shutil.copy(images["png"], tmp_path / "apple.png")
    shutil.copytree(images["png"].parent, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name == "CLIP_AUTH_TOKEN"]:
        monkeypatch.delenv(name)


def test_public_methods_have_examples():
    verbs = ("encode", "stream", "encode_to", "rank", "index", "search", "space", "profile")
    assert [verb for verb in verbs if ">>> " not in (getattr(casdk.Client, verb).__doc__ or "")] == []


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.usefixtures("folder")
def test_examples(module: str, server: Served) -> None:
    def at_server(text: str) -> str:
        return ADDRESS.sub(lambda found: server.address(found[1]), text)

    failed: list[str] = []
    for test in doctest.DocTestFinder().find(importlib.import_module(module)):
        for example in test.examples:
            example.source, example.want = at_server(example.source), at_server(example.want)
        # Names of an example are its own, so that a reader can run it alone.
        test.globs = {}
        doctest.DocTestRunner(verbose=False).run(test, out=failed.append, clear_globs=False)
        for value in test.globs.values():
            if isinstance(value, casdk.Client):
                value.close()
    assert failed == []
