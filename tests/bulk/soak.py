"""A bulk run of millions of rows that is killed again and again: ``make soak-bulk``.

python tests/bulk/soak.py ROWS [--kills N] [--matrix] [--folder FOLDER]

Runs over a hundredth, a tenth and all of the rows come first, undisturbed: they say how fast it is, whether time and
CPU grow with the rows alone, and how much memory is needed. Then the same run is made again into another target, and
killed (SIGKILL) again and again, from its first rows to its last: each kill waits until the target has a certain
number of rows, and then for a random part of the time that a shard takes. The files have to be the same, byte for byte,
and the server must not have been sent more items than the kills may cost. Each run is a process of its own, and so is
the server.

The server is `casdk.testing.FaultServer`, which counts the items that come, and sets the pace. In its place,
``CASDK_SOAK_SERVER`` may name a program that takes ``--port-grpc --port-http --port-ws --dim`` and prints ``ready`` on
standard error, as ``fastserver`` of the benches does. That one does not count, so each run counts what it reads beyond
the rows that are on disk: no less than what it sends.
"""

import argparse
import contextlib
import filecmp
import json
import math
import mmap
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from casdk import Client
from casdk.bulk.call import open_target
from casdk.testing import FaultServer

OPTIONS = {"batch_size": 256}
SHARD_ROWS = 100_000
WIDTH = 16
FAST_SERVER = os.environ.get("CASDK_SOAK_SERVER", "")
FAST_WIDTH = 128
"""Numbers in a row of that server's, which is asked for."""
LOOK_SECONDS = 0.02
"""How often a kill looks for the rows that it waits for."""
COUNTER_BYTES = 8
FAILED_EVERY = 1000
"""One item in so many is empty, and fails."""


def texts(rows):
    for number in range(rows):
        yield f"caption {number}" if number % FAILED_EVERY else ""


def counted(items, first, path):
    """Yield items; those from a place on are counted in a file, which outlives a kill."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), COUNTER_BYTES) as counter:
        count = int.from_bytes(counter[:], "little")
        for place, item in enumerate(items):
            if place >= first:
                count += 1
                counter[:] = count.to_bytes(COUNTER_BYTES, "little")
            yield item


def rows_in(target):
    """Return how many rows a target has, as its manifest says."""
    manifest = open_target(target, "float32").read_manifest()
    return 0 if manifest is None else manifest.rows


def run(url, rows, shard_rows, target, counter):
    """Encode, and print what it came to."""
    items = counted(texts(rows), rows_in(target), counter)
    with Client(url) as client:
        begun_at = time.process_time()
        result = client.encode_to(target, items, shard_rows=shard_rows, **OPTIONS)
        cpu_seconds = time.process_time() - begun_at
    lines = Path("/proc/self/status").read_text().splitlines()
    resident = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    made = {"rows": result.rows, "encoded": result.encoded, "seconds": result.seconds, "resident": resident}
    print(json.dumps({**made, "cpu_seconds": cpu_seconds}))


def serve():
    """Serve until standard input ends; a line there is answered with how many items have come."""
    with FaultServer(width=WIDTH, history=0) as server:
        print(server.address("grpc"), flush=True)
        for _ in sys.stdin:
            print(server.counters.documents, flush=True)


class CountingServer:
    """`FaultServer` in a process of its own.

    Attributes:
        url: Where it listens.
        asked_by_run: Items with which each run asks for the vector space, beside those of its input.
        counts_failed: Whether items are counted, too, that fail before they are sent.
    """

    asked_by_run = 2
    counts_failed = False

    def __init__(self, counter):
        self._process = subprocess.Popen(
            [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()

    def items_seen(self):
        """Return how many items have come."""
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)


class FastServer:
    """The program that ``CASDK_SOAK_SERVER`` names; what the runs have counted stands for what it has seen."""

    asked_by_run = 0
    counts_failed = True

    def __init__(self, counter):
        self._counter = counter
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            ports = [str(sock.getsockname()[1]) for sock in sockets]
        named = zip(("--port-grpc", "--port-http", "--port-ws"), ports, strict=True)
        options = [word for pair in named for word in pair]
        self._process = subprocess.Popen(
            [FAST_SERVER, *options, "--dim", str(FAST_WIDTH)], stderr=subprocess.PIPE, text=True
        )
        if "ready" not in self._process.stderr.readline():
            sys.exit(f"{FAST_SERVER} does not say that it is ready")
        self.url = f"grpc://127.0.0.1:{ports[0]}"

    def items_seen(self):
        """Return how many items the runs have read that they were going to send."""
        return int.from_bytes(self._counter.read_bytes(), "little")

    def close(self):
        self._process.terminate()
        self._process.communicate()


class Soak:
    """The server, and runs against it; each target has a folder of its own.

    Args:
        folder: Of all of them.
        target: The target's name in its folder.
        shard_rows: Rows in a shard.
    """

    def __init__(self, folder, target, shard_rows):
        self.folder = folder
        self.target = target
        self.shard_rows = shard_rows
        self._counter = folder / "counter"
        self._counter.write_bytes(bytes(COUNTER_BYTES))
        self.server = (FastServer if FAST_SERVER else CountingServer)(self._counter)

    def begin(self, rows, name):
        """Start a run, which goes on where one of that name was."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        arguments = [self.server.url, str(rows), str(self.shard_rows), str(home / self.target), str(self._counter)]
        return subprocess.Popen([sys.executable, __file__, "run", *arguments], stdout=subprocess.PIPE, text=True)

    def finish(self, rows, name):
        """Run it to its end; returns what it came to."""
        running = self.begin(rows, name)
        said, _ = running.communicate()
        if running.returncode:
            sys.exit(f"a run has failed with {running.returncode}")
        return json.loads(said)

    def kill(self, rows, name, least, seconds):
        """Run it until the target has so many rows, and kill it so many seconds later.

        Returns:
            The rows that the killed run has left; None for a run that has ended before.
        """
        target = str(self.folder / name / self.target)
        running = self.begin(rows, name)
        while running.poll() is None and rows_in(target) < least:
            time.sleep(LOOK_SECONDS)
        try:
            running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.communicate()
            return rows_in(target)
        return None


