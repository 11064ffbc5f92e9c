"""The two tables of `casdk.DocumentArray.summary`, by docarray's rules."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

if TYPE_CHECKING:
    from casdk.documents.model import Document, DocumentArray

__all__ = ["show"]

ORDER: Final = (
    "id",
    "parent_id",
    "granularity",
    "adjacency",
    "blob",
    "tensor",
    "mime_type",
    "text",
    "weight",
    "uri",
    "tags",
    "offset",
    "location",
    "embedding",
    "modality",
    "evaluations",
    "scores",
    "chunks",
    "matches",
)
"""Order of attributes in the tuples, as docarray has it."""


def show(documents: DocumentArray) -> None:
    """Print the tables to standard output."""
    kinds = Counter(_attributes(document) for document in documents)
    names = sorted({name for kind in kinds for name in kind})
    panels = [_panel(_overview(len(documents), kinds), "Documents Summary")]
    if names:
        panels.append(_panel(_details(documents, names), "Attributes Summary"))
    Console().print(*panels)


def _attributes(document: Document) -> tuple[str, ...]:
    return tuple(name for name in ORDER if _is_there(getattr(document, name)))


def _is_there(value: Any) -> bool:
    return isinstance(value, np.ndarray) or bool(value)


def _overview(length: int, kinds: Counter[tuple[str, ...]]) -> Table:
    table = Table(box=box.SIMPLE, highlight=True, show_header=False)
    table.add_row("Length", str(length))
    table.add_row("Homogenous Documents", str(len(kinds) == 1))
    nested = tuple(name for name in ("chunks", "matches") if any(name in kind for kind in kinds))
    if nested:
        table.add_row("Has nested Documents in", str(nested))
    if len(kinds) == 1:
        table.add_row("Common Attributes", str(next(iter(kinds))))
        return table
    for kind, count in kinds.most_common():
        having = "1 Document has" if count == 1 else f"{count} Documents have"
        table.add_row(f"{having} {_ATTRIBUTES.get(len(kind), 'attributes')}", str(kind))
    return table


_ATTRIBUTES: Final = {0: "no attribute", 1: "one attribute"}


def _details(documents: DocumentArray, names: list[str]) -> Table:
    table = Table(box=box.SIMPLE, highlight=True)
    for title in ("Attribute", "Data type", "#Unique values", "Has empty value"):
        table.add_column(title)
    for name in names:
        values = [getattr(document, name) for document in documents]
        types = tuple(sorted({type(value).__name__ for value in values}))
        table.add_row(name, str(types), str(_count_unique(values)), str(any(value is None for value in values)))
    return table


def _count_unique(values: list[Any]) -> int:
    try:
        return len(set(values))
    except TypeError:  # they cannot be hashed, so each counts as a different value
        return len(values)


def _panel(table: Table, title: str) -> Panel:
    return Panel(table, title=title, expand=False)
