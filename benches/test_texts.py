"""CPU and throughput of texts, at four batch sizes, over six schemes, by every contender that can."""

import pytest
from arena import Arena, Rival
from peers import SCHEMES

ITEMS = {1: 128, 8: 1024, 32: 1024, 256: 2048}


def rivals_on(scheme: str) -> list[Rival]:
    plain = not scheme.endswith("s")
    return [
        Rival("original", "original"),
        *([Rival("stub", "stub")] if scheme.startswith("grpc") else []),
        Rival("libraries", "casdk", {"transport": "libraries"}),
        *([Rival("baseten", "baseten"), Rival("openai", "openai_python")] if scheme == "http" else []),
        Rival("bare", "bare"),
        *([Rival("floor", "floor")] if plain else []),
    ]


@pytest.mark.parametrize("batch", ITEMS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_texts(benchmark, arena: Arena, scheme: str, batch: int) -> None:
    case = {"verb": "encode", "content": "texts", "n": ITEMS[batch], "batch": batch}
    arena.compete(benchmark, f"texts, batch {batch}", scheme, case, rivals_on(scheme))


@pytest.mark.parametrize("mode", ["async", "threads"])
@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_modes(benchmark, arena: Arena, scheme: str, mode: str) -> None:
    case = {"verb": "encode", "content": "texts", "n": 2048, "batch": 32, "mode": mode}
    claim = {"async": "texts, batch 32, aencode", "threads": "texts, batch 32, 8 threads"}[mode]
    arena.compete(benchmark, claim, scheme, case, [Rival("original", "original")])


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_documents(benchmark, arena: Arena, scheme: str) -> None:
    case = {"verb": "encode", "content": "documents", "n": 1024, "batch": 32}
    arena.compete(benchmark, "Documents, batch 32", scheme, case, [Rival("original", "original")])
