"""Every command against the embedded server: what it prints, writes and ends with."""

import io
import json
import os
import pty
import signal
import subprocess
import sys

import numpy as np
import pytest
from casdk import __version__
from casdk.cli import main
from casdk.testing import FaultServer, Never

MODULE = [sys.executable, "-m", "casdk"]


def test_encode_lines(command, pipe, url, expected):
    pipe("a cat\na dog\n")
    ran = command("encode", url)
    assert (ran.code, ran.err) == (0, "")
    assert [(line["index"], line["item"]) for line in ran.lines] == [(0, "a cat"), (1, "a dog")]
    np.testing.assert_allclose([line["embedding"] for line in ran.lines], expected(["a cat", "a dog"]), atol=1e-6)


def test_encode_files(command, url, images, tmp_path, expected):
    out = tmp_path / "rows.npy"
    ran = command("encode", url, images["png"].parent, "-o", out)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{out}: 4 x 512 float32\n"
    np.testing.assert_allclose(np.load(out), expected(sorted(images.values())), atol=1e-6)


def test_encode_tells_in_json(command, url, images, tmp_path):
    out = tmp_path / "rows.parquet"
    ran = command("encode", url, images["png"], "-o", out, "--json", "--dtype", "float16")
    assert ran.json == {"rows": 1, "width": 512, "skipped": 0, "out": str(out)}


def test_encode_more_than_one_piece(command, url, tmp_path, expected):
    texts = [f"sentence {number}" for number in range(700)]
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    assert command("encode", url, tmp_path / "lines.txt", "-o", tmp_path / "rows.npy").code == 0
    np.testing.assert_allclose(np.load(tmp_path / "rows.npy"), expected(texts), atol=1e-6)


@pytest.fixture
def mixed(tmp_path):
    """Three hundred lines, the 261st and the last of which name files that are no images."""
    (tmp_path / "bad.png").write_text("no image")
    lines = [f"sentence {number}" for number in range(300)]
    lines[260] = lines[299] = str(tmp_path / "bad.png")
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    return tmp_path / "lines.txt"


def test_encode_stops_at_a_bad_item(command, url, mixed, tmp_path):
    ran = command("encode", url, mixed, "-o", tmp_path / "rows.npy")
    assert ran.code == 3
    assert ran.err.startswith("casdk: item 260: ")
    assert "bad.png is not an image" in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "rows.npy").exists()


def test_encode_leaves_bad_items_out(command, url, mixed, tmp_path):
    ran = command("encode", url, mixed, "-o", tmp_path / "rows.jsonl", "--errors", "skip", "--json")
    assert ran.code == 1
    assert ran.json == {"rows": 298, "width": 512, "skipped": 2, "out": str(tmp_path / "rows.jsonl")}
    assert [line.split(":")[1] for line in ran.err.splitlines()] == [" left out"] * 2
    indices = [json.loads(line)["index"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert indices == [number for number in range(300) if number not in (260, 299)]


def test_encode_with_nothing_left(command, url, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    ran = command("encode", url, tmp_path, "-o", tmp_path / "rows.npy", "--errors", "skip")
    assert ran.code == 3
    assert not (tmp_path / "rows.npy").exists()


def test_encode_asks_for_a_model(command, pipe):
    with FaultServer(width=8) as server:
        pipe("a cat\n")
        assert command("encode", server.address("http"), "--model", "ViT-B-32", "--batch-size", "4").code == 0
        assert [request.endpoint for request in server.requests] == ["/encode/ViT-B-32"]


def test_index_and_search(command, url, tmp_path, images):
    records = tmp_path / "records.jsonl"
    records.write_text('{"text": "the command line", "id": "c1", "tags": {"colour": "red"}}\n')
    assert command("index", url, records, images["png"], "--json").json == {"indexed": 2}
    assert command("index", url, records).out == "1 indexed\n"
    ran = command("search", url, "the command line", images["png"], "--limit", "1", "--json")
    first, second = ran.lines
    assert first["query"] == "the command line"
    [match] = first["matches"]
    assert match["cosine"] == pytest.approx(0, abs=1e-6)
    assert (match["id"], match["text"], match["tags"]) == ("c1", "the command line", {"colour": "red"})
    assert second["matches"][0]["uri"] == str(images["png"])
    table = command("search", url, "the command line", "--limit", "2").out
    assert "c1" in table
    assert table.startswith("the command line")


def test_rank(command, url, images, pipe):
    ran = command("rank", url, images["png"], "a cat", "a dog", images["jpeg"], "--json")
    answer = ran.json
    scores = [match["score"] for match in answer["matches"]]
    assert answer["query"] == str(images["png"])
    assert {match["candidate"] for match in answer["matches"]} == {"a cat", "a dog", str(images["jpeg"])}
    assert answer["matches"][0]["candidate"] == str(images["jpeg"])
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-4)
    pipe("a cat\na dog\n")
    assert "a dog" in command("rank", url, "a cat", "-").out


def test_profile(command, url):
    told = command("profile", url, "--json").json
    assert told["roundtrip"] == pytest.approx(told["network"] + told["server"])
    assert all(set(executor) == {"name", "time"} for executor in told["executors"])
    assert "Roundtrip" in command("profile", url, "hello").out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["encode"], 2, "URL"),
        (["nonsense"], 2, "nonsense"),
        (["encode", "URL", "--nonsense"], 2, "--nonsense"),
        (["encode", "127.0.0.1:51000", "x.png"], 2, "schemes"),
        (["encode", "gprc://127.0.0.1", "x.png"], 2, "schemes"),
        (["encode", "URL", "missing.png"], 3, "no such file"),
        (["encode", "URL", "/", "-o", "rows.csv"], 2, ".npy"),
        (["search", "URL"], 2, "no queries"),
        (["search", "URL", "a", "--limit", "0"], 2, "--limit"),
        (["rank", "URL", "a cat"], 2, "no candidates"),
        (["encode", "URL", "--batch-size", "0"], 2, "--batch-size"),
        (["bench", "URL", "--seconds", "0"], 2, "--seconds"),
        (["encode", "URL", __file__], 3, "sentences go into a .txt file"),
        (["rank", "URL", "missing.png", "a cat"], 3, "missing.png"),
        (["encode", "grpc://127.0.0.1:1", "-", "--connect-timeout", "1"], 4, "casdk doctor grpc://127.0.0.1:1"),
    ],
)
def test_errors_are_one_line(command, url, pipe, words, code, said, images):
    pipe("a cat\n")
    ran = command(*(url if word == "URL" else images["png"].parent if word == "/" else word for word in words))
    assert ran.code == code
    assert ran.out == ""
    assert said in ran.err
    assert ran.err.startswith("casdk: ")
    assert ran.err.count("\n") == 1


