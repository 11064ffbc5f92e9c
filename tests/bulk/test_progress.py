"""The bar of a bulk run moves from the first rows on, and says how many failed."""

from io import StringIO

import pytest
import rich
from casdk import ServerStatus
from casdk.bulk import progress
from casdk.bulk.progress import Bar


def servers(*states):
    def servers():
        return [
            ServerStatus(address="grpc://127.0.0.1:1", state=state, last_error=None, share=1 / len(states))
            for state in states
        ]

    return servers


@pytest.fixture
def terminal():
    drawn = StringIO()
    rich.reconfigure(file=drawn, force_terminal=True, width=120)
    yield drawn
    rich.reconfigure()


def test_it_shows_rows_and_failures(terminal, monkeypatch):
    with Bar("rows.npy", 10, servers("ready"), shown=True) as bar:
        bar.start(2, 1)
        bar.advance(2, 0, 500_000, 0.99961)
        bar.advance(1, 1, 2_000_000, 0.9998)
        assert bar.state.endswith("2.5 MB sent cosine 0.9996 server ready 2 failed")
        monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
        assert bar.state == "waiting for the server for 0 s 2 failed"
    drawn = terminal.getvalue()
    assert "rows.npy" in drawn
    assert "5/10" in drawn


def test_none_is_drawn_if_none_is_wanted(terminal):
    with Bar("rows.npy", None, servers("ready"), shown=False) as bar:
        bar.start(0, 0)
        bar.advance(3, 0)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["ready"], "server ready"),
        (["away"], "server away"),
        (["ready", "away", "away"], "2 of 3 servers away"),
        (["ready", "returning", "draining"], "server ready"),
    ],
)
def test_it_says_which_servers_are_away(states, said, monkeypatch):
    bar = Bar("rows.npy", 10, servers(*states), shown=False)
    bar.advance(1, 1)
    assert bar.state == f"{said} 1 failed"
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    waiting = "waiting for the server for 0 s"
    assert bar.state == (f"{waiting} {said} 1 failed" if "away" in states else f"{waiting} 1 failed")
