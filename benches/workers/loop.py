"""What every contender's process does: read an order, carry it out, say what it cost.

One line of JSON in, one out. Nothing here knows whom it measures; a contender brings `prepare(case)`, which returns
the call to be measured: no arguments, returning the embeddings, or ``None`` where the verb has none.
"""

import gc
import hashlib
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

Call = Callable[[], Any]
Case = dict[str, Any]
COUNTS: Counter[str] = Counter()
"""What a contender counts by itself; `run` tells how much came to it."""


def serve(prepare: Callable[[Case], Call]) -> None:
    """Answer orders until standard input ends."""
    # What a library prints must not end up between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ready: dict[str, Call] = {}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = _carry_out(order, prepare, ready)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)


def _carry_out(order: dict[str, Any], prepare: Callable[[Case], Call], ready: dict[str, Call]) -> dict[str, Any]:
    key = json.dumps(order["case"], sort_keys=True)
    if key not in ready:
        ready.clear()
        ready[key] = prepare(order["case"])
    return ORDERS[order["do"]](ready[key], **order.get("with", {}))


def check(call: Call) -> dict[str, Any]:
    """Call once, which also warms up; tell what came out, so that wrong answers cannot look fast."""
    rows = call()
    if rows is None:
        return {"shape": None, "digest": None}
    import numpy as np

    single = np.ascontiguousarray(rows, dtype=np.float32)
    return {"shape": list(single.shape), "digest": hashlib.sha256(single.tobytes()).hexdigest()}


def run(call: Call, seconds: float) -> dict[str, Any]:
    """Call again and again for ``seconds``; CPU is this whole process's, every thread of it, user and system."""
    gc.collect()
    COUNTS.clear()
    calls, began, spent = 0, time.perf_counter(), time.process_time()
    while not calls or time.perf_counter() - began < seconds:
        call()
        calls += 1
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    return {"calls": calls, "wall": wall, "cpu": cpu, "counts": dict(COUNTS)}


def once(call: Call) -> dict[str, Any]:
    """Call once; what is returned is kept until the cost is known, as a user keeps it."""
    gc.collect()
    began, spent = time.perf_counter(), time.process_time()
    kept = call()
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    del kept
    return {"wall": wall, "cpu": cpu}


def latency(call: Call, calls: int) -> dict[str, Any]:
    """Call one at a time; seconds of each."""
    gc.collect()
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return {"times": times}


def memory(call: Call) -> dict[str, Any]:
    """Call once; bytes by which the process's peak grew."""
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = call()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"grown": (after - before) * 1024, "result": int(rows.nbytes)}


ORDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "check": check,
    "run": run,
    "once": once,
    "latency": latency,
    "memory": memory,
}
