"""The page about one bulk run: its throughput over time, and what failed. One file of HTML, which needs no network."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from html import escape
from pathlib import Path
from time import monotonic
from typing import Final

from casdk.bulk.disk import write_whole
from casdk.bulk.manifest import Manifest
from casdk.errors import ConfigError

__all__ = ["Report"]

MOST_BINS: Final = 240
"""Points of the curve at most; each stands for twice as long whenever there would be more."""
FIRST_BIN_SECONDS: Final = 0.25
LISTED_ERRORS: Final = 1000
"""Errors with a line of their own; of all there is the number of each kind, and the target has them one by one."""
WIDTH_PIXELS: Final = 960
HEIGHT_PIXELS: Final = 240
MARGIN_PIXELS: Final = 20
"""Above and below the curve, for what is written there."""
PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{target}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse }} td, th {{ text-align: left; padding: .2em 1em .2em 0; vertical-align: top }}
svg {{ width: 100%; background: #f6f6f6 }} polyline {{ fill: none; stroke: #07c; stroke-width: 2 }}
text {{ font-size: 12px; fill: #555 }}
</style>
<h1>{target}</h1>
<p>{outcome}</p>
<table>{facts}</table>
<h2>Items per second</h2>
{curve}
<h2>Errors</h2>
{errors}
</html>
"""


class Report:
    """The report of a run, written when it ends.

    Args:
        path: The page.
        target: The target's name.
        clock: Returns the time in seconds.

    Raises:
        ConfigError: There is no folder for it, or it is one.
    """

    def __init__(self, path: str | os.PathLike[str], target: str, clock: Callable[[], float] = monotonic) -> None:
        self.path: Path = Path(path).expanduser()
        if not self.path.parent.is_dir():
            raise ConfigError(f"report: there is no folder {self.path.parent}")
        if self.path.is_dir():
            raise ConfigError(f"report: {self.path} is a folder, and it has to be a file")
        self._target = target
        self._clock = clock
        self._begun = clock()
        self._begun_at = datetime.now().astimezone()
        self._bin_seconds = FIRST_BIN_SECONDS
        self._items = [0]
        self._kinds: Counter[str] = Counter()
        self._listed: list[tuple[str, str]] = []

    def add(self, items: int, errors: Iterable[tuple[str, str]]) -> None:
        """Count items that have come back.

        Args:
            items: The number of items.
            errors: Name and text of each failed item; the text begins with the kind of the error and a colon.
        """
        place = int((self._clock() - self._begun) / self._bin_seconds)
        while place >= MOST_BINS:
            self._items = [sum(self._items[start : start + 2]) for start in range(0, len(self._items), 2)]
            self._bin_seconds *= 2
            place //= 2
        self._items += [0] * (place + 1 - len(self._items))
        self._items[place] += items
        for name, said in errors:
            self._kinds[said.partition(":")[0]] += 1
            if len(self._listed) < LISTED_ERRORS:
                self._listed.append((name, said))

    def write_stop(self, manifest: Manifest, error: BaseException) -> None:
        """Write the page of a run that an error has stopped; if that fails, too, the error gets a note about it."""
        try:
            self.write(manifest, "; ".join([f"stopped: {error}", *getattr(error, "__notes__", ())]))
        except OSError as unwritten:
            error.add_note(f"no report was written: {unwritten}")

    def write(self, manifest: Manifest, outcome: str) -> None:
        """Write the page.

        Args:
            manifest: What the target holds.
            outcome: How the run has ended.

        Raises:
            OSError: It cannot be written, with its name.
        """
        seconds, items = self._clock() - self._begun, sum(self._items)
        facts = {
            "rows in the target": f"{manifest.rows:,}",
            "of them failed": f"{manifest.failed:,}",
            "items of this run": f"{items:,}",
            "time": f"{seconds:,.1f} s",
            "items per second": f"{items / seconds:,.1f}" if seconds else "",
            "items per request": f"{manifest.settings.batch_size}",
            "begun at": self._begun_at.isoformat(sep=" ", timespec="seconds"),
        }
        page = PAGE.format(
            target=escape(self._target),
            outcome=escape(outcome),
            facts=_rows_of(facts.items()),
            curve=self._curve(seconds),
            errors=self._errors(),
        )
        write_whole(self.path, page.encode("utf-8", "backslashreplace"))

    def _curve(self, seconds: float) -> str:
        """Return throughput over time as SVG."""
        last = len(self._items) - 1
        # The last point stands for less time than the others, as the run ended in it.
        spans = [self._bin_seconds] * last + [max(seconds - last * self._bin_seconds, self._bin_seconds / 10)]
        speeds = [items / span for items, span in zip(self._items, spans, strict=True)]
        most = max(max(speeds), 1e-9)
        bottom, tall = HEIGHT_PIXELS - MARGIN_PIXELS, HEIGHT_PIXELS - 2 * MARGIN_PIXELS
        points = " ".join(
            f"{WIDTH_PIXELS * (place + 0.5) / len(speeds):.1f},{bottom - tall * speed / most:.1f}"
            for place, speed in enumerate(speeds)
        )
        return (
            f'<svg viewBox="0 0 {WIDTH_PIXELS} {HEIGHT_PIXELS}" role="img"><polyline points="{points}"/>'
            f'<text x="4" y="14">{most:,.1f}/s</text><text x="4" y="{HEIGHT_PIXELS - 4}">0 s</text>'
            f'<text x="{WIDTH_PIXELS - 4}" y="{HEIGHT_PIXELS - 4}" text-anchor="end">{seconds:,.1f} s</text></svg>'
        )

    def _errors(self) -> str:
        if not self._kinds:
            return "<p>None in this run.</p>"
        kinds = _rows_of((kind, f"{count:,}") for kind, count in self._kinds.most_common())
        listed = _rows_of(self._listed)
        more = self._kinds.total() - len(self._listed)
        rest = f"<p>and {more:,} more, which the target names.</p>" if more else ""
        return f"<table>{kinds}</table>\n<h3>One by one</h3>\n<table>{listed}</table>{rest}"


def _rows_of(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(said)}</td></tr>" for name, said in pairs)
