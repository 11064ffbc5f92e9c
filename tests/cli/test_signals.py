"""Signals end a command in order, in this process and when they are real."""

import os
import signal
import threading

import pytest
from casdk.cli.signals import Stopped, asking, stopping, undisturbed

NUMBERS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "the terminal was closed",
}


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of a program in a terminal, put back at the end."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def found():
    return {number: signal.getsignal(number) for number in NUMBERS}


@pytest.mark.parametrize("number", NUMBERS)
def test_each_signal_raises_what_it_means(number):
    before = found()
    with pytest.raises(Stopped, match=NUMBERS[number]) as stopped, stopping():
        os.kill(os.getpid(), number)
    assert stopped.value.number is number
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert found() == before


def test_whoever_handles_or_ignores_a_signal_goes_on_doing_so():
    seen = []
    signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    assert seen == [signal.SIGTERM]


@pytest.mark.parametrize("number", NUMBERS)
def test_nothing_disturbs_what_leaves_things_in_order(number):
    reached = []
    with stopping():
        before = found()
        with undisturbed():
            os.kill(os.getpid(), number)
            reached.append(number)
        assert found() == before
        with pytest.raises(Stopped):
            os.kill(os.getpid(), number)
    assert reached == [number]


@pytest.mark.parametrize(("seconds", "signals"), [(0.01, 1), (60, 2)])
def test_an_end_that_was_asked_for_comes_in_time_or_at_the_next_signal(seconds, signals):
    asked = []

    def send_and_wait():
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(60)

    with stopping(), asking(asked.append, seconds), pytest.raises(Stopped) as stopped:
        send_and_wait()
    assert [stopped.value] == asked


def test_a_thread_changes_nothing():
    seen = []

    def look():
        with stopping(), undisturbed():
            seen.append(found())

    before = found()
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
