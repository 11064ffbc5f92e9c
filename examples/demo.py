"""One mixed list over all six schemes: `make demo`.

Starts casdk's embedded server and a small web server on loopback, makes a picture, and encodes a sentence, an image
path, an http URL, a data URI, a Document with a blob and a Document with a tensor over every scheme.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import Any

import numpy as np
from casdk import TLS, Client, Document
from casdk.server import Served, serve
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

SCHEMES = ("grpc", "grpcs", "http", "https", "websocket", "websockets")
NAMES = ("a sentence", "an image's path", "an http URL", "a data URI", "a Document with a blob", "one with a tensor")


def main() -> None:
    """Encode and compare."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder, serve() as server, share(folder) as site:
        console.print(f"The embedded server runs as process {server.pid}; a web server shares a picture at {site}.")
        content = mixture(Path(folder) / "sunset.png", site)
        rows, seconds = {}, {}
        for scheme in SCHEMES:
            rows[scheme], seconds[scheme] = encode(server, scheme, content)
    console.print(shapes(rows["grpc"]), comparison(rows, seconds))
    if any(difference(rows[scheme], rows["grpc"]) > 1e-6 for scheme in SCHEMES):
        raise SystemExit("the schemes do not agree")
    console.print("All six schemes agree.")


def encode(server: Served, scheme: str, content: list[Any]) -> tuple[NDArray[np.float32], float]:
    """Return the embeddings, and the seconds of the second call: the first one connects."""
    tls = TLS(ca=server.ca) if scheme.endswith("s") else None
    with Client(server.address(scheme), tls=tls, timeout=60) as client:
        client.encode(content)
        began = perf_counter()
        rows = client.encode(content)
        return rows, perf_counter() - began


def mixture(picture: Path, site: str) -> list[Any]:
    """Make a picture, and return it in every form beside a sentence."""
    down, across = np.mgrid[0:240, 0:320]
    pixels = np.stack([255 - down // 2, 120 + across // 4, 40 + (down * across) % 97], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(picture)
    data = picture.read_bytes()
    return [
        "a sunset over the sea",
        str(picture),
        f"{site}/{picture.name}",
        f"data:image/png;base64,{base64.b64encode(data).decode()}",
        Document(blob=data),
        Document(tensor=pixels),
    ]


def shapes(rows: NDArray[np.float32]) -> Table:
    """Return a table with the row of each item."""
    table = Table(title=f"encode() returned {rows.dtype} {list(rows.shape)}", title_justify="left")
    for heading in ("item", "shape", "first numbers", "cosine to the path's"):
        table.add_column(heading)
    for name, row in zip(NAMES, rows, strict=True):
        cosine = row @ rows[1] / (np.linalg.norm(row) * np.linalg.norm(rows[1]))
        table.add_row(name, str(list(row.shape)), " ".join(f"{number:+.4f}" for number in row[:2]), f"{cosine:+.4f}")
    return table


def comparison(rows: dict[str, NDArray[np.float32]], seconds: dict[str, float]) -> Table:
    """Return how far each scheme is from grpc, and how long it took."""
    table = Table(title="the same list over six schemes", title_justify="left")
    for heading in ("scheme", "shape", "largest difference to grpc", "time"):
        table.add_column(heading)
    for scheme, found in rows.items():
        far = f"{difference(found, rows['grpc']):.1e}"
        table.add_row(scheme, str(list(found.shape)), far, f"{seconds[scheme] * 1e3:.1f} ms")
    return table


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the largest absolute difference of any number."""
    return float(np.abs(one - other).max())


@contextmanager
def share(folder: str) -> Iterator[str]:
    """Serve a folder over http on loopback; yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Drop the line."""


if __name__ == "__main__":
    main()
