"""Sources in an object store and on the web: what is found there, what is read of it, and what is not read again."""

import glob
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from casdk import BulkError, Image, InputValueError, bulk
from casdk.bulk.stores import StoredImage, downloaded, find_objects, is_url, open_object
from casdk.bulk.tables import parquet

SMALL = {"shard_rows": 16, "batch_size": 4}


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("s3://bucket/a/*.jpg", True),
        ("gs://bucket", True),
        ("az://container/a.tar", True),
        ("https://host:1/a.tar", True),
        ("s3:/bucket/a", False),
        ("file:///a", False),
        ("photos/s3://a", False),
        (Path("s3://bucket/a"), False),
    ],
)
def test_what_is_a_url(path, known):
    assert is_url(path) is known


PATTERNS = ["a/*.jpg", "**/*.jpg", "a/**/*.jpg", "**", "a/?.jpg", "*/[bc]/*", "a/b/c.jpg", "none/*", "a", "x y/**/*+*"]


def test_patterns_stand_for_what_they_do_on_a_disk(bucket, tmp_path):
    names = ["a/1.jpg", "a/10.jpg", "a/b/c.jpg", "a/b/d/e.jpg", "a/c/f.png", "g.jpg", "ab/h.jpg", "x y/ü+1.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        bucket.put(name, b"")
    for pattern in PATTERNS:
        on_disk = glob.glob(str(tmp_path / pattern), recursive=True)
        expected = sorted(os.path.relpath(path, tmp_path) for path in on_disk if os.path.isfile(path))
        found = [path.removeprefix(f"{bucket.url}/") for path, _ in find_objects(f"{bucket.url}/{pattern}")]
        assert found == expected, pattern


def test_images(bucket, encoder, photos, tmp_path, held):
    """Encoded as from the disk; what was encoded is not downloaded again when the run goes on."""
    for path in sorted(Path(photos).parent.iterdir()):
        if path.exists():
            bucket.put(f"photos/{path.name}", path.read_bytes())
    source = bulk.files(f"{bucket.url}/photos/*.*")
    bucket.delete("photos/07.png" if Path(photos).with_name("07.png").exists() else "photos/07.webp")
    encode = {"target": tmp_path / "rows.npy", "content": source, **SMALL}
    result = encoder.encode_to(**encode)
    local = sorted(path for path in Path(photos).parent.iterdir() if path.exists())
    expected = encoder.encode(local, errors="return").embeddings
    expected[7] = np.nan
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), expected)
    assert (result.rows, result.failed) == (41, 2)
    errors = [json.loads(line) for line in (tmp_path / "rows.errors.jsonl").read_text().splitlines()]
    assert "there is no such object" in errors[0]["error"]
    assert errors[1]["name"] == f"{bucket.url}/photos/17.txt.png"
    bucket.forget()
    assert encoder.encode_to(**encode).encoded == 0
    assert bucket.requests("GET") == []
    bucket.put("photos/11.png" if (Path(photos).with_name("11.png")).exists() else "photos/new.png", b"another")
    with pytest.raises(BulkError, match=r"the input has (changed|become)|item \d+ is"):
        encoder.encode_to(**{**encode, "content": bulk.files(f"{bucket.url}/photos/*.*")})


def test_an_image_is_read_where_the_source_is(bucket, images):
    url = bucket.put("a.png", images["png"].read_bytes())
    [(name, image)] = bulk.files(url)
    assert (name, image.source) == (url, images["png"].read_bytes())


def test_what_is_downloaded_keeps_its_place(bucket):
    urls = [bucket.put(f"{number:03}", b"%d" % number) for number in range(100)]
    items = [StoredImage(url) if number % 3 else url for number, url in enumerate(urls)]
    expected = [b"%d" % number if number % 3 else url for number, url in enumerate(urls)]
    blocks = [items[:8], items[8:9], [], items[9:]]
    assert [item.source if isinstance(item, Image) else item for item in downloaded(blocks)] == expected
    assert list(downloaded([[1, 2], [], [3]])) == [1, 2, 3]


