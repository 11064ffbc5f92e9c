"""clip-retrieval's own loop and writer, its model replaced by known rows: ``clip_retrieval_writer.py COUNT FOLDER``.

Its files are loaded one by one, since the package imports a web server and torch at its top.
"""

import importlib.util
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas  # noqa: F401 - its writer imports both as it writes, which is not measured
import pyarrow.parquet  # noqa: F401
from pairs import BATCH, TABLE, embeddings, measured, pairs

COUNT, FOLDER = int(sys.argv[1]), sys.argv[2]


def part_of(name: str) -> ModuleType:
    """Return a module of its inference."""
    package = importlib.util.find_spec("clip_retrieval")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "clip_inference" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def batches() -> Iterator[dict[str, Any]]:
    """Yield batches as its reader does; a tensor is asked for its length alone."""
    remaining = pairs(COUNT)
    while taken := list(islice(remaining, BATCH)):
        names, captions = zip(*taken, strict=True)
        yield {"image_filename": list(names), "text": list(captions), "image_tensor": np.empty((len(taken), 0))}


class Mapper:
    """Returns rows as its own mapper does: of length 1, float16."""

    def __init__(self) -> None:
        rows = embeddings()
        self._rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
        self._start = 0

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = self._rows[self._start : self._start + len(batch["text"])]
        self._start = (self._start + len(rows)) % TABLE
        return {**batch, "image_embs": rows, "text_embs": rows.copy(), "metadata": None}


class Logger:
    """Takes what its own logger takes."""

    def start(self) -> None: ...

    def __call__(self, figures: dict[str, Any]) -> None: ...

    def end(self) -> None: ...


runner, writer = part_of("runner"), part_of("writer")
mapper = Mapper()
run = runner.Runner(
    lambda sampler: batches(),
    lambda: mapper,
    lambda number: writer.NumpyWriter(number, FOLDER, True, True, False, 1),
    lambda number: Logger(),
    1,
)
measured(lambda: run(0), FOLDER)
