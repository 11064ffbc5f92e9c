"""Bulk runs that send crops with loss: which rows are exact does not depend on where a run was stopped."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from casdk import BulkError, Client, bulk
from casdk._calls.sample import SAMPLE_IMAGES
from casdk.bulk.call import make_run, open_target
from clip_models import file, photo

VICTIM = Path(__file__).parents[1] / "bulk" / "victim.py"
ROWS, SHARD_ROWS, BATCH_SIZE = 100, 48, 5
OPTIONS = {"shard_rows": SHARD_ROWS, "batch_size": BATCH_SIZE, "images": "jpeg95", "min_fidelity": 0.98}
EXACT = {"images": "exact", "min_fidelity": 0.999}

spec = importlib.util.spec_from_file_location("victim", VICTIM)
victim = importlib.util.module_from_spec(spec)
spec.loader.exec_module(victim)


class StoppedError(Exception):
    """What the tests stop a run with."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos that have more bytes than their crops, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    photos = [file(photo(420, 330, seed), quality=95) for seed in range(10)]
    for at in range(ROWS):
        (folder / f"{at:03}.jpg").write_bytes(b"no image" if at == 7 else photos[at % len(photos)])
    return folder


@pytest.fixture(scope="module")
def source(folder):
    """The same as the victim reads it."""
    return f"files:{folder / '*.jpg'}"


def held(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if "lock" not in path.name}


