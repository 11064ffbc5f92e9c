"""Search a folder of pictures with words, or with another picture.

python examples/image_search.py FOLDER QUERY [--server grpc://host:port] [--top 5]      needs pip install casdk

The embeddings are stored in FOLDER/.embeddings.npz; the next search encodes only new and changed pictures.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from casdk import Client
from numpy.typing import NDArray

SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"}
EMBEDDINGS_FILE = ".embeddings.npz"


def main() -> None:
    """Bring the embeddings up to date, then print the pictures nearest to the query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("query", help="a sentence, or the path of a picture")
    parser.add_argument("--server", default=os.environ.get("CLIP_SERVER", "grpc://127.0.0.1:51000"))
    parser.add_argument("--top", type=int, default=5)
    asked = parser.parse_args()
    with Client(asked.server) as client:
        names, rows = embed(client, asked.server, asked.folder)
        if not names:
            raise SystemExit(f"{asked.folder} holds no pictures")
        [query] = client.encode([asked.query])
    likeness = rows @ query / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))
    for place in np.argsort(-likeness)[: asked.top]:
        print(f"{likeness[place]:+.3f}  {names[place]}")


def embed(client: Client, server: str, folder: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Return the names of the pictures in a folder and below, and their rows ``[N, D]``."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    stamps = {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}
    known = load(folder / EMBEDDINGS_FILE, server)
    fresh = [name for name, stamp in stamps.items() if known.get(name, (None, None))[0] != stamp]
    result = client.encode([folder / name for name in fresh], errors="return", show_progress=len(fresh) > 100)
    for error in result.errors:
        print(f"left out {fresh[error.index]}: {error.reason}")
    for name, row in zip(fresh, result.embeddings, strict=True):
        known[name] = (stamps[name], row)
    stored = {name: known[name] for name in stamps if np.isfinite(known[name][1]).all()}
    print(f"pictures: {len(stored)}, of them new: {len(fresh) - len(result.errors)}")
    if not stored:
        return [], np.zeros((0, 0), np.float32)
    rows = np.stack([row for _, row in stored.values()])
    np.savez(
        folder / EMBEDDINGS_FILE,
        server=server,
        names=list(stored),
        stamps=[stamp for stamp, _ in stored.values()],
        rows=rows,
    )
    return list(stored), rows


def load(path: Path, server: str) -> dict[str, tuple[int, NDArray[np.float32]]]:
    """Return the time and the row ``[D]`` of each picture by its name; nothing if another server made the rows."""
    if not path.exists():
        return {}
    with np.load(path) as stored:
        if stored["server"] != server:
            return {}
        return {
            str(name): (int(stamp), row)
            for name, stamp, row in zip(stored["names"], stored["stamps"], stored["rows"], strict=True)
        }


if __name__ == "__main__":
    main()
