"""The one table, and the one picture: ratios, as the machine's own speed is nobody's claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from arena import OURS, Row

MACHINE = "2 noisy cores"
MIB = 1 << 20
IN_TABLE = ("original", "stub", "libraries", "baseten", "openai", "bare", "floor")
"""Who has a column."""
CLIENTS = ("libraries", "baseten", "openai")
"""What else one may use: their CPU has a column."""


def lines_of(rows: Sequence[Row]) -> list[str]:
    """Return the table in Markdown."""
    lines = [
        "| what | scheme | original's CPU | original's time | stub's CPU | stub's time | libraries' CPU "
        "| baseten's CPU | openai's CPU | over the bare transport | over the floor |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not any("cpu" in row.figures.get(rival, ()) for rival in IN_TABLE):
            continue
        cells = [
            _cell(row, "original", lambda row: row.ratio("original", "cpu")),
            _cell(row, "original", lambda row: row.ratio("original", "wall")),
            _cell(row, "stub", lambda row: row.ratio("stub", "cpu")),
            _cell(row, "stub", lambda row: row.ratio("stub", "wall")),
            *[_cell(row, rival, lambda row, rival=rival: row.ratio(rival, "cpu")) for rival in CLIENTS],
            _cell(row, "bare", lambda row: _inverse(row.ratio("bare", "cpu"))),
            _cell(row, "floor", lambda row: _inverse(row.ratio("floor", "cpu"))),
        ]
        lines.append(f"| {row.claim} | {row.scheme} | {' | '.join(cells)} |")
    return [*lines, "", *_others(rows), "", *_instructions(rows), "", *_calls(rows), "", *_aims(rows)]


def main_lines(rows: Sequence[Row]) -> list[str]:
    """Return the few rows for the first page, in Markdown."""
    found = {(row.claim, row.scheme): row for row in rows}
    lines = [
        f"| on {MACHINE}, casdk = 1 | {' | '.join(f'clip_client, {s}' for s in PLAIN)} | hand-written stub, grpc |",
        "|---|---|---|---|---|",
    ]
    for claim in MAIN:
        shown = [found.get((claim, scheme)) for scheme in PLAIN]
        cells = [_cell(row, "original", lambda row: row.ratio("original", "cpu")) if row else "" for row in shown]
        stub = _times(shown[0].ratio("stub", "cpu")) if shown[0] else ""
        lines.append(f"| {claim} | {' | '.join(cells)} | {stub} |")
    return lines


def _instructions(rows: Sequence[Row]) -> list[str]:
    lines = ["| Rust piece | instructions |", "|---|---|"]
    counted = [row for row in rows if "instructions" in row.figures[OURS]]
    return lines + [f"| {row.claim} | {row.figures[OURS]['instructions'][0]:,.0f} |" for row in counted]


def _calls(rows: Sequence[Row]) -> list[str]:
    """Return the instructions of whole calls, and those of another checkout, if one was measured beside."""
    figure = "instructions a call"
    lines = ["| what | scheme | instructions | of the other checkout | casdk takes |", "|---|---|---|---|---|"]
    for row in rows:
        if figure in row.figures[OURS]:
            ours = row.figures[OURS][figure][0]
            other = row.figures.get("other", {}).get(figure)
            beside = f"{other[0]:,.0f} | {ours / other[0]:.2f}" if other else " |"
            lines.append(f"| {row.claim} | {row.scheme} | {ours:,.0f} | {beside} |")
    return lines


def _aims(rows: Sequence[Row]) -> list[str]:
    """Return what was aimed at before anything was written, and whether this run got there."""
    found = {(row.claim, row.scheme): row for row in rows}
    lines = ["| aim | scheme | at least | this run | |", "|---|---|---|---|---|"]
    for claim, scheme, rival, figure, least in AIMS:
        row = found.get((claim, scheme))
        ratio = None if row is None else row.ratio(rival, figure)
        if ratio is not None:
            reached = "reached" if ratio >= least else "not reached"
            lines.append(f"| {claim}: {rival}'s {figure} | {scheme} | {_times(least)} | {_times(ratio)} | {reached} |")
    return lines


def _others(rows: Sequence[Row]) -> list[str]:
    """Return what has other figures than CPU and time an item."""
    lines = ["| what | scheme | figure | casdk against | ratio |", "|---|---|---|---|---|"]
    for row in rows:
        ours = row.figures[OURS]
        if "microseconds" in ours:
            lines.append(f"| {row.claim} | {row.scheme} | microseconds | | {ours['microseconds'][0]:.2f} |")
        if "requests" in ours:
            lines.append(f"| {row.claim} | {row.scheme} | calls a request | | {1 / median(ours['requests']):.1f} |")
        for rival in row.figures:
            if rival == OURS or (rival in IN_TABLE and "cpu" in ours) or "instructions a call" in ours:
                continue
            place = f"| {row.claim} | {row.scheme} |"
            if "beyond" in ours:
                own, other = (median(row.figures[who]["beyond"]) / MIB for who in (OURS, rival))
                lines.append(f"{place} peak memory beyond the result | {rival} | {own:.0f} MiB, not {other:.0f} |")
            else:
                shared = [name for name in ours if name in row.figures[rival]]
                lines += [f"{place} {name} | {rival} | {_times(row.ratio(rival, name))} |" for name in shared]
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


PLAIN = ("grpc", "websocket", "http")
BATCHES = (8, 32, 256)
MAIN = (*[f"texts, batch {batch}" for batch in (1, *BATCHES)], "Documents, batch 32", "images by path, batch 32")
MAIN += ("data URIs, batch 32", "rank, 100 matches each")


def _of_texts(scheme: str, rival: str, **least: float) -> list[tuple[str, str, str, str, float]]:
    """Return the aims of texts: by batch, how many times casdk's CPU the rival's should be."""
    return [(f"texts, batch {batch.lstrip('_')}", scheme, rival, "cpu", ratio) for batch, ratio in least.items()]


AIMS: list[tuple[str, str, str, str, float]] = [
    *_of_texts("grpc", "original", _1=18, _8=22, _32=25, _256=35),
    *_of_texts("http", "original", _1=12, _8=25, _32=35, _256=35),
    *_of_texts("http", "baseten", _8=1 / 0.6, _32=1 / 0.6, _256=1 / 0.6),
    *[aim for scheme in ("grpc", "websocket") for aim in _of_texts(scheme, "floor", _1=1 / 3, _8=1 / 3, _32=1 / 3)],
    *[aim for scheme in ("grpc", "websocket") for aim in _of_texts(scheme, "floor", _256=1 / 4)],
    *[("Documents, batch 32", scheme, "original", "cpu", 12) for scheme in PLAIN],
    ("one text", "grpc", "original", "p50", 12),
    ("one text", "http", "original", "p50", 12),
    ("one text", "websocket", "original", "p50", 8),
    ("one text, aencode", "grpc", "original", "p50", 7),
    ("one text", "grpc", "stub", "p50", 2),
    ("import", "", "original", "seconds", 8),
    *[("2,000 tasks of one text, coalesce=True", scheme, "not merged", "requests", 16) for scheme in PLAIN],
    ("one text, coalesce=True", "grpc", "not merged", "p50", 1 / 1.05),
    ("texts without repeats, dedupe=True", "grpc", "off", "cpu", 0.98),
    *[
        (f"300,000 texts into {target}, {batch}, the first call of a process", "grpc", "encode", figure, 1 / 1.15)
        for target in ("a .npy", "a folder of Parquet files")
        for batch in ("batch 32", "batch as found", "each with its own batch")
        for figure in ("cpu", "wall")
    ],
]
"""Claim, scheme, rival, figure, and how many times casdk's figure the rival's should be."""

COLOURS = {"floor": "#b8b8b8", OURS: "#1a7f5a", "baseten": "#6c8ebf", "stub": "#d9a441", "openai": "#8c6bb1"}
COLOURS["original"] = "#b5482f"
NAMES = {"floor": "raw socket", OURS: "casdk", "baseten": "baseten's client", "stub": "hand-written stub"}
NAMES |= {"openai": "openai-python", "original": "clip_client 0.8.3"}


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
            at = [batch + (place - (len(shown) - 1) / 2) * 0.17 for batch in range(len(BATCHES))]
            bars = axis.bar(at, heights, 0.16, color=COLOURS[name], label=NAMES[name])
            axis.bar_label(bars, [_times(height)[:-1] for height in heights], fontsize=6, padding=1)
        axis.set(title=scheme, yscale="log", xticks=range(len(BATCHES)), xticklabels=[f"batch {b}" for b in BATCHES])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("client CPU per text, raw socket = 1")
    named = {label: bars for axis in axes for bars, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=len(named), frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _of_floor(row: Row, name: str) -> float:
    pairs = zip(row.figures[name]["cpu"], row.figures["floor"]["cpu"], strict=True)
    return median(ours / floor for ours, floor in pairs)
