"""Notes where the caller's code runs; shared by test_items_code.py and test_iterables.py."""

import asyncio
import contextvars
import threading

SPAN: contextvars.ContextVar[str] = contextvars.ContextVar("SPAN", default="none")


def place():
    """Where this runs: its thread, and the loop that runs in it."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    return threading.current_thread().name, loop, SPAN.get()


class Watch:
    """Remembers where it was called, and runs a function there."""

    def __init__(self, act=lambda: None):
        self.places = set()
        self.act = act

    def __call__(self):
        self.places.add(place())
        self.act()
