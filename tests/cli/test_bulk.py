"""Bulk runs on the command line continue after a stop, say what has changed, and end in order at a signal."""

import io
import json
import shlex
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow.dataset
import pyarrow.parquet
import pytest
from casdk import Client
from casdk.testing import FaultServer, Gate, Hold

SMALL = ("--shard-rows", 16, "--batch-size", 4)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"sentence {number}\n" for number in range(50)))
    return path


def test_a_folder(command, url, lines, tmp_path):
    target = tmp_path / "rows"
    ran = command("encode", url, lines, "-o", target, *SMALL)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{target}: 50 rows, in ")
    names = pyarrow.dataset.dataset(target).to_table()["name"].to_pylist()
    assert names == [f"sentence {number}" for number in range(50)]
    again = command("encode", url, lines, "-o", target, *SMALL)
    assert again.out == f"{target}: 50 rows; it was finished before, and the input is the same\n"
    assert command("bulk", "status", target).out == f"{target}: finished, 50 rows, 0 failed, 4 shards\n"
    status = command("bulk", "status", target, "--json").json
    assert status["finished"]
    assert status["space"] == command("space", url).out.strip()


def test_a_matrix(command, url, lines, tmp_path, expected):
    """A row for each item, also for those before the first one that can be encoded."""
    names = ["missing.png"] * 20 + lines.read_text().splitlines() + ["missing.png"]
    lines.write_text("\n".join(names))
    target = tmp_path / "rows.npy"
    ran = command("encode", url, lines, "-o", target, *SMALL)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith(f"{target}: 71 rows, 21 of them failed: see its errors, in ")
    rows = np.load(target)
    assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [*range(20), 70]
    np.testing.assert_allclose(rows[20:70], expected(names[20:70]), atol=1e-6)
    assert [json.loads(line) for line in (tmp_path / "rows.names.jsonl").read_text().splitlines()] == names
    assert {path.name for path in tmp_path.glob("rows*")} == {
        "rows.npy",
        "rows.names.jsonl",
        "rows.contents.bin",
        "rows.errors.jsonl",
        "rows.casdk.json",
    }
    assert "it was finished before" in command("encode", url, lines, "-o", target, *SMALL).out


def test_a_file_of_others_is_left_alone(command, url, lines, tmp_path):
    (tmp_path / "rows.npy").write_bytes(b"of others")
    ran = command("encode", url, lines, "-o", tmp_path / "rows.npy")
    assert (ran.code, (tmp_path / "rows.npy").read_bytes()) == (3, b"of others")
    assert "is there, and of no bulk run: give another target, or --overwrite to lose it" in ran.err
    assert command("encode", url, lines, "-o", tmp_path / "rows.npy", "--overwrite").code == 0
    assert np.load(tmp_path / "rows.npy").shape == (50, 512)


def test_what_fails_is_written_down(command, url, lines, tmp_path):
    with lines.open("a") as file:
        file.write("/no/such/photo.png\n")
    ran = command("encode", url, lines, "-o", tmp_path / "rows", "--json", "--normalize")
    assert (ran.code, ran.json["rows"], ran.json["failed"]) == (1, 51, 1)
    stopped = command("encode", url, lines, "-o", tmp_path / "other", "--errors", "raise")
    assert stopped.code == 3
    assert "item 50, '/no/such/photo.png', cannot be encoded" in stopped.err
    assert "the same command goes on there, and with --errors record" in stopped.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--batch-size", 8), 3, "begun with batch_size=4, and now it is 8; give another target, or --overwrite"),
        (("--batch-size", 4, "--errors", "skip"), 2, "written down here (record)"),
        (("--batch-size", 4, "--update", "--overwrite"), 2, "--overwrite begins again, and --update goes on"),
    ],
)
def test_what_is_refused(command, url, lines, tmp_path, words, code, said):
    assert command("encode", url, lines, "-o", tmp_path / "rows", "--batch-size", 4).code == 0
    ran = command("encode", url, lines, "-o", tmp_path / "rows", *words)
    assert ran.code == code
    assert said in ran.err


def test_options_of_bulk_runs_are_for_their_targets(command, url, lines, tmp_path):
    ran = command("encode", url, lines, "-o", tmp_path / "rows.jsonl", "--normalize")
    assert (ran.code, "are for -o NAME.npy or a folder" in ran.err) == (2, True)


