"""Targets in an object store: bulk runs into S3 that are killed and go on, that find others at work, or their files."""

import asyncio
import importlib.util
import json
import pickle
import random
import tempfile
import traceback
from pathlib import Path

import pyarrow.parquet
import pytest
from casdk import BulkError, Client, ConfigError, bulk
from casdk.bulk import store_lock
from casdk.bulk.manifest import Manifest, Settings, read_manifest, write_manifest
from casdk.bulk.object_storage import ObjectStorage, suffix_of
from casdk.bulk.stores import _store_of
from casdk.cli import main
from casdk.interop._bulk_tasks import encode_in_tasks
from casdk.testing import FaultServer

VICTIM = Path(__file__).with_name("victim.py")
SMALL = {"shard_rows": 16, "batch_size": 4}
FAILED = {"texts": 3, "files": 2, "lines": 1, "tables": 1, "archives": 1, "pairs": 3}
"""The sources, and how many rows of each have no embedding."""
STEPS = 30
"""Steps before and after requests, among which one is chosen; every run here has more."""
TEXTS = [f"sentence {number}" if number % 37 else "" for number in range(76)]


spec = importlib.util.spec_from_file_location("victim", VICTIM)
victim = importlib.util.module_from_spec(spec)
spec.loader.exec_module(victim)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Locks that were not renewed for a second are of processes that have ended; those that are there need no more."""
    monkeypatch.setattr(store_lock, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(store_lock, "RENEWED_SECONDS", 1000.0)
    monkeypatch.setattr(store_lock, "LOOK_SECONDS", 0.05)


@pytest.fixture(scope="module")
def peer():
    with FaultServer(width=8) as server:
        yield server


@pytest.fixture(scope="module")
def client(peer):
    with Client(peer.address("grpc")) as client:
        yield client


@pytest.fixture
def on_another_machine(monkeypatch, tmp_path):
    """A function after which nothing is known here of what runs have left on this machine."""

    def go():
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        monkeypatch.setattr(tempfile, "tempdir", str(folder))

    go()
    return go


def objects_of(url):
    """Return the bytes of all objects below a URL, by name."""
    storage, found = ObjectStorage(url), {}
    for name in storage.names():
        with storage.open(name) as file:
            found[name] = file.read()
    return found


@pytest.fixture(params=["parquet", "clip-retrieval"])
def made(request, pairs, captions):
    """A source, and the options of a run."""
    if request.param == "parquet":
        return f"lines:{captions}", SMALL
    return pairs, {**SMALL, "layout": "clip-retrieval"}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_bytes_are_those_on_a_disk(made, mode, client, bucket, tmp_path, held):
    """One request for each file; when all is there, nothing is written, and names alone are read."""
    (source, options), url = made, f"{bucket.url}/deep/rows"

    def encode():
        items = victim.items_of(source)
        if mode == "sync":
            return client.encode_to(url, items, **options)
        return asyncio.run(client.aencode_to(url, items, **options))

    there = encode()
    here = client.encode_to(tmp_path / "rows", victim.items_of(source), **options)
    assert (there.rows, there.failed, there.target) == (here.rows, here.failed, url)
    assert objects_of(url) == held(tmp_path / "rows")
    written = [path for path in bucket.requests("PUT") if "/_" not in path.removeprefix("/")]
    assert len(written) == len(set(written)) >= here.rows // SMALL["shard_rows"]
    bucket.forget()
    assert encode().encoded == 0
    assert {path.rpartition("/")[2] for path in bucket.requests("PUT")} == {"_lock"}


@pytest.mark.parametrize(
    ("source", "layout"),
    [*((source, None) for source in FAILED), ("pairs", "clip-retrieval"), ("files", "clip-retrieval")],
    indirect=["source"],
)
def test_two_kills(source, layout, request, client, peer, victims, bucket, tmp_path, held):
    choose, url = random.Random(request.node.name), f"{bucket.url}/rows"
    options = SMALL if layout is None else {**SMALL, "layout": layout}
    assert victims.kill(peer.address("grpc"), source, url, options, request=choose.randint(1, STEPS))
    assert victims.kill(peer.address("grpc"), source, url, options, item=choose.randint(17, 39))
    result = client.encode_to(url, victim.items_of(source), **options)
    assert result.failed == FAILED[request.node.callspec.params["source"]]
    client.encode_to(tmp_path / "undisturbed", victim.items_of(source), **options)
    assert objects_of(url) == held(tmp_path / "undisturbed")


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_fifty_kills(made, request, client, peer, victims, bucket, tmp_path, held):
    """Five runs into each of ten folders: each is killed at a random step, or through before it comes so far."""
    (source, options), choose, killed = made, random.Random(request.node.name), 0
    client.encode_to(tmp_path / "undisturbed", victim.items_of(source), **options)
    for number in range(10):
        url = f"{bucket.url}/rows{number}"
        for _ in range(5):
            killed += victims.kill(peer.address("grpc"), source, url, options, request=choose.randint(1, STEPS))
        client.encode_to(url, victim.items_of(source), **options)
        assert objects_of(url) == held(tmp_path / "undisturbed"), number
    assert killed >= 20


def test_a_run_goes_on_another_machine(client, peer, victims, bucket, on_another_machine, tmp_path, held):
    """Where nothing is known of the process that was killed, its lock is waited for."""
    url = f"{bucket.url}/rows"
    assert victims.kill(peer.address("grpc"), "texts:76", url, SMALL, item=40)
    assert "_lock" in objects_of(url)
    assert client.encode_to(url, TEXTS, **SMALL).encoded == 76 - 32
    client.encode_to(tmp_path / "rows", TEXTS, **SMALL)
    assert objects_of(url) == held(tmp_path / "rows")


def test_a_second_process_is_refused(client, bucket, on_another_machine, monkeypatch):
    """On the same machine, and on another one; the first goes on undisturbed."""
    url = f"{bucket.url}/rows"
    monkeypatch.setattr(store_lock, "SILENT_SECONDS", 1000.0)
    monkeypatch.setattr(store_lock, "RENEWED_SECONDS", 0.1)

    def texts():
        for number, text in enumerate(TEXTS):
            if number in (20, 40):
                if number == 40:
                    on_another_machine()
                with pytest.raises(BulkError, match="is being written by another process"):
                    client.encode_to(url, TEXTS, **SMALL)
            yield text

    assert client.encode_to(url, texts(), **SMALL).rows == 76
    assert "_lock" not in objects_of(url)


def test_who_was_suspended_for_too_long_is_refused(client, bucket, on_another_machine):
    """Somebody else has gone on by then, and its rows stay."""
    url = f"{bucket.url}/rows"

    def texts():
        for number, text in enumerate(TEXTS):
            if number == 40:
                on_another_machine()
                assert client.encode_to(url, TEXTS, **SMALL).rows == 76
            yield text

    with pytest.raises(BulkError, match="another process, which has taken it over: this one was not heard of"):
        client.encode_to(url, texts(), **SMALL)
    left = objects_of(url)
    assert client.encode_to(url, TEXTS, **SMALL).encoded == 0
    assert objects_of(url) == left


def test_what_a_suspended_process_still_writes_is_refused(bucket, on_another_machine):
    """Its manifest, and its shard, whether or not whoever took over has written any of them."""
    first, second = ObjectStorage(f"{bucket.url}/rows"), ObjectStorage(f"{bucket.url}/rows")
    first.lock()
    begun = write_manifest(Manifest(settings=Settings(**SMALL, dtype="float32", normalize=False)))
    first.write_manifest("_casdk.json", begun)
    first.write("part-00000.parquet", b"first")
    on_another_machine()
    lock = second.lock()
    with pytest.raises(BulkError, match="taken it over"):
        first.write_manifest("_casdk.json", b"late")
    with pytest.raises(BulkError, match="taken it over"):
        first.write("part-00000.parquet", b"late")
    assert read_manifest(second.read_manifest("_casdk.json"), "") == read_manifest(begun, "")
    second.write("part-00000.parquet", b"second")
    with pytest.raises(BulkError, match="taken it over"):
        first.write("part-00000.parquet", b"late")
    assert objects_of(f"{bucket.url}/rows")["part-00000.parquet"] == b"second"
    lock.release()


def test_what_is_refused_is_not_touched(client, bucket):
    url = f"{bucket.url}/rows"
    client.encode_to(url, TEXTS, **SMALL)
    before = objects_of(url)
    for content, options, said in [
        (["another", *TEXTS[1:]], {}, r"item 0 is 'another' now, and was ''"),
        ([*TEXTS, "one more"], {}, "the input has grown"),
        (TEXTS, {"normalize": True}, "was begun with normalize=False, and now it is True"),
        (TEXTS, {"shard": (0, 2)}, "is whole, or of a run without shard="),
    ]:
        with pytest.raises(BulkError, match=said):
            client.encode_to(url, content, **{**SMALL, **options})
    assert objects_of(url) == before
    bucket.delete("rows/part-00002.parquet")
    with pytest.raises(BulkError, match=f"{url}/part-00002.parquet is gone"):
        client.encode_to(url, TEXTS, **SMALL)


def test_files_of_others_are_left_alone(client, bucket):
    url = f"{bucket.url}/rows"
    bucket.put("rows/theirs.txt", b"theirs")
    with pytest.raises(BulkError, match=f"{url}/theirs.txt is there, and of no bulk run"):
        client.encode_to(url, TEXTS, **SMALL)
    with pytest.raises(BulkError, match=r"holds files that are not of a bulk run, as theirs\.txt"):
        client.encode_to(url, TEXTS, overwrite=True, **SMALL)
    assert objects_of(url) == {"theirs.txt": b"theirs"}
    bucket.delete("rows/theirs.txt")
    bucket.put("rows/part-00007.parquet", b"ours, without a manifest")
    with pytest.raises(BulkError, match=f"{url}/part-00007.parquet is there, and of no bulk run"):
        client.encode_to(url, TEXTS, **SMALL)
    assert client.encode_to(url, TEXTS, overwrite=True, **SMALL).rows == 76
    assert client.encode_to(url, TEXTS[:20], overwrite=True, **SMALL).rows == 20
    assert [name for name in objects_of(url) if name.startswith("part-")] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_shares_that_are_joined_are_a_single_run(client, peer, victims, bucket, tmp_path, held):
    """One of them is killed, and what lies next to the folder is nobody's business."""
    url = f"{bucket.url}/rows"
    bucket.put("rows2/theirs.txt", b"theirs")
    assert victims.kill(peer.address("grpc"), "texts:76", url, {**SMALL, "shard": [0, 2]}, item=40)
    client.encode_to(url, TEXTS, shard=(1, 2), **SMALL)
    with pytest.raises(BulkError, match="the run of shard 0/2 is not finished"):
        bulk.merge(url)
    client.encode_to(url, TEXTS, shard=(0, 2), **SMALL)
    assert bulk.merge(url).rows == 76
    client.encode_to(tmp_path / "rows", TEXTS, **SMALL)
    assert objects_of(url) == held(tmp_path / "rows")
    assert client.encode_to(url, TEXTS, **SMALL).encoded == 0


