"""Every python block of the README runs as it stands, against the embedded server."""

import re
import shutil
from pathlib import Path

import casdk
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
ADDRESS = "grpc://127.0.0.1:51000"


def test_there_is_something_to_run():
    assert BLOCKS
    assert ADDRESS in README


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number in range(1, len(BLOCKS) + 1)])
def test_block(block, server, images, tmp_path, monkeypatch):
    shutil.copy(images["png"], tmp_path / "apple.png")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    try:
        exec(compile(block.replace(ADDRESS, server.address("grpc")), "README.md", "exec"), names)
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
