"""The progress bar: what it shows of each call, and that it ends with the last one."""

import nbformat
import pytest
import rich
from bars import end_of_bar
from casdk._calls import progress as _progress
from casdk._calls.outcome import Sent
from casdk._calls.progress import Progress
from nbclient import NotebookClient


def draw():
    """Wait until all that was counted so far is drawn."""
    _progress._flush()


def test_a_row_counts_items_and_bytes(screen):
    with Progress("encode", 10) as progress:
        progress.advance(4, 1_000, 2_000)
        progress.advance(6, 1_000, 2_000)
    draw()
    shown = screen.getvalue()
    assert "encode" in shown
    assert "10/10" in shown
    assert "out 2.0 kB in 4.0 kB" in shown


def test_a_row_says_how_exact_crops_are(screen):
    sent = Sent()
    with Progress("encode", 10, sent) as progress:
        progress.advance(4, 1_000, 2_000)
        sent.fidelity = 0.99956
        progress.advance(6, 1_000, 2_000)
    draw()
    assert "in 4.0 kB cosine 0.9996" in screen.getvalue()


def test_eighty_columns_are_enough(screen):
    rich.get_console().width = 80
    with Progress("encode", 10_000) as progress:
        progress.advance(5_000, 400_000, 20_000_000)
        progress.advance(5_000, 400_000, 20_000_000)
    draw()
    assert "10000/10000" in screen.getvalue()
    assert "out 800.0 kB in 40.0 MB" in screen.getvalue()


def test_a_row_says_that_its_call_waits_for_the_server(screen):
    """In the place of the bytes, so that eighty columns are enough for that, too."""
    rich.get_console().width = 80
    with Progress("encode", 10_000) as progress:
        progress.advance(5_000, 400_000, 20_000_000)
        progress.wait(True)
        progress.advance(1_000, 80_000, 4_000_000)
        draw()
        waiting = screen.getvalue()
        progress.wait(False)
    draw()
    assert " 6000/10000" in waiting
    assert "waiting for the server" in waiting.splitlines()[-1]
    assert "waiting" not in screen.getvalue()[len(waiting) :]
    assert "out 480.0 kB in 24.0 MB" in screen.getvalue()


def test_an_unknown_total_is_filled_in_at_the_end(screen):
    with Progress("encode", None) as progress:
        progress.advance(3, 1, 1)
    draw()
    assert "3/3" in screen.getvalue()


def test_concurrent_calls_are_rows_of_one_display(screen):
    with Progress("first", 1000) as first, Progress("second", 1000):
        for _ in range(1000):
            first.advance(1, 1, 1)
        draw()
    draw()
    last = [line for line in screen.getvalue().splitlines() if "items/s" in line][-2:]
    assert ["first" in last[0], "1000/1000" in last[0]] == [True, True]
    assert ["second" in last[1], "0/1000" in last[1]] == [True, True]
    end_of_bar()


def test_a_display_ends_with_the_last_call(screen):
    with Progress("first", 1) as first:
        with Progress("second", 1) as second:
            second.advance(1, 1, 1)
        draw()
        first.advance(1, 1, 1)
    end_of_bar()
    assert screen.getvalue().count("\x1b[?25h") == 1
    shown = screen.getvalue()
    with Progress("third", 1):
        draw()
    draw()
    assert "first" not in screen.getvalue()[len(shown) :]


def test_a_call_shows_nothing_unless_asked(connect, screen, capfd):
    client = connect("grpc")
    client.encode(["a"] * 5)
    assert screen.getvalue() == ""
    client.encode(["a"] * 5, show_progress=True)
    end_of_bar()
    assert "5/5" in screen.getvalue()
    assert capfd.readouterr() == ("", "")


def test_items_that_are_not_sent_again_are_done(connect, screen):
    connect("grpc").encode(["a", "b"] * 50, show_progress=True, dedupe=True)
    end_of_bar()
    assert "100/100" in screen.getvalue()


IN_A_NOTEBOOK = """
from casdk import Client
with Client({address!r}) as client:
    {call}(["a", "b"] * 50, show_progress=True)
"""


@pytest.mark.parametrize("call", ["client.encode", pytest.param("await client.aencode", marks=pytest.mark.soak)])
def test_a_notebook_shows_the_bar_and_no_warning(server, call):
    cell = nbformat.v4.new_code_cell(IN_A_NOTEBOOK.format(address=server.address("grpc"), call=call))
    NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=60, kernel_name="python3").execute()
    shown = "".join(output.get("text", "") for output in cell.outputs)
    assert "100/100" in shown
    assert "Warning" not in str(cell.outputs)
