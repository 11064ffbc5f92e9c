"""Images with captions, from tar files to a search: shards like LAION's, clip-retrieval's layout, an index of usearch.

python examples/caption_search.py FOLDER QUERY [--server grpc://host:port]

QUERY is a sentence, compared with the captions, or the path of a picture, compared with the pictures. FOLDER gets
shards/, drawn here, and embeddings/, which `clip-retrieval index` and clip-back read as well. If you kill it, the same
command continues where it stopped. Needs pip install "casdk[arrow]" pillow usearch
"""

import argparse
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
from casdk import Client, bulk
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from usearch.index import Index

COLOURS = ("crimson", "navy", "gold", "teal", "orchid", "olive", "salmon", "indigo", "khaki", "maroon")
THINGS = ("rose", "wave", "lamp", "leaf", "door", "kite")
PER_SHARD = 20


def main() -> None:
    """Make the shards, encode them, and print the rows nearest to the query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("query", help="a sentence, or the path of a picture")
    parser.add_argument("--server", default=os.environ.get("CLIP_SERVER", "grpc://127.0.0.1:51000"))
    parser.add_argument("--top", type=int, default=3)
    asked = parser.parse_args()
    shards, embeddings = asked.folder / "shards", asked.folder / "embeddings"
    if not shards.exists():
        draw(shards)
    with Client(asked.server) as client:
        pairs = bulk.tars(shards / "*.tar", columns=("jpg", "txt"))
        result = client.encode_to(embeddings, pairs, layout="clip-retrieval", shard_rows=PER_SHARD)
        print(f"pairs: {result.rows}, of them encoded now: {result.encoded}")
        [query] = client.encode([str(asked.query)])
    matrix = "img_emb" if Path(asked.query).exists() else "text_emb"
    rows, found = read(embeddings, matrix)
    index = Index(ndim=rows.shape[1], metric="cos", dtype="f32")
    index.add(np.arange(len(rows)), rows)
    for match in index.search(query, asked.top):
        row = found[match.key]
        print(f"{1 - match.distance:+.3f}  {row['image_path']}  {row['caption']}")


def draw(folder: Path) -> None:
    """Write tar files of pictures with captions, as img2dataset does: ``00001/000010023.jpg`` and ``.txt``."""
    folder.mkdir(parents=True)
    pairs = [(colour, thing) for colour in COLOURS for thing in THINGS]
    for shard, start in enumerate(range(0, len(pairs), PER_SHARD)):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as archive:
            for number, (colour, thing) in enumerate(pairs[start : start + PER_SHARD]):
                picture, edge = Image.new("RGB", (64, 64), "white"), 10 * THINGS.index(thing)
                ImageDraw.Draw(picture).rectangle((edge, 8, 64, 56), fill=colour)
                written = io.BytesIO()
                picture.save(written, "JPEG")
                for suffix, data in (("jpg", written.getvalue()), ("txt", f"a {colour} {thing}".encode())):
                    member = tarfile.TarInfo(f"{shard:05}{number:04}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def read(folder: Path, matrix: str) -> tuple[NDArray[np.float32], list[dict[str, str]]]:
    """Return a matrix ``[N, D]`` and the names of its rows, both in the order of the files' names."""
    rows = np.concatenate([np.load(path) for path in sorted((folder / matrix).glob("*.npy"))])
    files = sorted((folder / "metadata").glob("*.parquet"))
    return rows.astype(np.float32), [row for path in files for row in pyarrow.parquet.read_table(path).to_pylist()]


if __name__ == "__main__":
    main()