def test_lines(bucket, captions, encoder, tmp_path, held):
    url = bucket.put("captions.jsonl", Path(captions).read_bytes())
    for folder, path in (("here", captions), ("there", url), ("web", f"{bucket.web}/captions.jsonl")):
        (tmp_path / folder).mkdir()
        assert encoder.encode_to(tmp_path / folder / "rows.npy", bulk.lines(path), **SMALL).failed == 1
    assert held(tmp_path / "here") == held(tmp_path / "there") == held(tmp_path / "web")


def test_tables(bucket, tables):
    pattern = tables.removeprefix("parquet:")
    for path in Path(pattern).parent.iterdir():
        bucket.put(f"tables/{path.name}", path.read_bytes())
    here = [content for _, _, content in parquet(pattern, columns="image").entries()]
    there = list(parquet(f"{bucket.url}/tables/*.parquet", columns="image").entries())
    assert [content for _, _, content in there] == here
    assert there[31][0] == f"{bucket.url}/tables/1.parquet:1"


def test_archives(bucket, archives):
    for path in sorted(Path(archives.removeprefix("tars:")).parent.iterdir()):
        bucket.put(f"tars/{path.name}", path.read_bytes())
    here = list(bulk.tars(archives.removeprefix("tars:"), columns="txt").entries())
    there = list(bulk.tars(f"{bucket.url}/tars/{{0..1}}.tar", columns="txt").entries())
    on_the_web = list(bulk.tars(f"{bucket.web}/tars/{{0..1}}.tar", columns="txt").entries())
    read = [[(name, content) for name, _, content in entries] for entries in (here, there, on_the_web)]
    assert read[0] == read[1] == read[2]


def test_an_object_is_read_as_a_file_is(bucket):
    data = os.urandom(5000)
    url = bucket.put("data", data)
    with open_object(url, 700) as opened:
        assert opened.read() == data
        assert opened.seek(-10, io.SEEK_END) == 4990
        assert opened.read(100) == data[-10:]
        opened.seek(10)
        assert opened.read(20) == data[10:30]
    bucket.forget()
    with open_object(url) as opened:
        assert opened.seek(1000, io.SEEK_CUR) == 1000
        assert opened.read(5) == data[1000:1005]
        bucket.put("data", os.urandom(5000))
        with pytest.raises(OSError, match="it was changed while it was read"):
            opened.read(5)
    assert len(bucket.requests("GET")) == 2


def test_a_tar_file_that_changes_while_it_is_read_stops_the_run(bucket, encoder, tmp_path):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for number in range(30):
            member = tarfile.TarInfo(f"{number}.txt")
            member.size = 1 << 20
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    url = bucket.put("0.tar", data.getvalue())
    entries = bulk.tars(url, columns="txt").entries()
    next(entries)
    bucket.put("0.tar", data.getvalue() + bytes(512))
    with pytest.raises(BulkError, match=r"cannot be read beyond \d+\.txt: .*it was changed"):
        list(entries)


def test_images_on_the_web_are_fetched_by_the_client(bucket, images, encoder, tmp_path):
    bucket.put("a.png", images["png"].read_bytes())
    bucket.put("b.gif", images["gif"].read_bytes())
    source = bulk.files([f"{bucket.web}/b.gif", f"{bucket.web}/a.png"])
    encoder.encode_to(tmp_path / "rows.npy", source)
    expected = encoder.encode([images["png"], images["gif"]])
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), expected)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda bucket: bulk.files(f"{bucket.url}/none.jpg"), InputValueError, "no file is called s3://"),
        (lambda bucket: bulk.files(f"{bucket.url}/*.jpg"), InputValueError, "no file is called s3://"),
        (lambda bucket: bulk.lines(f"{bucket.url}/none.txt"), InputValueError, "there is no such file"),
        (lambda bucket: bulk.tars(f"{bucket.web}/*.tar", columns="jpg"), InputValueError, "has no list of its files"),
        (lambda bucket: bulk.files("s3://no-such-bucket/*.jpg"), BulkError, r"no-such-bucket/\*\.jpg cannot be looked"),
    ],
)
def test_what_is_not_there(bucket, make, error, said):
    with pytest.raises(error, match=said):
        make(bucket)


def test_without_the_extra():
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['obstore', 'obstore.exceptions', 'obstore.store']))\n"
        "from casdk import bulk; bulk.files('s3://bucket/*.jpg')"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.stderr.rstrip().endswith('ConfigError: s3://bucket needs obstore: pip install "casdk[stores]"')
