"""What reading from a store and writing to it takes with obstore, which casdk uses, and with fsspec's s3fs."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import OURS, ROUNDS, Arena, Row
from contenders import FailedError, fsspec

WORKERS = Path(__file__).with_name("workers")
PEER = Path(__file__).parents[1] / "tests" / "bulk" / "s3_peer.py"
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/s3/aws4_request"}
"""The header of a request to make the bucket; moto checks no signature."""
TASKS = {
    "list": "names of 10,000 objects in a store",
    "images": "2,000 objects of 100 kB from a store",
    "ranges": "an object of 64 MiB from a store, 8 MiB at a time",
    "put": "4 objects of 50 MB into a store",
}


@pytest.fixture(scope="module")
def theirs() -> str:
    """The interpreter of the environment with s3fs, if it installs."""
    try:
        return str(fsspec())
    except FailedError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A store with the objects of all tasks, in a process of its own: moto's server."""
    peer = subprocess.Popen(
        [sys.executable, str(PEER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    endpoint = f"http://127.0.0.1:{int(peer.stdout.readline())}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bench", headers=SIGNED, method="PUT")).close()
    _start(sys.executable, "store_obstore.py", "fill", endpoint)
    yield endpoint
    peer.stdin.close()
    peer.stdout.close()
    peer.wait(120)


def _start(python: str, script: str, task: str, endpoint: str) -> str:
    """Have a worker do a task, and return what it prints."""
    store = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
    }
    command = [python, str(WORKERS / script), task]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **store}).stdout


@pytest.mark.parametrize("task", TASKS)
def test_a_store(theirs: str, endpoint: str, benchmark, arena: Arena, task: str) -> None:
    row = Row(TASKS[task], "", {}, {})
    counts = set()

    def work(label: str, python: str, script: str) -> None:
        figures = json.loads(_start(python, script, task, endpoint))
        counts.add(figures.pop("count"))
        for figure, number in figures.items():
            row.figures.setdefault(label, {}).setdefault(figure, []).append(number)

    benchmark.pedantic(
        lambda: work(OURS, sys.executable, "store_obstore.py"),
        setup=lambda: work("s3fs", theirs, "store_s3fs.py"),
        rounds=ROUNDS,
        iterations=1,
    )
    assert len(counts) == 1  # both have handled the same objects, or bytes
    arena.keep(row, benchmark)
