"""What is seen of a run from outside: its lock, and how fast its shards come."""

import json
import os

import pytest
from casdk import bulk
from casdk.bulk import row_blocks
from casdk.bulk.call import open_target
from casdk.bulk.disk import PAGE_BYTES
from casdk.bulk.large_part import LargePart
from casdk.bulk.manifest import Share
from casdk.bulk.status import Writing, writing_of

TEXTS = [f"caption {number}" for number in range(40)]
OPTIONS = {"shard_rows": 10, "batch_size": 10}
HEAD_BYTES = 128
ROW_BYTES = 512 * 4


def status_of(target):
    [manifest] = open_target(target, "float32").read_manifests()
    return writing_of(str(target), manifest)


def test_no_process_writes_a_finished_target(encoder, target):
    encoder.encode_to(target, TEXTS, **OPTIONS)
    assert status_of(target) == Writing(now=False)


def test_a_run_that_writes_is_seen_and_not_disturbed(encoder, target):
    seen = []

    def looked_at():
        for text in TEXTS:
            yield text
            seen.append(status_of(target).now)

    encoder.encode_to(target, looked_at(), **OPTIONS)
    assert seen == [True] * 40
    assert status_of(target) == Writing(now=False)


def test_how_fast_shards_come(encoder, tmp_path):
    """The first says when the second was begun, if the run has made it itself."""
    folder, seen = tmp_path / "rows", []

    def looked_at(begun_after):
        yield from TEXTS[:20]
        yield TEXTS[20]  # asked for once two shards are whole
        locked_at = (folder / "_lock").stat().st_mtime
        for number, seconds in enumerate((1, 3)):
            os.utime(folder / f"part-0000{number}.parquet", times=(0, locked_at - begun_after + seconds))
        seen.append(status_of(folder).rows_per_second)
        yield from TEXTS[21:]

    encoder.encode_to(folder, looked_at(0), **OPTIONS)
    encoder.encode_to(folder, looked_at(2), **OPTIONS, overwrite=True)
    assert seen == [pytest.approx(5), None]


@pytest.fixture
def written_at_once(monkeypatch):
    """Rows are on the disk as soon as a page is full, and not 4 MiB at a time."""
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", PAGE_BYTES)
    write_rows = LargePart.write_rows

    def write_and_wait(part, block):
        write_rows(part, block)
        part._wait()

    monkeypatch.setattr(LargePart, "write_rows", write_and_wait)


@pytest.mark.usefixtures("written_at_once")
def test_how_fast_the_rows_of_a_matrix_come(encoder, tmp_path):
    """Since the last shard was whole; before the first one, since the run began, unless another run has made it."""
    target, seen = tmp_path / "rows.npy", []
    part, manifest = tmp_path / "rows.npy.part", tmp_path / "rows.casdk.json"

    def looked_at(whole_after):
        for text in TEXTS:
            yield text
            locked_at = (tmp_path / "rows.npy.lock").stat().st_mtime
            rows = (part.stat().st_size - HEAD_BYTES) // ROW_BYTES if part.exists() else 0
            if rows > 0:
                whole = len(json.loads(manifest.read_text())["shards"])
                os.utime(manifest, times=(0, locked_at + whole_after))
                os.utime(part, times=(0, locked_at + 3))
                seconds = 3 - whole_after if whole else 3
                is_known = rows > 10 * whole and not (whole and whole_after < 0)
                expected = (rows - 10 * whole) / seconds if is_known else None
                seen.append((status_of(target).rows_per_second, expected))

    options = {"shard_rows": 10, "batch_size": 2, "prefetch": 1}
    for whole_after in (1, -1):
        seen.clear()
        encoder.encode_to(target, looked_at(whole_after), overwrite=True, **options)
        for found, expected in seen:
            assert found == (None if expected is None else pytest.approx(expected))
        assert any(found for found, _ in seen)
    assert status_of(target) == Writing(now=False)


def test_a_share_has_a_lock_of_its_own(encoder, tmp_path):
    seen = []

    def looked_at():
        yield from TEXTS
        for index in range(2):
            manifest = open_target(tmp_path / "rows", "float32", Share(index=index, of=2)).read_manifest()
            seen.append(writing_of(str(tmp_path / "rows"), manifest).now)

    encoder.encode_to(tmp_path / "rows", TEXTS, **OPTIONS, shard=(1, 2))
    encoder.encode_to(tmp_path / "rows", looked_at(), **OPTIONS, shard=(0, 2))
    assert seen == [True, False]
    assert bulk.merge(tmp_path / "rows").rows == 40


def test_it_is_not_known_of_an_object_store(encoder, tmp_path):
    encoder.encode_to(tmp_path / "rows", TEXTS, **OPTIONS)
    [manifest] = open_target(tmp_path / "rows", "float32").read_manifests()
    assert writing_of("s3://bucket/rows", manifest) == Writing(None, None)
