"""What the tests of bulk runs share: what lies on the disk, and sources of every kind."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest
from casdk import Client
from casdk.server import Served


@pytest.fixture
def held() -> Callable[[Path], dict[str, bytes]]:
    """A function from a folder to the bytes of all files in it and below, by name."""

    def held(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }

    return held


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


@pytest.fixture(params=["texts", "files", "lines"])
def source(request: pytest.FixtureRequest) -> str:
    """Each of three sources in turn, as ``victim.items_of`` reads it."""
    if request.param == "texts":
        return "texts:76"
    place = request.getfixturevalue("photos" if request.param == "files" else "captions")
    return f"{request.param}:{place}"


@pytest.fixture(params=["rows.npy", "rows"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Each kind of target in turn, in a folder of its own."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / str(request.param)