@pytest.fixture(scope="module")
def undisturbed(client, source, tmp_path_factory):
    """What a run leaves that nothing has stopped: its result, and the bytes of its files."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = client.encode_to(folder / "rows.npy", victim.items_of(source), **OPTIONS)
    return result, held(folder)


def manifest_of(target):
    return open_target(target, "float32").read_manifest()


def test_the_first_images_of_each_shard_have_no_loss(client, folder, undisturbed):
    result, files = undisturbed
    paths = sorted(folder.iterdir())
    exact = client.encode([path for path in paths if path.name != "007.jpg"])
    exact = np.insert(exact, 7, np.nan, axis=0)
    rows = np.frombuffer(files["rows.npy"][-exact.nbytes :], np.float32).reshape(exact.shape)
    equal = [(one == other).all() for one, other in zip(rows, exact, strict=True)]
    # The file that is no image counts as one of the first: nobody knows what it is before it is opened.
    assert [equal[at] for at in range(SAMPLE_IMAGES) if at != 7] == [True] * (SAMPLE_IMAGES - 1)
    assert equal[SHARD_ROWS : SHARD_ROWS + SAMPLE_IMAGES] == [True] * SAMPLE_IMAGES
    assert not any(equal[SAMPLE_IMAGES:SHARD_ROWS] + equal[SHARD_ROWS + SAMPLE_IMAGES : 2 * SHARD_ROWS])
    assert 0.98 < result.fidelity < 1
    assert (result.rows, result.failed) == (ROWS, 1)


@pytest.mark.parametrize(
    "where",
    [
        {"item": 20},
        pytest.param({"item": 45}, marks=pytest.mark.soak),
        pytest.param({"disk": 30}, marks=pytest.mark.soak),
    ],
)
def test_a_run_that_is_killed_leaves_the_same_bytes(clip, client, source, undisturbed, where, tmp_path):
    target = tmp_path / "rows.npy"
    arguments = {"url": clip.address("grpc"), "source": source, "target": str(target), "options": OPTIONS, **where}
    ran = subprocess.run([sys.executable, VICTIM, json.dumps(arguments)], capture_output=True, text=True, check=False)
    assert ran.returncode == -9, ran.stderr
    result = client.encode_to(target, victim.items_of(source), **OPTIONS)
    assert held(tmp_path) == undisturbed[1]
    assert result.fidelity == undisturbed[0].fidelity


@pytest.mark.parametrize(
    ("stops_at", "kept"),
    [
        pytest.param(20, 0, marks=pytest.mark.soak),
        (47, 45),
        pytest.param(70, SHARD_ROWS, marks=pytest.mark.soak),
        (95, 93),
    ],
)
def test_a_run_that_is_stopped_keeps_what_is_measured(client, source, undisturbed, stops_at, kept, tmp_path):
    """Images that are measured go together; behind them, the verdict on the shard is in the manifest."""
    target = tmp_path / "rows.npy"

    named = victim.items_of(source)

    def entries():
        for at, entry in enumerate(named.entries()):
            if at == stops_at:
                run.stop(StoppedError())
            yield entry

    run = make_run(client, target, bulk.Named(entries, named.total, named.holds), OPTIONS)
    with pytest.raises(StoppedError):
        run.run()
    manifest = manifest_of(target)
    assert manifest.rows == kept
    if manifest.begun is not None:
        assert manifest.begun.images == "jpeg95"
        assert 0.98 < manifest.begun.fidelity < 1
    client.encode_to(target, victim.items_of(source), **OPTIONS)
    assert held(tmp_path) == undisturbed[1]


@pytest.mark.soak
def test_runs_that_share_a_folder_leave_what_one_leaves(client, source, tmp_path):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    result = client.encode_to(whole, victim.items_of(source), **OPTIONS)
    for index in range(2):
        client.encode_to(shared, victim.items_of(source), shard=(index, 2), **OPTIONS)
    assert bulk.merge(shared).fidelity == result.fidelity
    assert held(shared) == held(whole)


@pytest.mark.soak
def test_too_much_loss_is_in_the_manifest_and_sends_none(client, source, tmp_path):
    options = {**OPTIONS, "min_fidelity": 1.0}
    result = client.encode_to(tmp_path / "lossy.npy", victim.items_of(source), **options)
    client.encode_to(tmp_path / "exact.npy", victim.items_of(source), **{**OPTIONS, **EXACT})
    assert (tmp_path / "lossy.npy").read_bytes() == (tmp_path / "exact.npy").read_bytes()
    assert 0.98 < result.fidelity < 1
    shards = manifest_of(tmp_path / "lossy.npy").shards
    assert [shard.images for shard in shards] == ["exact", "exact", None]  # the last has too few
    assert all(b'"images"' not in data for name, data in held(tmp_path).items() if name.startswith("exact"))


def test_a_target_stays_with_what_it_was_begun_with(client, source, undisturbed, tmp_path):
    for name, data in undisturbed[1].items():
        (tmp_path / name).write_bytes(data)
    target = tmp_path / "rows.npy"
    with pytest.raises(BulkError, match=r"begun with images='jpeg95', and now it is 'exact'"):
        client.encode_to(target, victim.items_of(source), **{**OPTIONS, **EXACT})
    with pytest.raises(BulkError, match=r"begun with min_fidelity=0\.98, and now it is 0\.97"):
        client.encode_to(target, victim.items_of(source), **{**OPTIONS, "min_fidelity": 0.97})
    again = client.encode_to(target, victim.items_of(source), **OPTIONS)
    assert (again.encoded, again.fidelity) == (0, undisturbed[0].fidelity)


def test_what_is_tried_again_goes_without_loss(client, source, undisturbed, tmp_path):
    for name, data in undisturbed[1].items():
        (tmp_path / name).write_bytes(data)
    options = {**OPTIONS, "retry_errors": True}
    result = client.encode_to(tmp_path / "rows.npy", victim.items_of(source), **options)
    assert (result.reencoded, result.failed) == (1, 1)
    assert held(tmp_path) == undisturbed[1]


async def test_images_with_captions_on_a_loop(clip, folder, tmp_path):
    """A row is two items then, of which one is an image that is measured."""
    paths = [path for path in sorted(folder.iterdir()) if path.name != "007.jpg"][: 2 * SAMPLE_IMAGES]
    table = pyarrow.table({"image": [path.read_bytes() for path in paths], "text": [path.name for path in paths]})
    pyarrow.parquet.write_table(table, tmp_path / "pairs.parquet")
    items = bulk.parquet(tmp_path / "pairs.parquet", columns=("image", "text"))
    async with Client(clip.address("grpc")) as client:
        result = await client.aencode_to(tmp_path / "rows", items, **{**OPTIONS, "shard_rows": ROWS})
        exact = await client.aencode(paths)
    assert 0.98 < result.fidelity < 1
    [path] = (tmp_path / "rows").glob("*[0-9].parquet")
    rows = np.stack(pyarrow.parquet.read_table(path).column("image_embedding").to_numpy())
    equal = (rows == exact).all(axis=1)
    assert equal.tolist() == [True] * SAMPLE_IMAGES + [False] * SAMPLE_IMAGES