def test_several_runs_make_one_folder(command, url, lines, tmp_path):
    target = tmp_path / "rows"
    assert command("encode", url, lines, "-o", target, *SMALL, "--shard", "1/2").code == 0
    early = command("bulk", "merge", target)
    assert (early.code, early.err) == (3, f"casdk: {target}: the run of shard 0/2 has not begun\n")
    assert command("encode", url, lines, "-o", target, *SMALL, "--shard", "0/2").code == 0
    assert command("bulk", "status", target).out == (
        f"{target}, shard 0/2: finished, 32 rows, 0 failed, 2 shards\n"
        f"{target}, shard 1/2: finished, 18 rows, 0 failed, 2 shards\n"
    )
    assert command("bulk", "merge", target).out == f"{target}: 50 rows; all its shards fit together\n"
    assert "it was finished before" in command("encode", url, lines, "-o", target, *SMALL).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rows", "--shard", "2/2"), "--shard 2/2: write I/N, with I from 0 to N - 1, as 0/3"),
        (("rows", "--shard", "2"), "write I/N"),
        (("rows", "--shard", "0/2", "--overwrite"), "--overwrite takes from other runs with --shard what they made"),
        (("rows.npy", "--shard", "0/2"), "--shard is for a folder"),
        (("rows.jsonl", "--shard", "0/2"), "are for -o NAME.npy or a folder"),
    ],
)
def test_what_is_no_shard(command, url, lines, tmp_path, words, said):
    ran = command("encode", url, lines, "-o", tmp_path / words[0], *words[1:])
    assert (ran.code, said in ran.err) == (2, True), ran.err


def test_a_folder_is_brought_up_to_date(command, url, lines, tmp_path):
    target = tmp_path / "rows"
    assert command("encode", url, lines, "-o", target, *SMALL).code == 0
    with lines.open("a") as file:
        file.write("one more\n")
    refused = command("encode", url, lines, "-o", target, *SMALL)
    assert (refused.code, "has grown" in refused.err, "--update takes that into a folder" in refused.err) == (3, 1, 1)
    ran = command("encode", url, lines, "-o", target, *SMALL, "--update", "--json")
    assert (ran.code, ran.json["rows"], ran.json["encoded"], ran.json["dropped"]) == (0, 51, 1, 0)
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[2:]))
    ran = command("encode", url, lines, "-o", target, *SMALL, "--update")
    assert ran.out.startswith(f"{target}: 49 rows, 2 left out as their items are gone, in ")
    assert "it was finished before" in command("encode", url, lines, "-o", target, *SMALL, "--update").out


def test_what_failed_is_tried_again(command, lines, tmp_path):
    target = tmp_path / "rows.npy"
    with FaultServer(width=8, poison=["sentence 7"]) as server:
        words = ("encode", server.address("grpc"), lines, "-o", target, "--report", tmp_path / "report.html")
        assert command(*words).code == 1
        assert "RejectedError" in (tmp_path / "report.html").read_text()
        assert command(*words, "--retry-errors").code == 1
        server.executor.poison = None
        ran = command(*words, "--retry-errors")
    assert (ran.code, ran.out.startswith(f"{target}: 50 rows, 1 encoded again, in ")) == (0, True)
    assert (tmp_path / "rows.errors.jsonl").read_bytes() == b""


def test_files_are_told_by_their_bytes(command, url, images, tmp_path):
    target = tmp_path / "rows"
    photo = tmp_path / next(iter(images.values())).name
    photo.write_bytes(next(iter(images.values())).read_bytes())
    assert command("encode", url, photo, "-o", target, "--hash").code == 0
    photo.touch()
    assert "it was finished before" in command("encode", url, photo, "-o", target, "--hash").out


def test_there_may_be_no_run(command, tmp_path):
    ran = command("bulk", "status", tmp_path / "none")
    assert (ran.code, "there is no bulk run" in ran.err) == (3, True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_order(command, lines, tmp_path, number, code):
    """What is in flight is waited for: here it comes once the signal has."""
    gate, target = Gate(), tmp_path / "rows"
    held_back = lambda request: Hold(gate) if "sentence 20" in request.texts else None  # noqa: E731
    with FaultServer(held_back, width=8) as server, Client(server.address("grpc")) as client:
        words = ["encode", server.address("grpc"), lines, "-o", target, "--shard-rows", "100", "--batch-size", "4"]
        program = "import sys; from casdk.cli import bulk, main; bulk.STOP_SECONDS = 60; sys.exit(main())"
        process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True)
        with process:
            gate.wait_for(1)
            assert "a process writes it now" in command("bulk", "status", target).out
            process.send_signal(number)
            gate.open()
            _, said = process.communicate(timeout=100)
        assert process.returncode == code, said
        shown = shlex.join(map(str, words))
        assert f"and the same command goes on from there: casdk {shown}" in said
        manifest = json.loads((target / "_casdk.json").read_text())
        assert manifest["begun"]["rows"] >= 20
        rows = manifest["begun"]["rows"]
        state = f"{target}: not finished, {rows} rows, 0 failed, 0 shards; no process writes it now\n"
        assert command("bulk", "status", target).out == state
        result = client.encode_to(
            target, ((text, text) for text in lines.read_text().splitlines()), shard_rows=100, batch_size=4
        )
        assert (result.rows, result.encoded) == (50, 50 - manifest["begun"]["rows"])