def test_a_single_run_takes_over_what_shares_have_made(
    client, peer, victims, bucket, on_another_machine, tmp_path, held
):
    url = f"{bucket.url}/rows"
    assert victims.kill(peer.address("grpc"), "texts:76", url, {**SMALL, "shard": [1, 2]}, item=60)
    assert client.encode_to(url, TEXTS, **SMALL).encoded == 76 - 16
    client.encode_to(tmp_path / "rows", TEXTS, **SMALL)
    assert objects_of(url) == held(tmp_path / "rows")


def test_tasks_of_an_engine(client, bucket, tmp_path, held):
    url = f"{bucket.url}/rows"
    client.encode_to(tmp_path / "rows", TEXTS, **SMALL)
    tasks = {"tasks": 2, "dumps": pickle.dumps, "run": lambda task: [task(0), task(1)]}
    assert encode_in_tasks(client, url, TEXTS, SMALL, **tasks).encoded == 76
    assert objects_of(url) == held(tmp_path / "rows")


def test_failed_items_and_updates(bucket, tmp_path, held):
    """Shards are made again, and take the place of those that there were, as on a disk."""
    url, folder = f"{bucket.url}/rows", tmp_path / "rows"
    items = [(f"item {number}", text) for number, text in enumerate(TEXTS)]
    steps = [
        (items, {}),
        (items, {"retry_errors": True}),
        ([*items[:20], *items[21:], ("item 30", "another"), ("one more", "sentence")], {"update": True}),
        (items, {"update": True}),
    ]
    with (
        FaultServer(width=8, poison=lambda text: text.endswith("3")) as server,
        Client(server.address("grpc")) as client,
    ):
        for content, options in steps:
            there = client.encode_to(url, content, **SMALL, **options)
            here = client.encode_to(folder, content, **SMALL, **options)
            assert objects_of(url) == held(folder)
            assert (there.rows, there.failed, there.reencoded) == (here.rows, here.failed, here.reencoded)
            server.executor.poison = None
    assert {"_contents-00000.bin", "part-00000.parquet"} <= set(objects_of(url))


