"""What crops gain through a slow link: `make bench-images` prints the tables of docs/images.md.

The link is a proxy in a process of its own that lets so many bytes a second pass on to the server, casdk's embedded one
with an ONNX model of 224 x 224 pixels. The client is another process, held to as many cores as the table says. All of
them run on this machine.

The last table is of the crossover: from the images a second that the client makes as exact crops through a link that is
never full, it follows how fast a link has to be to carry as many originals. Through a link of that speed the originals
are then sent, as a check. Where they are slower all the same, it is the server's decoder that they wait for.

`python benches/exact.py --photos FOLDER` compares ways of writing the crops of your own photographs.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from casdk import Client
from casdk._calls.options import MIN_FIDELITY, Images
from casdk._content.crops import WRITERS, DecodingMemory, Form, Written, crop_of_bytes, square_of
from casdk.server import Served, serve
from PIL import Image

SIDE: Final = 224
PICTURES: Final = {"91 kB": (640, 480, 26, 75), "1.5 MB": (2016, 1512, 26, 92), "8 MB": (4032, 3024, 40, 94)}
"""Width, height, noise and quality of each."""
COUNTS: Final = {"91 kB": (512, 512), "1.5 MB": (96, 192), "8 MB": (24, 128)}
"""How many of them are sent as they are, and as crops: the first 32 of these have no loss in any case."""
LINKS: Final = {"1 Gbit/s": 125_000_000, "100 Mbit/s": 12_500_000}
FREE_BYTES: Final = 10_000_000_000
"""A second, of a link that is never full."""
CORES: Final = tuple(cores for cores in (1, 2, 4, 16) if cores <= (os.cpu_count() or 1))
"""That the client may have."""
MORE_CORES: Final = (4, 16)
"""For which the crossover is computed, as for as many clients beside each other."""
WRITTEN: Final[tuple[Written, ...]] = ("exact", "jpeg95", "webp90")
CHUNK_BYTES: Final = 64 << 10


def picture(width: int, height: int, noise: int, quality: int) -> bytes:
    """Return a JPEG with the shades and the noise of a photo."""
    random = np.random.default_rng(7)
    small = Image.fromarray(random.integers(30, 220, (12, 16, 3), np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    pixels = np.clip(smooth + random.integers(-noise, noise + 1, (height, width, 1), np.int16), 0, 255)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def write_models(folder: Path) -> Path:
    """Write a model that looks at every pixel and costs next to nothing, and one of texts."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(5)
    image = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["N", 77])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])
    pool = helper.make_node("AveragePool", ["pixel_values"], ["p"], kernel_shape=[8, 8], strides=[8, 8])
    flat, product = helper.make_node("Flatten", ["p"], ["f"], axis=1), helper.make_node("MatMul", ["f", "W"], ["y"])
    cast = helper.make_node("Cast", ["input_ids"], ["f"], to=TensorProto.FLOAT)
    for name, nodes, given, width in (
        ("visual", [pool, flat, product], image, 3 * (SIDE // 8) ** 2),
        ("textual", [cast, product], ids, 77),
    ):
        weights = numpy_helper.from_array(random.standard_normal((width, 64)).astype(np.float32), "W")
        graph = helper.make_graph(nodes, name, [given], [output], [weights])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, str(folder / f"{name}.onnx"))
    return folder


# The link


async def _relay(port: int, bytes_per_second: int) -> None:
    """Pass on what comes, as fast as the link is; all connections share it."""
    free_at = 0.0

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, paced: bool) -> None:
        nonlocal free_at
        try:
            while data := await reader.read(CHUNK_BYTES):
                if paced:
                    now = time.monotonic()
                    free_at = max(free_at, now) + len(data) / bytes_per_second
                    if free_at - now > 0.002:  # a shorter sleep would take longer than it says
                        await asyncio.sleep(free_at - now)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, server_writer, paced=True), pump(server_reader, writer, paced=False))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def link(port: int, bytes_per_second: int) -> Iterator[str]:
    """Run the proxy; yield its address."""
    command = [sys.executable, __file__, "--relay", str(port), str(bytes_per_second)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"grpc://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


# What is measured


def server_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost_of_crop(data: bytes, written: Written) -> tuple[float, int]:
    """Return the CPU seconds of a crop that is written in a way, and its bytes."""
    forms, memory, turns = frozenset({Form("JPEG", "RGB")}), DecodingMemory(), []
    for _ in range(5):
        began = time.process_time()
        crop = crop_of_bytes(data, SIDE, forms, memory, written)
        turns.append(time.process_time() - began)
        assert crop is not None
        size = len(crop.data)
    return min(turns), size


class Rate(NamedTuple):
    """What a client has come to.

    Attributes:
        images: A second.
        sent: Bytes of each.
        ours: Milliseconds of the client's CPU for each.
        theirs: Of the server's.
    """

    images: float
    sent: float
    ours: float
    theirs: float


def be_client(address: str, pid: str, path: str, count: str, images: Images) -> Rate:
    """Encode a picture so many times."""
    paths = [path] * int(count)
    with Client(address, timeout=600) as client:
        client.encode(paths[:2], images=images)
        began, ours, theirs = time.monotonic(), time.process_time(), server_seconds(int(pid))
        result = client.encode(paths, errors="return", images=images)
        took = time.monotonic() - began
        ours, theirs = time.process_time() - ours, server_seconds(int(pid)) - theirs
    assert result.ok
    assert result.fidelity is None or result.fidelity >= MIN_FIDELITY
    assert result.sent_bytes is not None
    each = len(paths)
    return Rate(each / took, result.sent_bytes / each, ours * 1e3 / each, theirs * 1e3 / each)


def run_client(address: str, pid: int, path: Path, count: int, images: str, cores: int) -> Rate:
    """Have a process of its own do that, on so many cores."""
    command = [sys.executable, __file__, "--client", address, str(pid), str(path), str(count), images]
    held = {*sorted(os.sched_getaffinity(0))[:cores]}
    ran = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, held)
    )
    return Rate(*json.loads(ran.stdout))


