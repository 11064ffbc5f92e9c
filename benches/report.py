"""The one table, and the one picture: ratios, as the machine's own speed is nobody's claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from arena import OURS, Row

MACHINE = "2 noisy cores"
MIB = 1 << 20
IN_TABLE = ("original", "stub", "bare", "floor")
"""Who has a column for CPU and time."""


def lines_of(rows: Sequence[Row]) -> list[str]:
    """Return the table in Markdown."""
    lines = [
        "| what | scheme | original's CPU | original's time | stub's CPU | stub's time | over the bare transport "
        "| over the floor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "cpu" not in row.figures[OURS]:
            continue
        cells = [
            _cell(row, "original", lambda row: row.ratio("original", "cpu")),
            _cell(row, "original", lambda row: row.ratio("original", "wall")),
            _cell(row, "stub", lambda row: row.ratio("stub", "cpu")),
            _cell(row, "stub", lambda row: row.ratio("stub", "wall")),
            _cell(row, "bare", lambda row: _inverse(row.ratio("bare", "cpu"))),
            _cell(row, "floor", lambda row: _inverse(row.ratio("floor", "cpu"))),
        ]
        lines.append(f"| {row.claim} | {row.scheme} | {' | '.join(cells)} |")
    lines += ["", *_others(rows)]
    return lines


def _others(rows: Sequence[Row]) -> list[str]:
    """Return what has other figures than CPU and time an item."""
    lines = ["| what | scheme | figure | casdk against | ratio |", "|---|---|---|---|---|"]
    for row in rows:
        ours = row.figures[OURS]
        for rival in row.figures:
            if rival == OURS or (rival in IN_TABLE and "cpu" in ours):
                continue
            place = f"| {row.claim} | {row.scheme} |"
            if "beyond" in ours:
                own, other = (median(row.figures[who]["beyond"]) / MIB for who in (OURS, rival))
                lines.append(f"{place} peak memory beyond the result | {rival} | {own:.0f} MiB, not {other:.0f} |")
            else:
                lines += [f"{place} {name} | {rival} | {_times(row.ratio(rival, name))} |" for name in ours]
    failures = [f"- {row.claim}, {row.scheme}: {said}" for row in rows for said in row.failures.values()]
    return [*lines, *(["", "Could not do it:", "", *failures] if failures else [])]


def _cell(row: Row, rival: str, ratio: Callable[[Row], float | None]) -> str:
    return "fails" if rival in row.failures else _times(ratio(row))


def _inverse(ratio: float | None) -> float | None:
    return None if ratio is None else 1 / ratio


def _times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.0f}x" if ratio >= 20 else f"{ratio:.1f}x" if ratio >= 3 else f"{ratio:.2f}x"


COLOURS = {"floor": "#b8b8b8", OURS: "#1a7f5a", "stub": "#d9a441", "original": "#b5482f"}
NAMES = {"floor": "raw socket", OURS: "casdk", "stub": "hand-written stub", "original": "clip_client 0.8.3"}
BATCHES = (8, 32, 256)
PLAIN = ("grpc", "websocket", "http")


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Draw the CPU of a text as multiples of the floor's; returns whether the rows for it are there."""
    found = {(row.claim, row.scheme): row for row in rows}
    panels = [[found.get((f"texts, batch {batch}", scheme)) for batch in BATCHES] for scheme in PLAIN]
    if not all(row and "floor" in row.figures for panel in panels for row in panel):
        return False
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "casdk"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
    for scheme, panel, axis in zip(PLAIN, panels, axes, strict=True):
        shown = [name for name in COLOURS if all(row and name in row.figures for row in panel)]
        for place, name in enumerate(shown):
            heights = [_of_floor(row, name) for row in panel if row]
            at = [batch + (place - (len(shown) - 1) / 2) * 0.2 for batch in range(len(BATCHES))]
            bars = axis.bar(at, heights, 0.19, color=COLOURS[name], label=NAMES[name])
            axis.bar_label(bars, [_times(height)[:-1] for height in heights], fontsize=7, padding=1)
        axis.set(title=scheme, yscale="log", xticks=range(len(BATCHES)), xticklabels=[f"batch {b}" for b in BATCHES])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("client CPU per text, raw socket = 1")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _of_floor(row: Row, name: str) -> float:
    pairs = zip(row.figures[name]["cpu"], row.figures["floor"]["cpu"], strict=True)
    return median(ours / floor for ours, floor in pairs)
