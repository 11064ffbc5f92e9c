"""What crops gain through a slow link: `python benches/exact.py` prints the tables of docs/images.md.

The link is a proxy in a process of its own that lets so many bytes a second pass on to the server, casdk's embedded one
with an ONNX model of 224 x 224 pixels. All of them run on this machine, and share its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from casdk import Client
from casdk._calls.options import MIN_FIDELITY
from casdk._content.crops import DecodingMemory, Form, Written, crop_of_bytes
from casdk.server import serve
from PIL import Image

SIDE: Final = 224
PICTURES: Final = {"91 kB": (640, 480, 26, 75), "1.5 MB": (2016, 1512, 26, 92), "8 MB": (4032, 3024, 40, 94)}
"""Width, height, noise and quality of each."""
COUNTS: Final = {"91 kB": (512, 512), "1.5 MB": (96, 192), "8 MB": (24, 128)}
"""How many of them are sent as they are, and as crops: the first 32 of these have no loss in any case."""
LINKS: Final = {"1 Gbit/s": 125_000_000, "100 Mbit/s": 12_500_000}
CORES: Final = (1, 4, 16)
WRITTEN: Final[tuple[Written, ...]] = ("exact", "jpeg95")
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


def run_through(address: str, pid: int, paths: list[str], **options: Any) -> tuple[float, float, float, float]:
    """Return images a second, bytes, and milliseconds of CPU of client and server per image."""
    with Client(address, timeout=600) as client:
        client.encode(paths[:2], **options)
        began, ours, theirs = time.monotonic(), time.process_time(), server_seconds(pid)
        result = client.encode(paths, errors="return", **options)
        took = time.monotonic() - began
        ours, theirs = time.process_time() - ours, server_seconds(pid) - theirs
    assert result.ok
    assert result.fidelity is None or result.fidelity >= MIN_FIDELITY
    assert result.sent_bytes is not None
    count = len(paths)
    return count / took, result.sent_bytes / count, ours * 1e3 / count, theirs * 1e3 / count


def main() -> None:
    """Measure, and print both tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs: dict[tuple[str, Written], tuple[int, float, int]] = {}
        with serve(encoder=f"onnx:{write_models(folder)}", schemes=["grpc"]) as served:
            print("| link | picture | images | images/s | kB each | client ms | server ms |")
            print("|---|---|---|---|---|---|---|")
            for size, shape in PICTURES.items():
                data = picture(*shape)
                path = folder / f"{len(data)}.jpg"
                path.write_bytes(data)
                costs |= {(size, written): (len(data), *cost_of_crop(data, written)) for written in WRITTEN}
                for speed, rate in LINKS.items():
                    with link(int(served.address("grpc").rpartition(":")[2]), rate) as address:
                        for images in ("original", *WRITTEN):
                            count = COUNTS[size][images != "original"]
                            got = run_through(address, served.pid, [str(path)] * count, images=images)
                            each, sent, ours, theirs = got
                            row = (
                                speed,
                                size,
                                images,
                                f"{each:.1f}",
                                f"{sent / 1e3:.0f}",
                                f"{ours:.1f}",
                                f"{theirs:.1f}",
                            )
                            print("|", " | ".join(row), "|", flush=True)
    limits = [f" {cores} cores pay below |" for cores in CORES]
    print("\n| picture | bytes | as | crop | CPU of a crop |", *limits, sep="")
    print("|---|---|---|---|---|" + "---|" * len(CORES))
    for (size, written), (original, seconds, crop) in costs.items():
        # A link carries rate / original pictures a second; that many crops take the cores so much time.
        limits = [f"{cores / seconds * original * 8 / 1e9:.2f} Gbit/s" for cores in CORES]
        row = (size, f"{original / 1e3:.0f} kB", written, f"{crop / 1e3:.0f} kB", f"{seconds * 1e3:.1f} ms", *limits)
        print("|", " | ".join(row), "|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--relay", nargs=2, type=int)
    relay = parser.parse_args().relay
    if relay:
        asyncio.run(_relay(*relay))
    else:
        main()
