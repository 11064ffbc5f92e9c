"""Waits for the end of a progress bar, which a thread of its own draws; shared by the tests that read a bar."""

import threading


def end_of_bar():
    """Wait until all is drawn, and the thread that draws has ended."""
    for thread in threading.enumerate():
        if thread.name == "casdk-bar":
            thread.join(30)
            assert not thread.is_alive()
