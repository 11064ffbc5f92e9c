"""What the tasks of an engine do, here on threads: the engines have environments of their own, `ecosystem/`."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from casdk import BulkError, Client, ConfigError, InputTypeError, InputValueError, bulk
from casdk.bulk.call import make_run
from casdk.interop._bulk_tasks import ShareTask, encode_in_tasks
from casdk.testing import FaultServer

TEXTS = [f"sentence {number}" if number % 20 else "" for number in range(50)]
SMALL = {"shard_rows": 8, "batch_size": 4}


@pytest.fixture(scope="module")
def client():
    with FaultServer(width=8) as server, Client(server.address("grpc")) as client:
        yield client


def on_threads(task):
    """Run a task for each share at once, each as a worker unpickles it."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(pickle.loads(pickle.dumps(task)), range(task.shares)))


def never(task):
    raise AssertionError("there is nothing to be done")


def encode(client, target, content, run=on_threads, tasks=3, **options):
    return encode_in_tasks(client, target, content, {**SMALL, **options}, tasks=tasks, dumps=pickle.dumps, run=run)


def test_the_bytes_are_those_of_a_single_run(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = encode(client, "many", TEXTS)
    assert (result.target, result.rows, result.failed, result.encoded) == ("many", 50, 3, 50)
    client.encode_to("one", TEXTS, **SMALL)
    assert {path.name: path.read_bytes() for path in (tmp_path / "many").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()
    }
    again = encode(client, "many", TEXTS, run=never)
    assert (again.target, again.rows, again.encoded) == ("many", 50, 0)
    with pytest.raises(BulkError, match="the input has grown"):
        encode(client, "many", [*TEXTS, "one more"], run=never)
    with pytest.raises(BulkError, match="was begun with batch_size=4"):
        encode(client, "many", TEXTS, run=never, batch_size=2)
    assert encode(client, "many", TEXTS[:10], overwrite=True).encoded == 10


def test_a_task_that_failed_goes_on_where_it_was(client, tmp_path):
    made = []

    def fail_once(task):
        made.append(task(0))
        raise BulkError("the other workers are gone")

    with pytest.raises(BulkError, match="the other workers are gone"):
        encode(client, tmp_path / "rows", TEXTS, run=fail_once)
    assert encode(client, tmp_path / "rows", TEXTS).encoded == 50 - made[0] == 32


def test_one_machine_and_a_cluster(client, tmp_path):
    def items():
        yield from TEXTS[:26]
        begun.stop(KeyboardInterrupt())
        yield from TEXTS[26:]

    begun = make_run(client, tmp_path / "rows", items(), SMALL)
    with pytest.raises(KeyboardInterrupt):
        begun.run()
    assert encode(client, tmp_path / "rows", TEXTS).encoded == 22  # it had 28: requests have 4 items
    with pytest.raises(BulkError, match="are gone"):
        encode(client, tmp_path / "other", TEXTS, run=lambda task: (_ for _ in [task(1)]).throw(BulkError("are gone")))
    assert client.encode_to(tmp_path / "other", TEXTS, **SMALL).encoded == 50 - 16


@pytest.mark.parametrize(
    ("content", "options", "error", "said"),
    [
        (iter(TEXTS), {}, InputTypeError, "each task reads all of the content, and a list_iterator can be read once"),
        ([lambda: None], {}, InputTypeError, "cannot travel to the workers"),
        (TEXTS, {"tasks": 0}, InputValueError, "tasks must be at least 1"),
        (TEXTS, {"shard": (0, 1)}, ConfigError, "shard= is for a single run"),
        (TEXTS, {"show_progress": True}, ConfigError, "casdk bulk status"),
        (TEXTS, {"shardrows": 1}, TypeError, "did you mean 'shard_rows'"),
    ],
)
def test_what_cannot_be(client, tmp_path, content, options, error, said):
    with pytest.raises(error, match=said):
        encode(client, tmp_path / "rows", content, run=never, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_target_is_a_folder(client, tmp_path):
    with pytest.raises(InputTypeError, match="target must be a path"):
        encode(client, 7, TEXTS, run=never)
    with pytest.raises(ConfigError, match="whose name has no suffix"):
        encode(client, tmp_path / "rows.npy", TEXTS, run=never)
    assert list(tmp_path.iterdir()) == []


def test_a_share_is_made_by_a_task(client, tmp_path):
    task = ShareTask(client, str(tmp_path / "rows"), pickle.dumps(TEXTS[1:21]), 2, SMALL)
    assert [task(1), task(0), task(0)] == [8, 12, 0]
    assert bulk.merge(tmp_path / "rows").rows == 20
