"""The arguments of `encode_to` are checked before anything is done."""

import inspect
from pathlib import Path

import pytest
from casdk import Client, ConfigError, InputTypeError, InputValueError
from casdk.bulk.call import make_run


@pytest.mark.parametrize(
    ("target", "content", "options", "error", "said"),
    [
        ("rows.csv", [], {}, ConfigError, "a .npy file, or a folder"),
        (7, [], {}, InputTypeError, "target must be a path"),
        ("rows.npy", "one", {}, InputTypeError, "must be an iterable"),
        ("rows.npy", [], {"parameters": {"a": object()}}, InputTypeError, "cannot be written into the manifest"),
        ("rows.npy", [], {"shard_rows": 0}, InputValueError, "shard_rows"),
        ("rows.npy", [], {"shardrows": 1}, TypeError, "did you mean 'shard_rows'"),
    ],
)
def test_what_cannot_be(target, content, options, error, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Client("grpc://127.0.0.1:1") as client, pytest.raises(error, match=said):
        client.encode_to(target, content, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["rows.npy", Path("rows"), b"rows.npy"])
def test_paths_of_every_kind(target):
    make_run(None, Path("rows.npy") if isinstance(target, bytes) else target, [], {})


def test_help_names_every_option():
    for verb in (Client.encode_to, Client.aencode_to):
        assert inspect.signature(verb).parameters["shard_rows"].default == 100_000
    assert "patience: Seconds that the run waits for a server" in inspect.getdoc(Client.encode_to)
