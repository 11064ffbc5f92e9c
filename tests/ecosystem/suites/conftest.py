"""What the suites share, each in its own environment: a client of the server that `test_ecosystem.py` started."""

import os
import signal
from pathlib import Path

import pytest
from casdk import Client

TEXTS = ["she smiled", "with pain", "a control room", "cat.png", "ünïcödé 🦀"]


@pytest.fixture
def client():
    with Client(os.environ["CASDK_SERVER"]) as client:
        yield client


@pytest.fixture
def texts():
    """Sentences, one of which looks like a file."""
    return TEXTS


@pytest.fixture
def picture():
    """An image file."""
    return Path(os.environ["CASDK_PICTURE"])


CAPTIONS = [f"caption {number}" for number in range(300)]
BULK = {"shard_rows": 20, "batch_size": 5}


@pytest.fixture
def captions():
    """What the bulk runs of the engines encode, in shards of `bulk_options`."""
    return CAPTIONS


@pytest.fixture
def bulk_options():
    """Options of small shards."""
    return dict(BULK)


@pytest.fixture
def deadly(tmp_path):
    """The same captions, whose first reader beyond the hundredth kills its process: a worker that dies."""
    texts, mark = CAPTIONS, str(tmp_path / "has-died")

    class Deadly:  # in here, so that it travels by value: workers cannot import this file
        def __iter__(self):
            for number, text in enumerate(texts):
                if number == 100:
                    try:
                        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
                    except FileExistsError:
                        pass
                    else:
                        os.kill(os.getpid(), signal.SIGKILL)
                yield text

    return Deadly()


@pytest.fixture
def single(client, tmp_path):
    """The files of a single run over the captions, by name."""
    client.encode_to(tmp_path / "single", CAPTIONS, **BULK)
    return files_of(tmp_path / "single")


@pytest.fixture
def files():
    """A function from a folder to the bytes of its files."""
    return files_of


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def begin(client):
    """A function that begins a run over the captions in this process, and is stopped in the middle."""

    def begin(target):
        def stopping():
            yield from CAPTIONS[:110]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            client.encode_to(target, stopping(), **BULK)

    return begin
