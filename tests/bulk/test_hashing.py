"""With ``hash=True``, files are compared by their bytes."""

import os
import shutil
from pathlib import Path

import pytest
from casdk import BulkError, Client, Image, bulk
from casdk.bulk.hashing import by_bytes
from casdk.bulk.sources import AsyncSource, open_source
from casdk.testing import FaultServer


@pytest.fixture
def photo(images, tmp_path):
    kind = next(iter(images.values()))
    return Path(shutil.copy(kind, tmp_path / f"photo{kind.suffix}"))


def test_what_is_a_file_is_read(photo, tmp_path):
    (tmp_path / "other").write_bytes(photo.read_bytes())
    items = ["a text", photo, Image(tmp_path / "other"), ("named", photo), b"bytes", Image("https://a.b/c.png")]
    block = by_bytes(open_source([*items, tmp_path / "none", tmp_path])).take(10)
    assert block.names[:4] == ["a text", str(photo), str(tmp_path / "other"), "named"]
    assert block.contents[1] == block.contents[2] == block.contents[3]
    assert (block.contents[6], block.contents[7]) == ("FileNotFoundError", "IsADirectoryError")
    assert 0 not in block.contents
    plain = open_source(items).take(10)
    assert [block.contents.get(place) for place in (4, 5)] == [plain.contents.get(place) for place in (4, 5)]


async def test_a_thread_reads_them_for_a_loop(photo):
    async def items():
        yield photo

    source = by_bytes(open_source(items()))
    assert isinstance(source, AsyncSource)
    assert (await source.take(5)).contents == by_bytes(open_source([photo])).take(5).contents


def test_an_update_by_bytes(photo, images, tmp_path):
    other = list(images.values())[1]
    target, pattern = tmp_path / "rows", str(tmp_path / "photo*")
    with FaultServer(width=8) as server, Client(server.address("grpc")) as client:
        client.encode_to(target, bulk.files(pattern), hash=True)
        os.utime(photo, ns=(1, 1))
        assert client.encode_to(target, bulk.files(pattern), hash=True, update=True).encoded == 0
        before = photo.stat()
        photo.write_bytes(other.read_bytes())
        os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert client.encode_to(target, bulk.files(pattern), hash=True, update=True).reencoded == 1
        with pytest.raises(BulkError, match="begun with hash=True, and now it is False"):
            client.encode_to(target, bulk.files(pattern), update=True)