def slope_of(points):
    """Return the slope of the line through the logarithms of pairs."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    x, y = (sum(values) / len(values) for values in zip(*logs, strict=True))
    return sum((a - x) * (b - y) for a, b in logs) / sum((a - x) ** 2 for a, _ in logs)


def files_in(folder):
    """Return the files in a folder and below, by name."""
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def compare(one, other):
    """Return the bytes of two folders, if they hold the same."""
    ours, theirs = files_in(one), files_in(other)
    if ours.keys() != theirs.keys():
        sys.exit(f"{one} and {other} hold other files")
    differ = [name for name, path in ours.items() if not filecmp.cmp(path, theirs[name], shallow=False)]
    if differ:
        sys.exit(f"of the files of an undisturbed run, {len(differ)} have other bytes, as {differ[0]}")
    return sum(path.stat().st_size for path in ours.values())


def undisturbed(soak, rows):
    """Make the undisturbed runs; returns the seconds that all rows took."""
    done = []
    for part in (100, 10, 1):
        made = soak.finish(rows // part, f"undisturbed-{part}")
        done.append(made)
        speed, resident = made["rows"] / made["seconds"], made["resident"] / 2**20
        cpu = made["cpu_seconds"] / made["rows"] * 1e6
        print(
            f"{made['rows']:>12,} rows in {made['seconds']:8.1f} s: {speed:9,.0f} rows/s, "
            f"{made['cpu_seconds']:7.1f} s of CPU, {cpu:.2f} us a row, {resident:5.0f} MB resident",
            flush=True,
        )
    growth = (done[2]["resident"] - done[1]["resident"]) / 2**20
    slopes = {kind: slope_of([(made["rows"], made[kind]) for made in done]) for kind in ("seconds", "cpu_seconds")}
    print(
        f"log-log slope of the time {slopes['seconds']:.3f}, of the CPU {slopes['cpu_seconds']:.3f}; "
        f"from the second to the third {growth:+.0f} MB resident",
        flush=True,
    )
    return done[2]["seconds"]


def disturbed(soak, rows, kills, seconds):
    """Make the run that is killed, and hold it to the undisturbed one."""
    choose, server, target = random.Random(rows), soak.server, str(soak.folder / "killed" / soak.target)
    before, left = server.items_seen(), []
    shard_seconds = seconds * soak.shard_rows / rows
    for number in range(kills):
        # One in each of as many parts of the rows; at least a shard is made in between, so that each run has done some.
        least = max(int(rows * (number + choose.random()) / (kills + 1)), rows_in(target) + 1)
        left.append(soak.kill(rows, "killed", least, choose.random() * shard_seconds))
    last = soak.finish(rows, "killed")
    done = sum(rows is not None for rows in left)
    seen = server.items_seen() - before - (kills + 1) * server.asked_by_run
    needed = rows if server.counts_failed else rows - math.ceil(rows / FAILED_EVERY)
    size = compare(soak.folder / "undisturbed-1", soak.folder / "killed")
    where = " ".join(f"{rows:,}" for rows in left if rows is not None)
    print(f"killed {done} times of {kills}, with {where} rows; the last run had {last['encoded']:,} rows to encode")
    print(f"all {size / 2**20:,.0f} MB are those of the undisturbed run")
    what = "were read to be sent" if server.counts_failed else "came to the server"
    print(f"{seen:,} items {what}, {seen - needed:,} of them again; a kill may cost {soak.shard_rows:,}")
    if not needed <= seen <= needed + done * soak.shard_rows:
        sys.exit("those are other items than that")


def main():
    if sys.argv[1:2] == ["serve"]:
        return serve()
    if sys.argv[1:2] == ["run"]:
        url, rows, shard_rows, target, counter = sys.argv[2:]
        return run(url, int(rows), int(shard_rows), target, counter)
    arguments = argparse.ArgumentParser()
    arguments.add_argument("rows", type=int)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--matrix", action="store_true", help="into a .npy file, and not a folder of Parquet files")
    arguments.add_argument("--folder", type=Path, help="where the targets are written, and removed at the end")
    arguments = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="casdk-soak-", dir=arguments.folder))
    # So that there are shards to lose, also of a small number of rows.
    soak = Soak(folder, "rows.npy" if arguments.matrix else "rows", max(1000, min(SHARD_ROWS, arguments.rows // 50)))
    try:
        seconds = undisturbed(soak, arguments.rows)
        disturbed(soak, arguments.rows, arguments.kills, seconds)
    finally:
        soak.server.close()
        shutil.rmtree(folder)
    return None


if __name__ == "__main__":
    main()
