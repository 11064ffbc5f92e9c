"""casdk alone, for callgrind: ``python calls.py`` reads ``ADDRESS BATCH TIMES`` from each line, and makes such calls.

It uses nothing but casdk's public names, so that it runs with another checkout's casdk, too.
"""

import gc
import sys

import content
from casdk import Client


def main() -> None:
    for line in sys.stdin:
        address, batch, times = line.split()
        texts = content.texts(int(batch))
        with Client(address) as client:
            # The connection is opened by the first calls, and modules are imported.
            for _ in range(20):
                client.encode(texts)
            gc.collect()
            # What this process made so far is no garbage: collections shall not look at it while calls are counted.
            gc.freeze()
            report()
            for _ in range(int(times)):
                client.encode(texts)
            report()


def report() -> None:
    """Wait until whoever counts has read the counter."""
    print("ready", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
