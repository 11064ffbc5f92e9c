"""A command that is stopped keeps every row that it had and says where, in every format and however it ends.

A matrix is written by a bulk run (`tests/bulk`, `tests/cli/test_bulk.py`): here it is held to what it says at its end.
"""

import json
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import numpy as np
import pyarrow.parquet
import pytest
from casdk.cli import main
from casdk.testing import Gate, Hold, Refuse, embed

FORMS = ("parquet", "jsonl")
WIDTH = 32
BATCH = 8
SIGNALS = {
    signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "terminated"),
    signal.SIGHUP: (129, "the terminal was closed"),
}
every_form = pytest.mark.parametrize("form", FORMS)


def text(number):
    return f"sentence {number}"


def rows_in(path):
    """Return the matrix that a kept file holds, after a look at the names of its rows."""
    if ".jsonl" in path.suffixes:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        names, rows = [line["item"] for line in lines], np.array([line["embedding"] for line in lines])
    else:
        table = pyarrow.parquet.read_table(path)
        names, rows = table["item"].to_pylist(), np.stack(table["embedding"].to_numpy())
    assert names == [text(number) for number in range(len(rows))]
    return rows


@pytest.fixture
def words(tmp_path):
    """A function from a server, a form and how many sentences to the words of an ``encode`` of them."""

    def words(server, form, count, *options, scheme="grpc"):
        (tmp_path / "lines.txt").write_text("".join(f"{text(number)}\n" for number in range(count)))
        place = [server.address(scheme), str(tmp_path / "lines.txt"), "-o", str(tmp_path / f"rows.{form}")]
        return ["encode", *place, "--batch-size", str(BATCH), *options]

    return words


@pytest.fixture
def kept(tmp_path, tally):
    """A function that looks at how an ``encode`` into a form ended and what it said; returns the rows that it kept."""

    def kept(form, ended, code, said):
        part = tmp_path / f"rows.{form}.part"
        assert ended[0] == code, ended
        assert ended[1] == ""
        assert said in ended[2]
        assert "Traceback" not in ended[2]
        assert not (tmp_path / f"rows.{form}").exists()
        rows = rows_in(part)
        assert ended[2].splitlines()[-1].endswith(f"the {len(rows)} rows before it are in {part}")
        np.testing.assert_allclose(rows, np.stack([embed(text(n), WIDTH) for n in range(len(rows))]), atol=1e-6)
        tally("stopped runs: rows kept", len(rows))
        return rows

    return kept


@pytest.fixture
def run(capfd):
    """A function that runs a command line in this process."""

    def run(words):
        capfd.readouterr()
        return (main(words), *capfd.readouterr())

    return run


def started(words, before="pass"):
    """Start a command line in a process of its own."""
    program = f"import sys; {before}; from casdk.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process):
    """Wait for a process; return its exit code and what it said."""
    with process:
        out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def hold_from(number, gate):
    """Hold every request from an item on: those before have been answered when it waits."""

    def script(request):
        word, _, rest = request.texts[0].partition(" ")
        # A bulk run asks for the vector space before its first sentence.
        return Hold(gate) if word == "sentence" and int(rest) >= number else None

    return script


def wait_for_rows(part, count, process):
    """Wait until a file that is being written holds so many rows: it can be read at any time."""
    while True:
        assert process.poll() is None
        try:
            if len(rows_in(part)) >= count:
                return
        except (AssertionError, OSError, EOFError, ValueError):
            pass  # before the first


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal(make_server, words, kept, number, tmp_path):
    server = make_server(hold_from(10 * BATCH, Gate()))
    process = started(words(server, "jsonl", 400))
    wait_for_rows(tmp_path / "rows.jsonl.part", 80, process)
    process.send_signal(number)
    assert len(kept("jsonl", ended(process), *SIGNALS[number])) == 80


def test_a_second_ctrl_c_loses_nothing(make_server, words, kept, tmp_path):
    """Of the form that takes most to be left in order."""
    server = make_server(hold_from(10 * BATCH, Gate()))
    process = started(words(server, "parquet", 400))
    server.wait_for(lambda seen: seen.replies == 10 and seen.running, 30)
    while not (tmp_path / "rows.parquet.part").exists():  # the first of the replies may still be on its way
        assert process.poll() is None
    for _ in range(20):
        process.send_signal(signal.SIGINT)
    kept("parquet", ended(process), 130, "interrupted")


def test_a_process_that_is_killed_leaves_what_it_wrote(make_server, words, tmp_path):
    server = make_server(hold_from(10 * BATCH, Gate()))
    process = started(words(server, "jsonl", 400))
    part = tmp_path / "rows.jsonl.part"
    wait_for_rows(part, 80, process)
    process.kill()
    assert ended(process) == (-signal.SIGKILL, "", "")
    assert len(rows_in(part)) == 80


