"""A bulk run of millions of rows that is killed again and again: ``make soak-bulk``.

python tests/bulk/soak.py ROWS [--kills N] [--folder FOLDER]

Runs over a hundredth, a tenth and all of the rows come first, undisturbed: they say how fast it is, whether the time
grows with the rows alone, and how much memory is needed. Then the same run is made again into another folder, and
killed (SIGKILL) at random moments. Its files have to be the same, byte for byte, and the server must not have been sent
more items than the kills may cost. Each run is a process of its own, and so is the server.
"""

import argparse
import filecmp
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from casdk import Client
from casdk.testing import FaultServer

OPTIONS = {"batch_size": 256}
SHARD_ROWS = 100_000
WIDTH = 16
FAILED_EVERY = 1000
"""One item in so many is empty, and fails."""
ASKED_FOR_SPACE = 2
"""Items with which each run asks the server for its vector space."""


def texts(rows):
    for number in range(rows):
        yield f"caption {number}" if number % FAILED_EVERY else ""


def run(url, rows, shard_rows, target):
    """Encode, and print what it came to."""
    with Client(url) as client:
        result = client.encode_to(target, texts(rows), shard_rows=shard_rows, **OPTIONS)
    lines = Path("/proc/self/status").read_text().splitlines()
    resident = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    print(json.dumps({"rows": result.rows, "encoded": result.encoded, "seconds": result.seconds, "resident": resident}))


def serve():
    """Serve until standard input ends; a line there is answered with how many items have come."""
    with FaultServer(width=WIDTH, history=0) as server:
        print(server.address("grpc"), flush=True)
        for _ in sys.stdin:
            print(server.counters.documents, flush=True)


class Soak:
    """The server, and runs against it."""

    def __init__(self, folder, shard_rows):
        self.folder = folder
        self.shard_rows = shard_rows
        self.server = subprocess.Popen(
            [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self.server.stdout.readline().strip()

    def close(self):
        self.server.stdin.close()
        self.server.wait(30)

    def items_seen(self):
        """Return how many items have come to the server."""
        self.server.stdin.write("?\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def begin(self, rows, name):
        """Start a run, which goes on where one of that name was."""
        arguments = [self.url, str(rows), str(self.shard_rows), str(self.folder / name)]
        return subprocess.Popen([sys.executable, __file__, "run", *arguments], stdout=subprocess.PIPE, text=True)

    def finish(self, rows, name):
        """Run it to its end; returns what it came to."""
        running = self.begin(rows, name)
        said, _ = running.communicate()
        if running.returncode:
            sys.exit(f"a run has failed with {running.returncode}")
        return json.loads(said)

    def kill(self, rows, name, seconds):
        """Run it and kill it after so many seconds; returns whether it was still running."""
        running = self.begin(rows, name)
        try:
            running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.communicate()
            return True
        return False


def slope_of(points):
    """Return the slope of the line through the logarithms of pairs."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    x, y = (sum(values) / len(values) for values in zip(*logs, strict=True))
    return sum((a - x) * (b - y) for a, b in logs) / sum((a - x) ** 2 for a, _ in logs)


def compare(one, other):
    """Return the bytes of two folders, if they hold the same."""
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        sys.exit(f"{one} and {other} hold other files")
    _, differ, failed = filecmp.cmpfiles(one, other, names, shallow=False)
    if differ or failed:
        sys.exit(
            f"of the files of an undisturbed run, {len(differ + failed)} have other bytes, as {(differ + failed)[0]}"
        )
    return sum(path.stat().st_size for path in one.iterdir())


def undisturbed(soak, rows):
    """Make the undisturbed runs; returns the seconds that all rows took."""
    done = []
    for part in (100, 10, 1):
        made = soak.finish(rows // part, f"undisturbed-{part}")
        done.append(made)
        speed, resident = made["rows"] / made["seconds"], made["resident"] / 2**20
        print(
            f"{made['rows']:>12,} rows in {made['seconds']:8.1f} s: {speed:9,.0f} rows/s, {resident:5.0f} MB resident"
        )
    slope = slope_of([(made["rows"], made["seconds"]) for made in done])
    growth = (done[2]["resident"] - done[1]["resident"]) / 2**20
    print(f"log-log slope of the time {slope:.3f}; from the second to the third {growth:+.0f} MB resident", flush=True)
    return done[2]["seconds"]


def disturbed(soak, rows, kills, seconds):
    """Make the run that is killed, and hold it to the undisturbed one."""
    choose, done, begun, before = random.Random(rows), 0, 0, soak.items_seen()
    for _ in range(kills):
        begun += 1
        done += soak.kill(rows, "killed", 1 + choose.random() * 2 * seconds / kills)
    soak.finish(rows, "killed")
    seen = soak.items_seen() - before - (begun + 1) * ASKED_FOR_SPACE
    sendable = rows - math.ceil(rows / FAILED_EVERY)
    size = compare(soak.folder / "undisturbed-1", soak.folder / "killed")
    print(f"killed {done} times of {kills}; all {size / 2**20:,.0f} MB are those of the undisturbed run")
    print(f"{seen:,} items came to the server, {seen - sendable:,} of them again; a kill may cost {soak.shard_rows:,}")
    if not sendable <= seen <= sendable + done * soak.shard_rows:
        sys.exit("the server was sent other items than that")


def main():
    if sys.argv[1:2] == ["serve"]:
        return serve()
    if sys.argv[1:2] == ["run"]:
        url, rows, shard_rows, target = sys.argv[2:]
        return run(url, int(rows), int(shard_rows), target)
    told = argparse.ArgumentParser()
    told.add_argument("rows", type=int)
    told.add_argument("--kills", type=int, default=20)
    told.add_argument("--folder", type=Path, help="where the targets are written, and removed at the end")
    told = told.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="casdk-soak-", dir=told.folder))
    # So that there are shards to lose, also of a small number of rows.
    soak = Soak(folder, max(1000, min(SHARD_ROWS, told.rows // 50)))
    try:
        seconds = undisturbed(soak, told.rows)
        disturbed(soak, told.rows, told.kills, seconds)
    finally:
        soak.close()
        shutil.rmtree(folder)
    return None


if __name__ == "__main__":
    main()
