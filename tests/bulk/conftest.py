"""What the tests of bulk runs share: what lies on the disk, and sources of every kind."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet
import pytest
from casdk import Client
from casdk.server import Served
from casdk.testing import FaultServer

NUMBERS = count()
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request",
    "x-amz-acl": "public-read",
    "Content-Type": "application/octet-stream",
}
"""The request of somebody, whose signature moto does not check, about what everybody may read."""


@pytest.fixture
def held() -> Callable[[Path], dict[str, bytes]]:
    """A function from a folder to the bytes of all files in it and below, by name."""

    def held(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }

    return held


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client of a server in this process, whose rows of 8 numbers depend on the text alone."""
    with FaultServer(width=8) as server, Client(server.address("grpc")) as client:
        yield client


@pytest.fixture(scope="module")
def encoder(server: Served):
    """A client of the embedded server."""
    with Client(server.address("grpc")) as client:
        yield client


@pytest.fixture
def photos(images: dict[str, Path], tmp_path: Path) -> str:
    """A pattern of 40 small images, one file that is none, and a link that leads nowhere."""
    folder = tmp_path / "photos"
    folder.mkdir()
    kinds = list(images.values())
    for number in range(40):
        image = kinds[number % len(kinds)]
        shutil.copy(image, folder / f"{number:02}{image.suffix}")
    (folder / "17.txt.png").write_text("no image")
    (folder / "23b.png").symlink_to(folder / "nothing")
    return str(folder / "*.*")


@pytest.fixture
def captions(tmp_path: Path) -> str:
    """A file of 70 lines of JSON, one of which is none."""
    path = tmp_path / "captions.jsonl"
    rows = [f'{{"text": "caption {number}", "id": "c{number}"}}\n' for number in range(70)]
    rows[33] = "{broken\n"
    path.write_text("".join(rows))
    return str(path)


@pytest.fixture
def tables(images: dict[str, Path], tmp_path: Path) -> str:
    """2 Parquet files of 30 images each, one of which is null, as ``victim.items_of`` reads them."""
    folder = tmp_path / "tables"
    folder.mkdir()
    kinds = [image.read_bytes() for image in images.values()]
    for number in range(2):
        rows = [{"bytes": kinds[row % len(kinds)], "path": None} for row in range(30)]
        column = pyarrow.array([*rows[:5], None, *rows[6:]] if number else rows)
        pyarrow.parquet.write_table(pyarrow.table({"image": column}), folder / f"{number}.parquet")
    return f"parquet:{folder / '*.parquet'}"


@pytest.fixture
def archives(tmp_path: Path) -> str:
    """2 tar files of 30 sentences each, one of which is missing, as ``victim.items_of`` reads them."""
    (tmp_path / "tars").mkdir()
    for number in range(2):
        with tarfile.open(tmp_path / "tars" / f"{number}.tar", "w") as archive:
            for row in range(30):
                member = tarfile.TarInfo(f"{number}{row:02}.{'jpg' if number and row == 5 else 'txt'}")
                member.size = 10
                archive.addfile(member, io.BytesIO(b"caption %02d" % row))
    return f"tars:{tmp_path / 'tars' / '{0..1}.tar'}"


@pytest.fixture
def pairs(images: dict[str, Path], tmp_path: Path) -> str:
    """2 tar files of 30 images with captions, without two of the images and a caption, as ``victim.items_of`` reads."""
    picture, missing = images["png"].read_bytes(), {(0, 5): "png", (1, 21): "txt", (1, 22): "png"}
    (tmp_path / "pairs").mkdir()
    for number in range(2):
        with tarfile.open(tmp_path / "pairs" / f"{number}.tar", "w") as archive:
            for row in range(30):
                for kind, data in {"png": picture, "txt": b"caption %02d" % row}.items():
                    if missing.get((number, row)) != kind:
                        member = tarfile.TarInfo(f"{number}{row:02}.{kind}")
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))
    return f"pairs:{tmp_path / 'pairs' / '{0..1}.tar'}"


@pytest.fixture
def source(request: pytest.FixtureRequest) -> str:
    """The source of a name, as ``victim.items_of`` reads it."""
    if request.param == "texts":
        return "texts:76"
    if request.param in ("files", "lines"):
        return f"{request.param}:{request.getfixturevalue({'files': 'photos', 'lines': 'captions'}[request.param])}"
    return str(request.getfixturevalue(request.param))


@pytest.fixture(params=["rows.npy", "rows"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Each kind of target in turn, in a folder of its own."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / str(request.param)


class Victims:
    """Runs that ``victim.py`` makes, one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("victim.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def kill(self, url: str, source: str, target: str | Path, options: dict[str, object], **where: int | None) -> bool:
        """Make a run, and return whether it was killed; if not, there were not so many steps, and it is finished."""
        # Of the environment, what says where a store is has come since the process began.
        stores = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        order = {"url": url, "source": source, "target": str(target), "options": options, "environment": stores}
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({**order, **where}) + "\n")
        stdin.flush()
        code = int(stdout.readline())
        assert code in (-9, 0)  # a traceback is on standard error
        return code == -9

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=120)


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    """What makes runs that are killed."""
    victims = Victims()
    yield victims
    victims.close()


class Bucket:
    """A bucket of a server that speaks S3.

    Attributes:
        url: Of the bucket.
        web: The same on the web, where everybody may read.
    """

    def __init__(self, name: str, port: int, log: Path) -> None:
        self.url = f"s3://{name}"
        self.web = f"http://127.0.0.1:{port}/{name}"
        self._log = log
        self._ask("PUT", "")
        self.forget()

    def put(self, key: str, data: bytes) -> str:
        """Put an object there, and return its URL."""
        self._ask("PUT", f"/{key}", data)
        return f"{self.url}/{key}"

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._ask("DELETE", f"/{key}")

    def _ask(self, method: str, path: str, data: bytes | None = None) -> None:
        asked = urllib.request.Request(f"{self.web}{quote(path)}", data, SIGNED, method=method)
        urllib.request.urlopen(asked).close()

    def forget(self) -> None:
        """Forget the requests that there were."""
        self._read = self._log.stat().st_size

    def requests(self, method: str) -> list[str]:
        """Return what was asked for since, by a method, as the server has written it down."""
        said = self._log.read_bytes()[self._read :].decode()
        return re.findall(rf'"(?:\x1b\[\d+m)*{method} (\S+) HTTP', said)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Bucket]]:
    """A function that makes a bucket; what reads the environment finds the server of all of them."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as errors, pytest.MonkeyPatch.context() as patched:
        command = [sys.executable, str(Path(__file__).with_name("s3_peer.py"))]
        peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert peer.stdin is not None
        assert peer.stdout is not None
        port = int(peer.stdout.readline())
        patched.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patched.setenv("AWS_ALLOW_HTTP", "true")
        patched.setenv("AWS_REGION", "us-east-1")
        patched.setenv("AWS_ACCESS_KEY_ID", "test")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield lambda name: Bucket(name, port, log)
        peer.stdin.close()
        peer.stdout.close()
        peer.wait(120)


@pytest.fixture
def bucket(s3: Callable[[str], Bucket], request: pytest.FixtureRequest) -> Bucket:
    """A bucket of the test's own."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    return s3(f"{name[:50].strip('-')}-{next(NUMBERS)}")