def test_a_signal_that_is_ignored_stays_so(make_server, words, tmp_path):
    """``nohup`` has SIGHUP ignored."""
    gate = Gate()
    server = make_server(hold_from(10 * BATCH, gate))
    before = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    process = started(words(server, "jsonl", 400), before)
    server.wait_for(lambda seen: seen.running, 30)
    process.send_signal(signal.SIGHUP)
    gate.open()
    assert ended(process)[::2] == (0, "")
    assert len(rows_in(tmp_path / "rows.jsonl")) == 400
    assert not (tmp_path / "rows.jsonl.part").exists()


@every_form
def test_a_server_that_fails(make_server, words, kept, run, form):
    """What is in flight then is given up."""
    server = make_server(lambda request: Refuse.internal() if request.number >= 250 else None)
    assert 1000 <= len(kept(form, run(words(server, form, 4000)), 6, "casdk: ")) <= 2000


@pytest.mark.parametrize(("form", "scheme"), [("parquet", "grpc"), ("jsonl", "websocket")])
def test_a_server_that_goes_away(make_server, words, kept, form, scheme):
    server = make_server(hold_from(10 * BATCH, Gate()))
    process = started(words(server, form, 400, "--patience", "0", scheme=scheme))
    server.wait_for(lambda seen: seen.replies == 10 and seen.running, 30)
    server.stop()
    assert len(kept(form, ended(process), 4, "casdk doctor")) == 80


@every_form
def test_time_that_runs_out(make_server, words, kept, run, form):
    server = make_server(hold_from(15 * BATCH, Gate()))
    assert len(kept(form, run(words(server, form, 400, "--timeout", "1")), 5, "time")) == 120


@every_form
def test_an_input_that_breaks(make_server, words, kept, run, form, tmp_path):
    server = make_server()
    broken = words(server, form, 4000)
    with open(tmp_path / "lines.txt", "ab") as lines:
        lines.write(b"\xff\n")
    assert len(kept(form, run(broken), 3, "no UTF-8")) >= 2000


@contextmanager
def full_disk(size):
    """A disk that is full when a file has so many bytes, as far as this process can tell; Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "scheme", ["grpc", pytest.param("http", marks=pytest.mark.soak), pytest.param("websocket", marks=pytest.mark.soak)]
)
@every_form
def test_a_disk_that_is_full(make_server, words, kept, run, form, scheme, tmp_path):
    """The message names the file, and every row that fitted is there."""
    written = words(make_server(), form, 10_000, scheme=scheme)
    size = {"jsonl": 200_000, "parquet": 300_000}[form]
    with full_disk(size):
        ran = run(written)
    part = tmp_path / f"rows.{form}.part"
    rows = kept(form, ran, 3, f"casdk: {part}: File too large; ")
    assert len(rows) >= 200
    if form != "parquet":  # which keeps room for what comes after its rows
        assert part.stat().st_size + len(part.read_bytes()) // len(rows) > size


GOES_ON = "the same command goes on from there"


@pytest.fixture
def stopped_matrix(words, run, tmp_path):
    """A function that encodes 4000 sentences into a matrix, which stops; returns the code and what was said.

    The same command, at a server that answers, then makes the matrix whole.
    """

    def stopped_matrix(server, well, *options, before=None):
        command = words(server, "npy", 4000, *options)
        with before or nullcontext():
            code, out, said = run(command)
        assert out == ""
        assert GOES_ON in said
        assert run(words(well, "npy", 4000))[0] == 0
        expected = np.stack([embed(text(number), WIDTH) for number in range(4000)])
        np.testing.assert_allclose(np.load(tmp_path / "rows.npy"), expected, atol=1e-6)
        return code, said

    return stopped_matrix


def test_a_matrix_of_a_server_that_fails(make_server, stopped_matrix):
    server = make_server(lambda request: Refuse.internal() if request.number >= 250 else None)
    code, said = stopped_matrix(server, make_server())
    assert (code, "rows.npy holds " in said) == (6, True)


def test_a_matrix_whose_time_runs_out(make_server, stopped_matrix):
    server = make_server(hold_from(15 * BATCH, Gate()))
    code, said = stopped_matrix(server, make_server(), "--timeout", "1")
    assert (code, "rows.npy holds 120 rows" in said) == (5, True)


@pytest.mark.parametrize(
    ("size", "first"), [(100_000, "rows.npy"), pytest.param(50_000, "rows.names.jsonl", marks=pytest.mark.soak)]
)
def test_a_matrix_on_a_full_disk(make_server, stopped_matrix, tmp_path, size, first):
    """Whichever of its files has no room first."""
    server = make_server()
    code, said = stopped_matrix(server, server, before=full_disk(size))
    assert code == 3
    assert said.startswith(f"casdk: {tmp_path / first}.part: File too large; ")