def test_what_does_not_come_back_in_time_is_given_up(lines, tmp_path):
    """Within 5 seconds in fact; here the server never answers one request, and the time is made shorter."""
    gate, target = Gate(), tmp_path / "rows"
    held_back = lambda request: Hold(gate) if "sentence 20" in request.texts else None  # noqa: E731
    with FaultServer(held_back, width=8) as server:
        words = ["encode", server.address("grpc"), lines, "-o", target, "--shard-rows", "100", "--batch-size", "4"]
        program = "import sys; from casdk.cli import bulk, main; bulk.STOP_SECONDS = 0.2; sys.exit(main())"
        process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True)
        with process:
            gate.wait_for(1)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
        gate.open()
    assert process.returncode == 143, said
    assert f"the same command goes on from there: casdk {shlex.join(map(str, words))}" in said
    assert json.loads((target / "_casdk.json").read_text())["begun"]["rows"] in range(4, 21, 4)


def test_the_layout_of_clip_retrieval(command, url, lines, tmp_path):
    target = tmp_path / "rows"
    ran = command("encode", url, lines, "--text", "-o", target, "--layout", "clip-retrieval", *SMALL)
    assert (ran.code, ran.err) == (0, "")
    assert [np.load(path).shape[0] for path in sorted((target / "text_emb").iterdir())] == [16, 16, 16, 2]
    table = pyarrow.dataset.dataset(target / "metadata").to_table()
    assert table["caption"].to_pylist() == [f"sentence {number}" for number in range(50)]
    assert command("bulk", "status", target).out == f"{target}: finished, 50 rows, 0 failed, 4 shards\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("rows",), 2, "--layout clip-retrieval: name images alone, or sentences alone"),
        (("rows.npy", "--text"), 2, "--layout clip-retrieval is for a folder"),
        (("rows.jsonl", "--text"), 2, "are for -o NAME.npy or a folder"),
        (("rows", "--text", "--dtype", "float32"), 3, "--layout clip-retrieval has float16"),
    ],
)
def test_what_has_no_layout(command, url, lines, tmp_path, words, code, said):
    ran = command("encode", url, lines, "--layout", "clip-retrieval", "-o", tmp_path / words[0], *words[1:])
    assert (ran.code, said in ran.err) == (code, True), ran.err


@pytest.fixture
def pairs(images, tmp_path):
    """5 images with captions, in 2 tar files and in a Parquet file."""
    picture = images["png"].read_bytes()
    for number, rows in enumerate([range(3), range(3, 5)]):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for row in rows:
                for kind, data in {"png": picture, "txt": b"caption %d" % row}.items():
                    member = tarfile.TarInfo(f"{row}.{kind}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    table = {"id": [*range(5)], "image": [picture] * 5, "caption": [f"caption {row}" for row in range(5)]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "pairs.parquet")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ("*.tar", "--columns", "txt,png"),
        ("{0..1}.tar", "--columns", "png, txt"),
        ("pairs.parquet", "--columns", "image,caption", "--names", "id"),
    ],
)
def test_images_with_their_captions(command, url, pairs, tmp_path, expected, words):
    target = tmp_path / "rows"
    encode = ("encode", url, pairs / words[0], *words[1:], "-o", target, "--layout", "clip-retrieval", *SMALL)
    ran = command(*encode)
    assert (ran.code, ran.err) == (0, "")
    table = pyarrow.dataset.dataset(target / "metadata").to_table()
    captions = [f"caption {row}" for row in range(5)]
    assert table.to_pydict() == {"image_path": [str(row) for row in range(5)], "caption": captions}
    rows = np.load(target / "text_emb" / "text_emb_0.npy")
    np.testing.assert_allclose(rows, expected(captions), atol=1e-3)
    assert np.load(target / "img_emb" / "img_emb_0.npy").shape == rows.shape
    assert "it was finished before" in command(*encode).out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("0.tar", "--columns", "png,jpg", "-o", "rows"), 3, "both hold images"),
        (("0.tar", "--columns", "png,txt", "-o", "rows.npy"), 2, "a .npy has one for each row"),
        (("0.tar", "pairs.parquet", "--columns", "txt", "-o", "rows"), 2, "name files of one kind"),
        (("0.tar", "--columns", "txt", "--names", "id", "-o", "rows"), 2, "is called by its key"),
        (("0.tar", "--columns", "txt", "--text", "-o", "rows"), 2, "--columns says by itself what holds sentences"),
        (("0.tar", "--names", "id", "-o", "rows"), 2, "--names is for .parquet files with --columns"),
        (("0.tar", "--columns", "txt", "-o", "rows.jsonl"), 2, "are for -o NAME.npy or a folder"),
    ],
)
def test_what_is_no_column(command, url, pairs, monkeypatch, words, code, said):
    monkeypatch.chdir(pairs)
    ran = command("encode", url, *words)
    assert (ran.code, said in ran.err) == (code, True), ran.err