def say(*columns: object) -> None:
    """Print a row of a table."""
    print("|", " | ".join(map(str, columns)), "|", flush=True)


def main() -> None:
    """Measure, and print the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {}
        say("picture", "as", "bytes", "CPU to make it")
        say(*["---"] * 4)
        for size, shape in PICTURES.items():
            data = picture(*shape)
            paths[size] = folder / f"{len(data)}.jpg"
            paths[size].write_bytes(data)
            say(size, "original", f"{len(data) / 1e3:.0f} kB", "")
            for written in WRITTEN:
                seconds, crop = cost_of_crop(data, written)
                say(size, written, f"{crop / 1e3:.0f} kB", f"{seconds * 1e3:.1f} ms")
        with serve(encoder=f"onnx:{write_models(folder)}", schemes=["grpc"]) as served:
            measure_links(served, paths)
            measure_crossover(served, paths)


def compare_writers(folder: str) -> None:
    """Print what the crops of a folder's photographs weigh, and what it takes to write and to read one, in each way."""
    squares = []
    for path in sorted(Path(folder).rglob("*.jpg")):
        if not path.is_symlink():
            with Image.open(path) as image:
                squares.append(square_of(image, SIDE))
    say("as", "bytes", "CPU to write", "CPU to read")
    say(*["---"] * 4)
    for name, options in {**WRITERS, "PNG": {"format": "PNG", "compress_level": 1}}.items():
        files = [io.BytesIO() for _ in squares]
        began = time.process_time()
        for square, file in zip(squares, files, strict=True):
            square.save(file, **options)
        written = time.process_time()
        for file in files:
            Image.open(file).convert("RGB").load()
        each = [(written - began) * 1e3 / len(files), (time.process_time() - written) * 1e3 / len(files)]
        weight = sum(len(file.getvalue()) for file in files) / len(files)
        say(name, f"{weight / 1e3:.0f} kB", *(f"{milliseconds:.1f} ms" for milliseconds in each))


def port_of(served: Served) -> int:
    """Return where the server listens."""
    return int(served.address("grpc").rpartition(":")[2])


def measure_links(served: Served, paths: dict[str, Path]) -> None:
    """Print what goes through each link."""
    print()
    say("link", "picture", "client's cores", "as", "images/s", "kB each", "client's CPU ms", "server's CPU ms")
    say(*["---"] * 8)
    for size, path in paths.items():
        for speed, rate in LINKS.items():
            with link(port_of(served), rate) as address:
                for cores in CORES:
                    for images in ("original", *WRITTEN[:2]):
                        count = COUNTS[size][images != "original"]
                        got = run_client(address, served.pid, path, count, images, cores)
                        figures = (f"{got.images:.1f}", f"{got.sent / 1e3:.0f}", f"{got.ours:.1f}", f"{got.theirs:.1f}")
                        say(speed, size, cores, images, *figures)


def measure_crossover(served: Served, paths: dict[str, Path]) -> None:
    """Print up to which speed of the link crops are quicker than originals, and what goes through it at that speed."""
    print()
    computed = [f"{cores} cores, computed" for cores in MORE_CORES]
    say("picture", "client's cores", "crops/s", "crossover", "originals/s through that", *computed)
    say(*["---"] * (5 + len(computed)))
    for size, path in paths.items():
        weight, (originals, crops) = path.stat().st_size, COUNTS[size]
        for cores in CORES:
            with link(port_of(served), FREE_BYTES) as address:
                made = run_client(address, served.pid, path, crops, "exact", cores).images
            with link(port_of(served), int(made * weight)) as address:
                sent = run_client(address, served.pid, path, originals, "original", cores).images
            # Two cores are also those of the server and of the link here, so only one of them tells of more.
            speeds = [f"{made * weight * 8 / 1e9 * more:.1f} Gbit/s" if cores == 1 else "" for more in MORE_CORES]
            say(size, cores, f"{made:.1f}", f"{made * weight * 8 / 1e9:.2f} Gbit/s", f"{sent:.1f}", *speeds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--relay", nargs=2, type=int)
    parser.add_argument("--client", nargs=5)
    parser.add_argument("--photos", metavar="FOLDER", help="only compare ways of writing the crops of photographs")
    told = parser.parse_args()
    if told.relay:
        asyncio.run(_relay(*told.relay))
    elif told.client:
        print(json.dumps(be_client(*told.client)))
    elif told.photos:
        compare_writers(told.photos)
    else:
        main()
