"""Every command against the embedded server: what it prints, writes and ends with."""

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from casdk import __version__
from casdk.cli import main
from casdk.server import serve
from casdk.testing import Delay, FaultServer, Never
from PIL import Image

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
    assert ran.out.startswith(f"{out}: 4 rows, in ")
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
    assert len(command("encode", url, tmp_path / "lines.txt", "--batch-size", "auto").lines) == 700


def test_encode_takes_sentences_and_urls(command, url, images, web, tmp_path, expected):
    """As `search` and `rank` do; the end of a path is no sentence."""
    picture = web(images["png"])
    ran = command("encode", url, "a red apple", picture, images["png"], "why,\tapple?")
    assert (ran.code, ran.err) == (0, "")
    assert [line["item"] for line in ran.lines] == ["a red apple", picture, str(images["png"]), "why,\tapple?"]
    np.testing.assert_allclose(
        [line["embedding"] for line in ran.lines],
        expected(["a red apple", images["png"], images["png"], "why,\tapple?"]),
        atol=1e-6,
    )
    spaced = tmp_path / "my holiday.png"
    spaced.write_bytes(images["png"].read_bytes())
    [line] = command("encode", url, spaced).lines
    np.testing.assert_allclose(line["embedding"], expected([images["png"]])[0], atol=1e-6)


def test_a_sentence_longer_than_a_files_name_may_be(command, url, expected):
    sentence = " ".join(["a red apple"] * 400)
    [line] = command("encode", url, sentence).lines
    np.testing.assert_allclose(line["embedding"], expected([sentence])[0], atol=1e-6)


@pytest.fixture
def mixed(tmp_path):
    """Three hundred lines, the 261st and the last of which name files that are no images."""
    (tmp_path / "bad.png").write_text("no image")
    lines = [f"sentence {number}" for number in range(300)]
    lines[260] = lines[299] = str(tmp_path / "bad.png")
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    return tmp_path / "lines.txt"


def test_encode_stops_at_a_bad_item(command, url, mixed, tmp_path):
    ran = command("encode", url, mixed, "-o", tmp_path / "rows.jsonl")
    assert ran.code == 3
    assert ran.err.startswith("casdk: item 260: ")
    assert "bad.png is not an image" in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "rows.jsonl").exists()
    assert f"the 260 rows before it are in {tmp_path / 'rows.jsonl.part'}" in ran.err
    assert (tmp_path / "rows.jsonl.part").read_text().count("\n") == 260


