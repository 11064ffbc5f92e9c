"""Every python block of the README and of the pages runs as it stands, against the embedded server.

A block with a title is for the library of that name, which has an environment of its own: `ecosystem/`.
"""

import re
import shutil
from pathlib import Path

import casdk
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {"README.md": README, "docs/interop.md": (ROOT / "docs" / "interop.md").read_text()}
BLOCKS = [
    pytest.param(page, block, id=f"{page} block {number}")
    for page, text in PAGES.items()
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE), 1)
]
ADDRESS = "grpc://127.0.0.1:51000"


def test_there_is_something_to_run():
    assert {param.values[0] for param in BLOCKS} == set(PAGES)
    assert ADDRESS in README


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_block(page, block, server, images, tmp_path, monkeypatch):
    shutil.copy(images["png"], tmp_path / "apple.png")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    try:
        exec(compile(block.replace(ADDRESS, server.address("grpc")), page, "exec"), names)
    finally:
        for value in names.values():
            if isinstance(value, casdk.Client):
                value.close()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", README))
def test_link_leads_somewhere(link):
    assert link.startswith("https://") or (ROOT / link).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README))))
def test_make_target_exists(target):
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
