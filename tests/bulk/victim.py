"""Bulk runs, each in a process of its own, which kills itself (SIGKILL) at a step or an item that the caller names.

A run is described by one object of JSON: ``url``, ``source`` and ``target``, the ``options`` of the run, and perhaps
``disk``, ``request`` or ``item``. Steps are those on the disk, or before and after each request that changes a store.

Each line of standard input is such an object, and gets a line with the exit code of its run, which is negative for a
signal. This process imports what the runs need and makes none itself: it forks one for each, which takes a tenth of the
time of a new Python. An argument is the one run of this process.
"""

import json
import os
import signal
import sys
import traceback

import casdk.bulk.call  # noqa: F401  # as what else the runs need, it is imported once, before they are forked
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401
from casdk import Client, bulk
from casdk.bulk.objects import Objects

STEPS = ("os.rename", "os.truncate", "os.remove")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_step(number, folder):
    """Die before the step of that number: a file is opened, cut, named or removed."""
    seen = 0

    def watch(event, arguments):
        nonlocal seen
        if event in STEPS or (event == "open" and str(arguments[0]).startswith(folder)):
            seen += 1
            if seen == number:
                die()

    sys.addaudithook(watch)


def die_at_request(number):
    """Die at the step of that number: an odd one comes before a request that changes the store, an even one after."""
    seen = 0

    def count():
        nonlocal seen
        seen += 1
        if seen == number:
            die()

    def counted(request):
        def send(*arguments):
            count()
            answer = request(*arguments)
            count()
            return answer

        return send

    for name in ("put", "copy", "delete"):
        setattr(Objects, name, counted(getattr(Objects, name)))


def die_at_item(number, items):
    for place, item in enumerate(items):
        if place == number:
            die()
        yield item


def dying(items, number):
    if isinstance(items, bulk.Named):
        return bulk.Named(lambda: die_at_item(number, items.entries()), items.total, items.holds)
    return die_at_item(number, items)


def items_of(source):
    """Return the items that a word names: ``texts:100``, or a source and what it reads, as ``lines:PATH``."""
    kind, _, what = source.partition(":")
    if kind == "texts":
        return [f"sentence {number}" if number % 37 else "" for number in range(int(what))]
    if kind == "parquet":
        return bulk.parquet(what, columns="image")
    if kind == "tars":
        return bulk.tars(what, columns="txt")
    if kind == "pairs":
        return bulk.tars(what, columns=("txt", "png"))
    return bulk.files(what) if kind == "files" else bulk.lines(what)


def main(order):
    items = items_of(order["source"])
    if order.get("item") is not None:
        items = dying(items, order["item"])
    with Client(order["url"]) as client:
        if order.get("disk") is not None:
            die_at_step(order["disk"], os.path.dirname(order["target"]))
        if order.get("request") is not None:
            die_at_request(order["request"])
        options = order["options"]
        if "shard" in options:
            options["shard"] = tuple(options["shard"])
        client.encode_to(order["target"], items, **options)


def fork(order):
    """Return the process of a run that has begun."""
    if process := os.fork():
        return process
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.environ.update(order.get("environment", {}))
    try:
        main(order)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def serve():
    for line in sys.stdin:
        _, status = os.waitpid(fork(json.loads(line)), 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1])) if sys.argv[1:] else serve()
