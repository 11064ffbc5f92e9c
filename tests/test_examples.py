"""Each file of `examples/` runs as a user would run it, in a process of its own.

Those for torch, dask and ray run in the environments of `ecosystem/`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from casdk.server import Served
from casdk.testing import Delay, FaultServer, embed
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
BIN = Path(sys.executable).parent
SERVICES = {
    "fastapi": ("uvicorn", "fastapi_service:app", "--app-dir", str(EXAMPLES), "--port", "0"),
    "flask": ("flask", "--app", str(EXAMPLES / "flask_service.py"), "run", "--port", "0"),
}


def environment(server: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**inherited, "CLIP_SERVER": server, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"}


@contextmanager
def service(name: str, server: str) -> Iterator[httpx.Client]:
    """Run a service, once it says where it listens, and end it as its user would."""
    command = [str(BIN / SERVICES[name][0]), *SERVICES[name][1:]]
    with subprocess.Popen(command, env=environment(server), stderr=subprocess.PIPE, text=True) as process:
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"[Rr]unning on (http://127\.0\.0\.1:\d+)", line):
                    break
            else:
                pytest.fail("".join(said))
            with httpx.Client(base_url=found[1], timeout=30, trust_env=False) as http:
                yield http
        finally:
            process.terminate()
            process.stderr.read()


def run(*command: object, server: str, cwd: Path) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, env=environment(server), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_service_merges_what_comes_at_once(name: str) -> None:
    """32 visitors at once get their own rows, from fewer requests than visitors."""
    texts = [f"visitor {number}" for number in range(32)]
    with (
        FaultServer(Delay(0.1)) as clip,
        service(name, clip.address("grpc")) as http,
        ThreadPoolExecutor(32) as visitors,
    ):
        answers = list(visitors.map(lambda text: http.post("/texts", json={"texts": [text]}), texts))
        requests = clip.counters.requests
    assert {answer.status_code for answer in answers} == {200}
    assert np.array_equal(np.float32([answer.json()[0] for answer in answers]), [embed(text) for text in texts])
    assert requests <= len(texts) // 2


@pytest.mark.parametrize("name", SERVICES)
def test_service_says_whose_fault_it_was(name: str) -> None:
    with FaultServer() as clip, service(name, clip.address("grpc")) as http:
        refused = http.post("/texts", json={"texts": ["an apple", ""]})
        assert (refused.status_code, refused.json()["detail"][:6]) == (422, "item 1")
        assert http.post("/texts", json={"texts": ["/etc/passwd"]}).json() == [embed("/etc/passwd").tolist()]
    with service(name, clip.address("grpc")) as http:  # where nothing listens any more
        assert http.post("/texts", json={"texts": ["an apple"]}).status_code == 503


def test_fastapi_service_takes_an_image(images: dict[str, Path]) -> None:
    data = images["png"].read_bytes()
    with FaultServer() as clip, service("fastapi", clip.address("websocket")) as http:
        assert http.post("/image", content=data).json() == embed(data).tolist()
        assert http.post("/image", content=b"no picture").status_code == 422


def test_flask_service_ranks(server: Served) -> None:
    with service("flask", server.address("grpc")) as http:
        asked = {"query": "a red apple", "candidates": ["the control room", "an apple, red", "a street"]}
        answer = http.post("/rank", json=asked).json()
    assert answer[0]["text"] == "an apple, red"
    assert [one["score"] for one in answer] == sorted((one["score"] for one in answer), reverse=True)


def test_image_search(server: Served, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "sea").mkdir(parents=True)
    for name, colour in {"rose.png": (220, 20, 60), "sea/wave.jpg": (20, 40, 200), "grass.webp": (30, 180, 40)}.items():
        Image.new("RGB", (64, 48), colour).save(photos / name)
    (photos / "broken.png").write_text("no picture")
    Image.new("RGB", (64, 48), (25, 45, 190)).save(tmp_path / "query.png")
    command = [sys.executable, EXAMPLES / "image_search.py", "photos", "./query.png"]

    first, second, third, *rest = run(*command, "--top", 1, server=server.address("grpc"), cwd=tmp_path).splitlines()
    assert first.startswith("left out broken.png: ")
    assert second == "pictures: 3, of them new: 3"
    assert third.endswith("  sea/wave.jpg")
    assert not rest

    (photos / "broken.png").unlink()
    (photos / "grass.webp").unlink()
    Image.new("RGB", (64, 48), (25, 45, 190)).save(photos / "lake.png")
    lines = run(*command, server=server.address("grpc"), cwd=tmp_path).splitlines()
    assert lines[0] == "pictures: 3, of them new: 1"
    assert [line.split()[1] for line in lines[1:]] == ["lake.png", "sea/wave.jpg", "rose.png"]


def test_caption_search(server: Served, tmp_path: Path) -> None:
    """A sentence finds the picture by its caption, and a picture finds itself; what is encoded stays."""
    command = [sys.executable, EXAMPLES / "caption_search.py", "pictures"]
    first, best, *_ = run(*command, "a navy lamp", server=server.address("grpc"), cwd=tmp_path).splitlines()
    assert first == "pairs: 60, of them encoded now: 60"
    assert best.split(maxsplit=1)[1] == "000000008  a navy lamp"

    with tarfile.open(tmp_path / "pictures" / "shards" / "00000.tar") as archive:
        archive.extract("000000008.jpg", tmp_path, filter="data")
    lines = run(*command, "./000000008.jpg", "--top", 1, server=server.address("grpc"), cwd=tmp_path).splitlines()
    assert lines[0] == "pairs: 60, of them encoded now: 0"
    assert lines[1].split(maxsplit=1)[1] == "000000008  a navy lamp"


@pytest.mark.soak
def test_notebook(server: Served, tmp_path: Path) -> None:
    """It runs from top to bottom; both plots are pictures of what was computed."""
    shutil.copy(EXAMPLES / "similarity.ipynb", tmp_path / "similarity.ipynb")
    run(BIN / "jupyter", "execute", "--inplace", "similarity.ipynb", server=server.address("grpc"), cwd=tmp_path)
    cells = json.loads((tmp_path / "similarity.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    shown = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) == 2
    for plot in shown:
        with Image.open(io.BytesIO(b64decode(plot))) as picture:
            assert min(picture.size) > 300
    with Image.open(tmp_path / "similarity.png") as heatmap:
        counts = {colour: count for count, colour in heatmap.convert("RGB").getcolors(1 << 16)}
    # viridis's ends: the ten cells of the diagonal, and those of the 40 to 64 pairs that have nothing in common
    yellow, purple = counts[253, 231, 36], counts[68, 1, 84]
    assert 10 / 64 < yellow / purple < 10 / 40
    [printed] = [output["text"] for output in outputs if output["output_type"] == "stream"]
    nearest = dict(line.strip().split(": ") for line in printed)
    assert nearest["a red apple on a table"] == "a green apple on a table"
    assert nearest["crimson"] == "red"
    assert nearest["navy"] == "blue"
    assert not any(cell.get("outputs") for cell in json.loads((EXAMPLES / "similarity.ipynb").read_text())["cells"])


def test_demo(tmp_path: Path, server: Served) -> None:
    printed = run(sys.executable, EXAMPLES / "demo.py", server=server.address("grpc"), cwd=tmp_path)
    assert printed.splitlines()[-1] == "All six schemes agree."


def test_every_example_is_run():
    elsewhere = (Path(__file__).parent / "ecosystem" / "test_ecosystem.py").read_text()
    for path in EXAMPLES.iterdir():
        assert path.stem in Path(__file__).read_text() or f'"{path.name}"' in elsewhere, path