@pytest.mark.parametrize(
    ("path", "suffix"),
    [
        ("s3://my.bucket", ""),
        ("s3://my.bucket/", ""),
        ("s3://my.bucket/a.b/rows", ""),
        ("gs://bucket/rows.npy", ".npy"),
        ("a.b/rows", ""),
        ("rows.NPY", ".NPY"),
    ],
)
def test_what_a_suffix_is(path, suffix):
    assert suffix_of(path) == suffix


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("https://host/rows", "nothing can be written to a web server"),
        ("s3://bucket/rows.npy", "a store takes whole files alone"),
        ("s3://key:s3cret@bucket/rows", "a URL names a bucket, and no credentials"),
        ("az://container/rows", "cannot be used with what the environment says: .*Account must be specified"),
    ],
)
def test_what_is_no_target(client, target, said, monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError, match=said) as raised:
        client.encode_to(target, TEXTS)
    assert "s3cret" not in str(raised.value)


def test_at_the_prompt(server, images, captions, bucket, capfd):
    """Sources and target in a store; what is there, and what does not go together."""

    def run(*words):
        code = main(list(words))
        said = capfd.readouterr()
        return code, said.out, said.err

    def encode(*words):
        return run("encode", server.address("grpc"), *words, "--shard-rows", "16", "--batch-size", "4")

    lines, target = bucket.put("captions.jsonl", Path(captions).read_bytes()), f"{bucket.url}/rows"
    for number in range(3):
        bucket.put(f"photos/{number}.png", images["png"].read_bytes())
    code, out, err = encode(lines, "-o", target)
    assert (code, err) == (1, "")
    assert out.startswith(f"{target}: 70 rows, 1 of them failed: see its errors, in ")
    assert "it was finished before" in encode(lines, "-o", target)[1]
    assert run("bulk", "status", target)[:2] == (0, f"{target}: finished, 70 rows, 1 failed, 5 shards\n")
    photos = f"{bucket.url}/photos/*.png"
    assert encode(photos, "-o", f"{target}2", "--shard", "0/1")[0] == 0
    assert run("bulk", "merge", f"{target}2")[1] == f"{target}2: 3 rows; all its shards fit together\n"
    for words, said in [
        ((photos, "-o", target), "the input has changed since"),
        ((photos, captions, "-o", f"{target}3"), "what is in a store and what is not are for a run each"),
        ((photos, lines, "-o", f"{target}3"), "of a store, name images, or one file of lines"),
        ((photos, "-o", f"{target}3.npy"), "a store takes whole files alone"),
        ((f"{bucket.url}/none/*.png", "-o", f"{target}3"), "no file is called"),
    ]:
        code, out, err = encode(*words)
        assert (code != 0, out) == (True, "")
        assert said in err


