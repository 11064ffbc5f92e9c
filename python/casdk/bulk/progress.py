"""The bar of a bulk run (rich): rows per second, bytes sent, the server's state, errors, and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from rich.progress import Progress

    from casdk.servers import ServerStatus

__all__ = ["Bar"]

QUIET_SECONDS: Final = 5.0
"""When no row has come for so long, the bar shows that the run is waiting for the server."""
SPEED_SECONDS: Final = 10.0
"""The speed is the mean over so much time."""


class Bar:
    """A line that moves as rows come; its own thread draws it.

    Args:
        target: The path of the target, whose last part is shown: a whole path would leave no room for the count.
        total: Rows in all, if known.
        servers: Returns the current state of each server.
        shown: Whether there is a bar at all.
    """

    def __init__(
        self, target: str, total: int | None, servers: Callable[[], Sequence[ServerStatus]], *, shown: bool
    ) -> None:
        self._title = Path(target).name
        self._total = total
        self._servers = servers
        self._shown = shown
        self._failed = 0
        self._sent_bytes = 0
        self._fidelity: float | None = None
        self._advanced_at = monotonic()
        self._progress: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._shown:
            from rich import get_console, progress

            self._progress = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                # It is asked for its text each time that the line is drawn, also while no row comes.
                progress.TextColumn("{task.fields[bar].state}", markup=False),
                progress.TimeRemainingColumn(),
                console=get_console(),
                speed_estimate_period=SPEED_SECONDS,
            )
            self._task = self._progress.add_task(self._title, total=self._total, bar=self)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def start(self, rows: int, failed: int, fidelity: float | None = None) -> None:
        """Set the bar to the rows that the target has already."""
        self._failed = failed
        self._fidelity = fidelity
        self._advanced_at = monotonic()
        if self._progress is not None:
            self._progress.reset(self._task, completed=rows, total=self._total)

    def advance(self, rows: int, failed: int, sent_bytes: int = 0, fidelity: float | None = None) -> None:
        """Count rows that have come, the bytes of their requests, and the cosine that was measured."""
        self._failed += failed
        if fidelity is not None:
            self._fidelity = fidelity if self._fidelity is None else min(self._fidelity, fidelity)
        self._sent_bytes += sent_bytes
        self._advanced_at = monotonic()
        if self._progress is not None:
            self._progress.advance(self._task, rows)

    @property
    def state(self) -> str:
        """The text behind the number of rows."""
        failed = f"{self._failed} failed" if self._failed else ""
        quiet = monotonic() - self._advanced_at
        if quiet >= QUIET_SECONDS:
            said = [f"waiting for the server for {quiet:.0f} s", self._away, failed]
        else:
            speed = None if self._progress is None else self._progress.tasks[0].speed
            said = [f"{speed:.0f}/s" if speed else "", self._sent, self._cosine, self._away or "server ready", failed]
        return " ".join(filter(None, said))

    @property
    def _away(self) -> str:
        states = [server.state for server in self._servers()]
        away = states.count("away")
        if not away:
            return ""
        return "server away" if len(states) == 1 else f"{away} of {len(states)} servers away"

    @property
    def _sent(self) -> str:
        if not self._sent_bytes:
            return ""
        from rich.filesize import decimal

        return f"{decimal(self._sent_bytes)} sent"

    @property
    def _cosine(self) -> str:
        return "" if self._fidelity is None else f"cosine {self._fidelity:.4f}"
