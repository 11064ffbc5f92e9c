"""What the embedded server and the fault server answer, which is computed by the same code."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from casdk.server import serve
from casdk.testing import FaultServer, embed

REQUESTS = {
    "nothing to rank by": {"execEndpoint": "/rank", "data": [{"matches": [{"text": "a"}]}]},
    "nothing to rank": {"execEndpoint": "/rank", "data": [{"text": "a"}]},
    "a match without content": {"execEndpoint": "/rank", "data": [{"text": "a", "matches": [{"text": "b"}, {}]}]},
    "no access path": {"execEndpoint": "/encode", "data": [{"text": "a"}], "parameters": {"access_paths": "@x"}},
    "no limit": {"execEndpoint": "/search", "data": [{"text": "a"}], "parameters": {"limit": 0}},
    "no ids": {"execEndpoint": "/delete", "data": [], "parameters": {"ids": "a"}},
    "not finite": {"execEndpoint": "/index", "data": [{"id": "1", "text": "a", "weight": 1e39}]},
}


@pytest.fixture(scope="module")
def ask_both():
    """A function that posts a request to both servers and returns what they answer."""
    with serve(schemes=["http"], chaos=True) as served, FaultServer(width=8) as faulty, httpx.Client() as client:
        yield lambda form: [client.post(f"{each.address('http')}/post", json=form).json() for each in (served, faulty)]


@pytest.mark.parametrize("case", REQUESTS)
def test_what_fails_fails_with_the_same_words(ask_both, case):
    one, other = (reply["header"]["status"] for reply in ask_both(REQUESTS[case]))
    assert one["code"] == other["code"] == 1
    assert one["description"] == other["description"]
    assert one["exception"]["name"] == other["exception"]["name"] == "ValueError"


def test_matches_are_ranked_by_the_rows_of_each(ask_both):
    texts = ["b", "c", "d"]
    form = {"text": "a", "matches": [{"text": text} for text in texts]}
    replies = ask_both({"execEndpoint": "/rank", "data": [form]})
    for reply in replies:
        scores = [match["scores"]["clip_score"]["value"] for match in reply["data"][0]["matches"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)
    rows = {text: embed(text, 8) / np.linalg.norm(embed(text, 8)) for text in ("a", *texts)}
    ranked = sorted(texts, key=lambda text: -float(rows["a"] @ rows[text]))
    assert [match["text"] for match in replies[1]["data"][0]["matches"]] == ranked


def test_what_is_indexed_is_found_replaced_and_deleted(ask_both):
    def found(text):
        replies = ask_both({"execEndpoint": "/search", "data": [{"text": text}], "parameters": {"limit": 3}})
        return [[(each["id"], each["text"]) for each in reply["data"][0]["matches"] or ()] for reply in replies]

    ask_both({"execEndpoint": "/index", "data": [{"id": "1", "text": "a"}, {"id": "2", "text": "!!drop"}]})
    assert found("a") == [[("1", "a")]] * 2
    ask_both({"execEndpoint": "/update", "data": [{"id": "1", "text": "b"}, {"id": "3", "text": "c"}]})
    assert found("a") == [[("1", "b")]] * 2
    status = ask_both({"execEndpoint": "/status", "data": []})
    assert [reply["data"][0]["tags"]["total_docs"] for reply in status] == [1, 1]
    ask_both({"execEndpoint": "/delete", "data": [], "parameters": {"ids": ["1"]}})
    assert found("a") == [[], []]