def test_a_single_file_of_what_is_in_a_store(server, images, captions, bucket, tmp_path, capfd):
    """At the prompt: images, and lines of which one names an image that is not there."""

    def encode(*words):
        code = main(["encode", server.address("grpc"), *words])
        said = capfd.readouterr()
        return code, said.out, said.err

    for number in range(70):
        bucket.put(f"photos/{number:02}.png", images["png"].read_bytes())
    photos, target = f"{bucket.url}/photos/*.png", tmp_path / "rows.parquet"
    assert encode(photos, "-o", str(target)) == (0, f"{target}: 70 x 512 float32\n", "")
    found = pyarrow.parquet.read_table(target)
    assert found["item"].to_pylist() == [f"{bucket.url}/photos/{number:02}.png" for number in range(70)]
    assert len(set(map(tuple, found["embedding"].to_pylist()))) == 1
    lines = bucket.put("lines.txt", b"one sentence\n/no/such.png\nanother sentence\n")
    code, out, err = encode(lines, "--errors", "skip", "-o", "-")
    assert (code, [json.loads(line)["item"] for line in out.splitlines()]) == (1, ["one sentence", "another sentence"])
    assert "left out: /no/such.png" in err
    for words, code, said in [
        ((photos, captions, "-o", str(target)), 2, "what is in a store and what is not are for a run each"),
        ((f"{bucket.url}/none/*.png", "-o", str(target)), 3, "no file is called"),
    ]:
        refused = encode(*words)
        assert (refused[0], said in refused[2]) == (code, True)


def test_no_secret_is_written_anywhere(client, bucket, tmp_path, monkeypatch, caplog, capfd):
    secret = "s3cret/of+this/test"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{secret}-token")
    caplog.set_level("DEBUG")
    _store_of.cache_clear()
    url = f"{bucket.url}/rows"
    client.encode_to(url, TEXTS, report=tmp_path / "report.html", show_progress=True, **SMALL)
    storage = ObjectStorage(url)
    lock = storage.lock()
    said = [repr(storage), repr(lock), repr(vars(storage)), caplog.text, *capfd.readouterr()]
    said += [(tmp_path / "report.html").read_text(), *map(str, objects_of(url).items())]
    lock.release()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(BulkError) as raised:
        client.encode_to(f"{bucket.url}-none/rows", TEXTS, **SMALL)
    said += ["".join(traceback.format_exception(raised.value))]
    assert secret not in "".join(said)
    _store_of.cache_clear()
