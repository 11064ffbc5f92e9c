"""casdk's bulk run into clip-retrieval's layout, its server replaced by known rows: ``bulk_writer.py COUNT FOLDER``."""

import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from casdk import Image, Text, bulk
from casdk.bulk.call import make_run
from casdk.models import EncodeResult
from pairs import BATCH, TABLE, embeddings, measured, pairs

COUNT, FOLDER = int(sys.argv[1]), sys.argv[2]


class Client:
    """What a run asks of a client; rows come as a server sends them, an image and its caption next to each other."""

    def __init__(self) -> None:
        self._rows = np.repeat(embeddings(), 2, axis=0)
        self._start = 0

    def space(self, model_name: str | None, **options: Any) -> None:
        return None

    def stream(self, items: Iterator[Any], **options: Any) -> Iterator[EncodeResult]:
        start = 0
        while taken := list(islice(items, options["batch_size"])):
            rows = self._rows[self._start : self._start + len(taken)]
            yield EncodeResult(embeddings=rows, start=start)
            start += len(taken)
            self._start = (self._start + len(taken)) % (2 * TABLE)


def entries() -> Iterator[tuple[str, Any, str]]:
    for name, caption in pairs(COUNT):
        yield name, (Image(b"image"), Text(caption)), ""


content = bulk.Named(entries, COUNT, ("image", "text"))
run = make_run(Client(), FOLDER, content, {"layout": "clip-retrieval", "batch_size": BATCH})
measured(lambda: run.run(), FOLDER)
