"""CPU of index, search and rank, against casdk's embedded server: the fast one does not rank or search."""

import pytest
from arena import Arena, Rival

CASES = {
    "index, batch 32": {"verb": "index", "content": "texts", "n": 256, "batch": 32},
    "search, batch 8": {"verb": "search", "content": "texts", "n": 64, "batch": 8},
    "rank, 100 matches each": {"verb": "rank", "content": "ranked", "n": 4, "matches": 100, "batch": 1},
}


@pytest.mark.parametrize("claim", CASES)
@pytest.mark.parametrize("scheme", ["grpc", "websocket"])
def test_verbs(benchmark, arena: Arena, scheme: str, claim: str) -> None:
    arena.compete(benchmark, claim, scheme, CASES[claim], [Rival("original", "original")], peer="own")