def test_encode_leaves_bad_items_out(command, url, mixed, tmp_path):
    ran = command("encode", url, mixed, "-o", tmp_path / "rows.jsonl", "--errors", "skip", "--json")
    assert ran.code == 1
    assert ran.json == {"rows": 298, "width": 512, "skipped": 2, "out": str(tmp_path / "rows.jsonl")}
    assert [line.split(":")[1] for line in ran.err.splitlines()] == [" left out"] * 2
    indices = [json.loads(line)["index"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert indices == [number for number in range(300) if number not in (260, 299)]


def test_encode_with_nothing_left(command, url, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    ran = command("encode", url, tmp_path, "-o", tmp_path / "rows.jsonl", "--errors", "skip")
    assert ran.code == 3
    assert not (tmp_path / "rows.jsonl").exists()


def test_encode_asks_for_a_model(command, pipe):
    with FaultServer(width=8) as server:
        pipe("a cat\n")
        assert command("encode", server.address("http"), "--model", "ViT-B-32", "--batch-size", "4").code == 0
        assert [request.endpoint for request in server.requests] == ["/encode/ViT-B-32"]


@pytest.fixture
def album(tmp_path, images, too_deep):
    """A directory with an image, a broken link to an image, and what cannot be listed."""
    (too_deep / "a.png").write_bytes(images["png"].read_bytes())
    (too_deep / "z.png").symlink_to(tmp_path / "gone.png")
    return too_deep


def test_what_cannot_be_read_of_a_directory_is_an_error(command, url, album, tmp_path):
    """Of `index` too, and nothing is sent."""
    for words in (("encode", url, album, "-o", tmp_path / "rows.npy"), ("index", url, album)):
        ran = command(*words)
        assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)
        assert "this directory cannot be read: File name too long" in ran.err
    assert not list(tmp_path.glob("rows*"))


def test_what_cannot_be_read_of_a_directory_is_left_out_by_its_name(command, url, album, tmp_path):
    ran = command("encode", url, album, "-o", tmp_path / "rows.jsonl", "--errors", "skip", "--json")
    assert (ran.code, ran.json) == (1, {"rows": 1, "width": 512, "skipped": 2, "out": str(tmp_path / "rows.jsonl")})
    deep, link = ran.err.splitlines()
    assert deep.startswith("casdk: left out: ")
    assert deep.endswith("this directory cannot be read: File name too long")
    assert link.startswith(f"casdk: left out: {album / 'z.png'}: item 1: ")
    assert "No such file" in link


def test_a_broken_link_is_an_error(command, url, album):
    shutil.rmtree(next(album.glob("d*")))
    ran = command("encode", url, album)
    assert ran.code == 3
    assert str(album / "z.png") in ran.err


def test_indexing_twice_keeps_each_once(command, images, tmp_path, monkeypatch):
    """However the same thing is named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for kind in ("png", "jpeg"):
        shutil.copy(images[kind], tmp_path / "photos")
    (tmp_path / "lines.txt").write_text("a cat\nphotos/apple.png\n")
    (tmp_path / "records.jsonl").write_text('{"text": "a cat"}\n{"uri": "photos/apple.jpeg"}\n')
    with serve(schemes=["grpc"]) as served:
        address = served.address("grpc")
        for words in (
            ["photos"],
            ["photos/"],
            [tmp_path / "photos"],
            ["lines.txt"],
            ["records.jsonl"],
            ["photos/apple.png"],
        ):
            assert command("index", address, *words).code == 0
        matches = command("search", address, "a cat", "--json").json["matches"]
    assert len(matches) == 3
    assert {match["id"] for match in matches} > {
        str(tmp_path / "photos/apple.png"),
        str(tmp_path / "photos/apple.jpeg"),
    }


def test_an_index_that_stops_says_how_far_it_came(command, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"sentence {number}\n" for number in range(2500)) + "missing.png\n")
    with FaultServer(width=8) as server:
        ran = command("index", server.address("grpc"), lines)
    assert ran.code == 3
    [indexed] = re.findall(r"; (\d+) items were indexed before$", ran.err.strip())
    assert 1000 <= int(indexed) <= 2500


def test_index_and_search(command, url, tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text('{"text": "the command line", "id": "c1", "tags": {"colour": "red"}}\n')
    picture = tmp_path / "picture.png"  # of its own: the index is shared, and the others' pictures may be in it already
    Image.fromarray(np.random.default_rng(8).integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(picture)
    assert command("index", url, records, picture, "--json").json == {"indexed": 2}
    assert command("index", url, records).out == "1 indexed\n"
    ran = command("search", url, "the command line", picture, "--limit", "1", "--json")
    first, second = ran.lines
    assert first["query"] == "the command line"
    [match] = first["matches"]
    assert match["cosine"] == pytest.approx(0, abs=1e-6)
    assert (match["id"], match["text"], match["tags"]) == ("c1", "the command line", {"colour": "red"})
    assert second["matches"][0]["uri"] == str(picture)
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
    profile = command("profile", url, "--json").json
    assert profile["roundtrip"] == pytest.approx(profile["network"] + profile["server"])
    assert all(set(executor) == {"name", "time"} for executor in profile["executors"])
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
        (["rank", "URL", "a cat"], 2, "no candidates"),
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


@pytest.mark.parametrize(
    "words", [["--version"], ["--help"], ["encode", "URL", "a red apple"], ["profile", "URL"], ["completion", "bash"]]
)
def test_standard_output_that_takes_no_more(url, words):
    with open("/dev/full", "w") as full:
        words = [url if word == "URL" else word for word in words]
        run = subprocess.run([*MODULE, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (run.returncode, run.stderr) == (3, "casdk: standard output: No space left on device\n")


def test_an_error_of_tls_is_one_line():
    with FaultServer() as server:
        words = [*MODULE, "profile", server.address("grpcs")]
        run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (4, 1)
    assert run.stderr.startswith("casdk: grpcs://")


def test_the_version_needs_no_library_of_the_commands():
    program = "import sys, casdk.cli; casdk.cli.main(['--version']); print(*sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"cyclopts", "rich", "asyncio", "grpc", "httpx", "cryptography"} & set(run.stderr.split())


def test_help_needs_no_library_that_talks():
    program = "import sys, casdk.cli; casdk.cli.main(['--help']); print(*sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"asyncio", "grpc", "httpx", "websockets", "cryptography.x509", "ssl"} & set(run.stderr.split())


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
    for name in ("encode", "rank", "index", "search", "profile", "serve", "doctor", "bench", "completion"):
        assert name in shown
        assert command(name, "--help").code == 0


def test_the_module_is_the_command():
    run = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == __version__


@pytest.mark.parametrize("library", ["cyclopts", "cryptography"])
def test_without_the_extra(monkeypatch, capfd, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["--help"]) == 2
    assert capfd.readouterr().err == f'casdk: the command line needs {library}: pip install "casdk[cli]"\n'


def test_serve_takes_the_servers_options(command):
    assert "--fetch-uris" in command("serve", "--help").out
    ran = command("serve", "--port", "nonsense")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "--help lists the options" in ran.err


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_serve_says_what_to_do_about_a_taken_port(server, scheme):
    port = server.address(scheme).rpartition(":")[2]
    # This scheme alone, since another test's command may listen on the ports that the others have by default.
    words = ["serve", "--schemes", scheme, "--port", f"{scheme}={port}"]
    run = subprocess.run([*MODULE, *words], capture_output=True, text=True)
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
        words = ["encode", server.address("grpc"), str(tmp_path / "lines.txt"), "-o", str(tmp_path / "rows.jsonl")]
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


def shown_by(words, *, on):
    """Run a command whose standard output or error is a terminal; return its exit code and what that shows."""
    terminal, other = pty.openpty()
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, on: other}
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([*MODULE, *map(str, words)], stdin=subprocess.DEVNULL, env=environment, **streams) as run:
        os.close(other)
        said = io.BytesIO()
        try:
            while piece := os.read(terminal, 4096):
                said.write(piece)
        except OSError:
            pass  # how Linux ends a terminal nobody writes to any more
        os.close(terminal)
        others = run.stdout or run.stderr
        assert run.wait(20) is not None
        return run.returncode, said.getvalue().decode(), others.read().decode()


def test_a_bar_on_a_terminal(tmp_path):
    """It moves with each reply."""
    (tmp_path / "lines.txt").write_text("a cat\n" * 300)
    with FaultServer(Delay(0.15), width=8) as server:
        words = [
            "encode",
            server.address("grpc"),
            tmp_path / "lines.txt",
            "-o",
            tmp_path / "rows.jsonl",
            "--batch-size",
        ]
        code, bar, out = shown_by([*words, "10"], on="stderr")
    assert (code, out) == (0, f"{tmp_path / 'rows.jsonl'}: 300 x 8 float32\n")
    counts = {int(done) for done in re.findall(r"(\d+)/(?:300|\?)", bar)}
    assert {0, 300} < counts
    assert all(count % 10 == 0 for count in counts)


def test_a_bar_knows_how_many_images_there_are(url, images, tmp_path):
    _, bar, _ = shown_by(["encode", url, images["png"].parent, "-o", tmp_path / "rows.npy"], on="stderr")
    assert "4/4" in bar
    _, bar, _ = shown_by(["index", url, images["png"].parent], on="stderr")
    assert "4/4" in bar


def test_a_terminal_gets_a_summary(url, images, tmp_path):
    (tmp_path / "lines.txt").write_text("a cat\n" * 20)
    words = ["encode", url, "a red apple", images["png"], tmp_path / "lines.txt"]
    code, shown, _ = shown_by(words, on="stdout")
    assert code == 0
    lines = shown.replace("\r", "").splitlines()
    assert lines[0] == "22 x 512 float32"
    assert lines[1].startswith("  a red apple ")
    assert len(lines) == 13
    assert lines[11:] == [
        "  and 12 more",
        "(-o FILE.npy, .parquet or .jsonl writes them, -o - prints them as lines of JSON)",
    ]
    for options in (["-o", "-"], ["--json"]):
        _, shown, _ = shown_by([*words, *options], on="stdout")
        assert [json.loads(line)["index"] for line in shown.splitlines()] == list(range(22))
