"""The bar of ``show_progress=True`` (rich)."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["Progress"]

_lock = threading.Lock()
_bars: Bars | None = None
_shown = 0
"""Calls on the one display: a terminal has room for one, so concurrent calls are rows of it."""


class Progress:
    """One call's row: items done of all when known, items per second, bytes out and in, elapsed and remaining.

    Args:
        title: Shown before the bar.
        total: Items in all, if known.
    """

    def __init__(self, title: str, total: int | None) -> None:
        self._title = title
        self._total = total
        self._out = self._in = 0
        self._waits = False
        self._bars: Any = None
        self._row: TaskID | None = None

    def __enter__(self) -> Progress:
        global _bars, _shown
        with _lock:
            if _bars is None:
                _bars = _make_bars()
                _bars.start()
            _shown += 1
            self._bars = _bars
            self._row = self._bars.add_task(self._title, total=self._total, traffic=self._traffic())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _bars, _shown
        with _lock:
            if error is None and self._total is None:
                done = self._bars.tasks[self._bars.task_ids.index(self._row)].completed
                self._bars.update(self._row, total=done)
            self.wait(False)
            self._bars.stop_task(self._row)
            _shown -= 1
            if _shown == 0 and _bars is not None:
                _bars.stop()
                _bars = None

    def advance(self, items: int, sent: int, got: int) -> None:
        """Count one reply."""
        self._out += sent
        self._in += got
        self._bars.update(self._row, advance=items, traffic=self._traffic())

    def wait(self, waits: bool) -> None:
        """Say that the server is away and the call waits for it, or that it does no more."""
        self._waits = waits
        self._bars.update(self._row, traffic=self._traffic())

    def _traffic(self) -> str:
        from rich.filesize import decimal

        return "waiting for the server" if self._waits else f"out {decimal(self._out)} in {decimal(self._in)}"


def _make_bars() -> Bars:
    import rich
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bars,
    )
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("- items/s" if speed is None else f"{speed:,.0f} items/s", style="progress.data.speed")

    console = rich.get_console()
    if console.is_jupyter and find_spec("ipywidgets") is None:
        # There, rich would show a warning and no bar; as text it shows how it ended.
        console = Console(force_jupyter=False)
    return Bars(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        Rate(Column(no_wrap=True)),
        TextColumn("{task.fields[traffic]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