def test_standard_input_without_a_line(command, url, pipe):
    pipe("\n")
    ran = command("rank", url, "a cat", "-")
    assert (ran.code, ran.err) == (3, "casdk: no candidates: standard input holds no lines\n")


def test_a_deadline(command, pipe):
    with FaultServer(Never()) as server:
        pipe("a cat\n")
        assert command("encode", server.address("grpc"), "--timeout", "0.2").code == 5


def test_a_flow_without_an_index(command):
    with FaultServer() as server:
        ran = command("search", server.address("grpc"), "a cat")
    assert ran.code == 6


def test_help_and_version(command):
    assert command("--version").out.strip() == __version__
    shown = command("--help").out
    for name in ("encode", "rank", "index", "search", "profile", "serve", "doctor", "bench"):
        assert name in shown
        assert command(name, "--help").code == 0


def test_the_module_is_the_command():
    run = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == __version__


@pytest.mark.parametrize("library", ["cyclopts", "cryptography"])
def test_without_the_extra(monkeypatch, capfd, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["--version"]) == 2
    assert capfd.readouterr().err == f'casdk: the command line needs {library}: pip install "casdk[cli]"\n'


def test_serve_takes_the_servers_options(command):
    assert "--fetch-uris" in command("serve", "--help").out
    ran = command("serve", "--port", "nonsense")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "--help lists the options" in ran.err


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_serve_says_what_to_do_about_a_taken_port(server, scheme):
    port = server.address(scheme).rpartition(":")[2]
    run = subprocess.run([*MODULE, "serve", "--port", f"{scheme}={port}"], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == (
        f"casdk.server: cannot listen on 127.0.0.1:{port} for {scheme}: Address already in use "
        f"(--port {scheme}=PORT names another, --free-ports takes free ones)\n"
    )


def test_serve_serves_until_it_is_stopped(command):
    process = subprocess.Popen(
        [*MODULE, "serve", "--free-ports", "--ready-json", "--schemes", "grpc"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        address = json.loads(process.stdout.readline())["addresses"]["grpc"]
        assert command("profile", address, "--json").code == 0
        process.terminate()
        assert process.wait(20) == 0


def test_ctrl_c(tmp_path):
    with FaultServer(Never()) as server:
        (tmp_path / "lines.txt").write_text("a cat\n")
        words = ["encode", server.address("grpc"), str(tmp_path / "lines.txt"), "-o", str(tmp_path / "rows.npy")]
        process = subprocess.Popen([*MODULE, *words], stderr=subprocess.PIPE)
        with process:
            server.wait_for(lambda seen: seen.running == 1, 30)
            process.send_signal(signal.SIGINT)
            assert process.stderr.read() == b"casdk: interrupted\n"
            assert process.wait(20) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["lines.txt"]


def test_a_reader_that_leaves(url):
    lines = "".join(f"sentence {number}\n" for number in range(2000)).encode()
    process = subprocess.Popen(
        [*MODULE, "encode", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        process.stdin.write(lines)
        process.stdin.close()
        assert process.stdout.readline().startswith(b'{"index":0,')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 141


def test_a_bar_on_a_terminal(url, tmp_path):
    (tmp_path / "lines.txt").write_text("a cat\n" * 300)
    terminal, other = pty.openpty()
    words = ["encode", url, str(tmp_path / "lines.txt"), "-o", str(tmp_path / "rows.npy")]
    with subprocess.Popen(
        [*MODULE, *words], stdout=subprocess.PIPE, stderr=other, env={**os.environ, "TERM": "xterm"}
    ) as run:
        os.close(other)
        said = io.BytesIO()
        try:
            while piece := os.read(terminal, 4096):
                said.write(piece)
        except OSError:
            pass  # how Linux ends a terminal nobody writes to any more
        os.close(terminal)
        assert run.wait(20) == 0
        assert run.stdout.read().decode() == f"{tmp_path / 'rows.npy'}: 300 x 512 float32\n"
    assert "encode" in said.getvalue().decode()
