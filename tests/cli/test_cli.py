"""The command in a shell whose standard streams are closed, or do not accept every character."""

import json
import os
import shlex
import subprocess
import sys

import pytest

COMMANDS = {
    "--help": "",
    "--version": "",
    "encode": "'a cat'",
    "encode, a file": "'a cat' -o rows.npy",
    "search": "'a cat'",
    "rank": "'a cat' 'a dog' 'a bird'",
    "index": "'a cat'",
    "profile": "",
    "doctor": "",
}


def shell(line, directory, **environment):
    command = f"{shlex.quote(sys.executable)} -m casdk {line}"
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, cwd=directory, env={**os.environ, **environment}, timeout=30
    )


def written(name, url):
    words = name.partition(",")[0]
    return words if words.startswith("--") else f"{words} {url} {COMMANDS[name]}"


@pytest.mark.parametrize("name", COMMANDS)
def test_closed_streams_are_no_traceback(name, server, tmp_path):
    url = server.address("grpc")
    ran = shell(f"{written(name, url)} >&- <&-", tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert (tmp_path / "rows.npy").exists() is name.endswith("a file")


def test_what_goes_to_a_closed_standard_error_does_not_go_to_standard_output(server, tmp_path):
    ran = shell(f"encode {server.address('http')} missing.png 2>&-", tmp_path)
    assert (ran.returncode, ran.stdout) == (3, b"")


def test_the_ready_line_is_alone_without_standard_error(tmp_path):
    command = f"exec {shlex.quote(sys.executable)} -m casdk.server --free-ports --schemes=http --ready-json 2>&-"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, cwd=tmp_path) as process:
        ready = json.loads(process.stdout.readline())
        assert ready["pid"] == process.pid
        process.terminate()
        assert process.communicate(timeout=100)[0] == b""
        assert process.returncode == 0


def test_a_server_without_standard_output_cannot_say_that_it_is_ready(tmp_path):
    command = [sys.executable, "-m", "casdk.server", "--free-ports", "--schemes=http", "--ready-json"]
    ran = subprocess.run(["sh", "-c", f"{shlex.join(command)} >&-"], capture_output=True, cwd=tmp_path, timeout=100)
    assert ran.returncode == 2
    assert b"--ready-json writes to standard output, which is closed" in ran.stderr
    assert b"Traceback" not in ran.stderr


@pytest.mark.parametrize("name", ["search", pytest.param("rank", marks=pytest.mark.soak)])
def test_a_terminal_of_few_characters_gets_escapes(name, server, tmp_path):
    items = "'na\u00efve words' 'two words'"
    if name == "search":  # in what is there, whichever tests have run before
        assert shell(f"index {server.address('grpc')} {items}", tmp_path).returncode == 0
    ran = shell(f"{name} {server.address('grpc')} {items}", tmp_path, PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"na\\xefve words" in ran.stdout


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("apple", "a sentence of one word goes to standard input, or into a .txt file"),
        ("'photos/*.png'", "the shell replaces a pattern by the files that it matches if it stands without quotes"),
        ("'photo?.png'", "the shell replaces a pattern"),
        ("photos/", "if it is a sentence, it goes to standard input with --text"),
        ("'my photos/'", "if it is a sentence"),
        ("my photos/", "a sentence of one word"),
        ("apple.png", "if it is a sentence"),
    ],
)
def test_what_is_missing_is_hinted_at_by_what_it_looks_like(word, hint, server, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    ran = command("encode", server.address("grpc"), *shlex.split(word))
    assert ran.code == 3
    assert "no such file; " + hint in ran.err
