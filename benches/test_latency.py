"""How long one call with one text takes, and what many of them at once cost, merged and not."""

from time import perf_counter
from timeit import repeat

import pytest
from arena import OURS, Arena, Rival, Row
from casdk import Route, Timings

ONE = {"verb": "encode", "content": "texts", "n": 1, "batch": 1}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_one_text(benchmark, arena: Arena, scheme: str, mode: str) -> None:
    rivals = [Rival("original", "original"), *([Rival("stub", "stub")] if scheme == "grpc" else [])]
    claim = {"sync": "one text", "async": "one text, aencode"}[mode]
    arena.time_calls(benchmark, claim, scheme, ONE | {"mode": mode}, rivals, calls=100)


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_coalescing(benchmark, arena: Arena, scheme: str) -> None:
    case = {"verb": "encode", "content": "texts", "n": 2000, "mode": "tasks", "coalesce": True}
    rivals = [Rival("not merged", "casdk", {"coalesce": False})]
    arena.compete(benchmark, "2,000 tasks of one text, coalesce=True", scheme, case, rivals)


@pytest.mark.parametrize("scheme", ["grpc"])
def test_coalescing_one_at_a_time(benchmark, arena: Arena, scheme: str) -> None:
    rivals = [Rival("not merged", "casdk", {"coalesce": False})]
    arena.time_calls(benchmark, "one text, coalesce=True", scheme, ONE | {"coalesce": True}, rivals, calls=200)


@pytest.mark.parametrize("scheme", ["grpc"])
def test_dedupe(benchmark, arena: Arena, scheme: str) -> None:
    case = {"verb": "encode", "content": "texts", "n": 4096, "batch": 32, "options": {"dedupe": True}}
    arena.compete(
        benchmark, "texts without repeats, dedupe=True", scheme, case, [Rival("off", "casdk", {"options": {}})]
    )


def test_ledger(benchmark, arena: Arena) -> None:
    routes = (Route(executor="gateway", start_ns=1, end_ns=9), Route(executor="clip_t", start_ns=2, end_ns=8))
    row = Row("stamps of a request, and Response.timings made of them", "", {OURS: {}}, {})

    def write() -> Timings:
        now = perf_counter
        return Timings.between(now(), now(), now(), now(), now(), now(), routes)

    def measure() -> None:
        row.figures[OURS]["microseconds"] = [min(repeat(write, number=10_000, repeat=10)) * 1e6 / 10_000]

    benchmark.pedantic(measure, rounds=1, iterations=1)
    arena.keep(row, benchmark)
