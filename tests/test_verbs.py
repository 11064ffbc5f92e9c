"""rank, index, search and profile: one body over six schemes x {sync, async}, NumPy as the oracle."""

from uuid import uuid4

import numpy as np
import pytest
from casdk import (
    TLS,
    Client,
    Document,
    DocumentArray,
    InputTypeError,
    ItemError,
    NotSupportedError,
    Profile,
    RejectedError,
    Response,
    Route,
    Timings,
)
from casdk.models import Header
from casdk.server import serve
from casdk.testing import FaultServer
from casdk.testing._thread import reserve

PLACES = ["control room", "lecture room", "conference room", "podium indoor", "television studio"]


@pytest.fixture(scope="module")
def bare_server():
    """A flow without an indexer: /index and /search fall through to its encoder, as clip_server's do."""
    with serve(index=False) as served:
        yield served


@pytest.fixture
def bare(bare_server, scheme):
    tls = TLS(ca=bare_server.ca) if scheme.endswith("s") else None
    with Client(bare_server.address(scheme), tls=tls) as client:
        yield client


def unit(rows):
    wide = np.asarray(rows, np.float64)
    return wide / np.linalg.norm(wide, axis=-1, keepdims=True)


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def check_ranking(query, candidates, row, rows):
    """The candidates' scores are softmax(100 cos) of these rows, highest first."""
    cosines = unit(rows) @ unit(row)
    wanted = dict(zip(map(id, candidates), zip(softmax(100 * cosines), cosines, strict=True), strict=True))
    scores = [match.scores["clip_score"].value for match in query]
    assert scores == sorted(scores, reverse=True)
    for match in query:
        score, cosine = wanted.pop(id(match))  # the very objects, each once
        assert match.scores["clip_score"].value == pytest.approx(score, abs=1e-5)
        assert match.scores["clip_score"].op_name == "softmax"
        assert match.scores["clip_score_cosine"].value == pytest.approx(cosine, abs=1e-5)
        assert match.scores["clip_score_cosine"].op_name == "cosine"
    assert not wanted


# rank


@pytest.mark.tls
@pytest.mark.parametrize("source", ["matches", "chunks"])
def test_rank_scores_are_clips(client, call, expected, images, source):
    png, jpeg = images["png"], images["jpeg"]
    texts = [f"a photo of a {place}" for place in PLACES]
    candidates = [
        [Document(text=text) for text in texts],
        [Document(uri=str(png)), Document(blob=jpeg.read_bytes()), Document(text="an apple")],
        [Document(text="alone")],
    ]
    rows = [expected(texts), expected([png, jpeg, "an apple"]), expected(["alone"])]
    queries = [Document(uri=str(png)), Document(text="a photo of conference room"), Document(blob=jpeg.read_bytes())]
    query_rows = expected([png, "a photo of conference room", jpeg])
    for query, documents in zip(queries, candidates, strict=True):
        setattr(query, source, documents)
    got = call(client, "rank", queries, source=source, batch_size=2)
    assert type(got) is DocumentArray
    for document, query, documents, row, own in zip(got, queries, candidates, query_rows, rows, strict=True):
        assert document is query
        check_ranking(getattr(query, source), documents, row, own)
    assert candidates[1][1].blob == jpeg.read_bytes()


def test_rank_again_and_from_a_generator(client, call, expected):
    query = Document(text="apple", matches=[Document(text=text) for text in ("apple pie", "pear", "apple")])
    candidates = list(query.matches)
    for _ in range(2):
        got = call(client, "rank", (document for document in [query]))
        assert got[0] is query
        check_ranking(query.matches, candidates, expected(["apple"])[0], expected(["apple pie", "pear", "apple"]))
    assert query.matches[0].text == "apple"


def test_rank_a_document_that_stands_there_more_than_once(client, call, expected):
    """Its candidates stay in place until every reply is there."""
    texts = ["a red apple", "control room", "an apple", "a street", "apple pie"]
    query = Document(text="apple", matches=[Document(text=text) for text in texts])
    candidates = list(query.matches)
    got = call(client, "rank", [query] * 5)
    assert all(document is query for document in got)
    check_ranking(query.matches, candidates, expected(["apple"])[0], expected(texts))


def test_rank_candidates_that_queries_share(client, call, expected):
    """Each query has scores of its own; the first one has the very objects, as far as it can."""
    texts = ["a red apple", "control room", "an apple", "a street"]
    labels = [Document(text=text, tags={"at": at}) for at, text in enumerate(texts)]
    queries = [Document(text=text, matches=labels) for text in ("apple", "street", "room")]
    call(client, "rank", queries)
    check_ranking(queries[0].matches, labels, expected(["apple"])[0], expected(texts))
    for query in queries[1:]:
        own = sorted(query.matches, key=lambda match: match.tags["at"])
        assert [match.text for match in own] == texts
        assert not {id(match) for match in own} & {id(label) for label in labels}
        check_ranking(query.matches, own, expected([query.text])[0], expected(texts))


def test_a_ranking_that_stops_leaves_each_document_whole(client, call):
    """Those that were done have their ranking, the others are as they were."""
    documents = [Document(text=text, matches=[Document(text="m"), Document(text="n")]) for text in "abcdef"]
    documents[-1].text = "!!raise here"
    with pytest.raises(RejectedError) as caught:
        call(client, "rank", documents, prefetch=1)
    assert (caught.value.done, caught.value.total, caught.value.partial) == (5, 6, None)
    assert [document is documents[at] for at, document in enumerate(caught.value.documents)] == [True] * 6
    assert all({"clip_score", "clip_score_cosine"} <= set(m.scores) for doc in documents[:5] for m in doc.matches)
    assert [(match.text, match.scores) for match in documents[5].matches] == [("m", {}), ("n", {})]


def test_rank_nothing(client, call):
    assert len(call(client, "rank", [])) == 0


BAD_DOCUMENTS = {
    "no matches": (Document(text="q"), ValueError, r"document 1: \.matches is empty"),
    "an empty match": (
        Document(text="q", matches=[Document(text="a"), Document(text="b"), Document()]),
        ValueError,
        "document 1: match 2 has no",
    ),
    "no content": (Document(matches=[Document(text="a")]), ValueError, "document 1 has no"),
    "a str": ("q", InputTypeError, "document 1: rank takes Documents"),
}


@pytest.mark.parametrize("case", BAD_DOCUMENTS)
def test_what_cannot_be_ranked_is_named_before_anything_is_sent(mode, call, case, unreachable):
    document, kind, says = BAD_DOCUMENTS[case]
    fine = Document(text="q", matches=[Document(text="a")])
    with Client(unreachable) as client, pytest.raises(kind, match=says):
        call(client, "rank", [fine, document])


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_what_cannot_be_ranked_is_named_wherever_it_stands(mode, call, kind):
    """Further on than requests are in flight: a sequence is looked through before, an iterator stops there."""
    documents = [Document(text="q", matches=[Document(text="a")]) for _ in range(40)]
    with FaultServer() as server, Client(server.address("grpc")) as client:
        with pytest.raises(ValueError, match=r"document 40: \.matches is empty"):
            call(client, "rank", kind([*documents, Document(text="q"), *documents]))
        if kind is not iter:
            assert not server.requests
            assert not any(document.matches[0].scores for document in documents)


@pytest.fixture
def unreachable():
    """An address where a request would fail: its port is held, and no server listens there."""
    with reserve() as reserved:
        yield f"grpc://127.0.0.1:{reserved.getsockname()[1]}"


def test_rank_of_another_attribute_is_refused(client, call):
    with pytest.raises(ValueError, match="source must be 'matches' or 'chunks'"):
        call(client, "rank", [Document(text="q")], source="tags")


def test_rank_with_a_model_that_does_not_rank(client, call):
    """The endpoint falls through to the encoder, which answers without scores."""
    query = Document(text="q", matches=[Document(text="a"), Document(text="b")])
    with pytest.raises(NotSupportedError, match="clip_score"):
        call(client, "rank", [query], parameters={"model_name": "other"})
    assert [match.scores for match in query.matches] == [{}, {}]


# index and search


def distances(expected, query, texts):
    return 1 - unit(expected(texts)) @ unit(expected([query])[0])


@pytest.mark.tls
def test_index_and_search(client, call, expected):
    mark = uuid4().hex
    texts = [f"{mark} {place}" for place in PLACES]
    documents = [Document(text=text, tags={"place": i, "of": {"deep": [1.0, "x"]}}) for i, text in enumerate(texts)]
    ids = [document.id for document in documents]
    stored = call(client, "index", documents, batch_size=2)
    assert type(stored) is DocumentArray
    assert all(a is b for a, b in zip(stored, documents, strict=True))
    np.testing.assert_array_equal(stored.embeddings, expected(texts))

    (found,) = call(client, "search", [f"{mark} lecture room"], limit=3)
    assert found.text == f"{mark} lecture room"
    assert len(found.matches) == 3
    assert found.matches[0].text == texts[1]
    assert found.matches[0].id == ids[1]
    assert found.matches[0].tags == {"place": 1.0, "of": {"deep": [1.0, "x"]}}
    assert found.matches[0].scores["cosine"].value == pytest.approx(0.0, abs=1e-6)
    values = [match.scores["cosine"].value for match in found.matches]
    assert values == sorted(values)
    near = np.sort(distances(expected, found.text, texts))[:3]
    np.testing.assert_allclose(values, near, atol=1e-5)


def test_search_keeps_the_querys_document(client, call, expected, images):
    mark = uuid4().hex
    call(client, "index", [f"{mark} one", f"{mark} two", images["png"]])
    queries = [Document(id="mine", text=f"{mark} two"), Document(blob=images["png"].read_bytes())]
    got = call(client, "search", queries, limit=1)
    assert all(a is b for a, b in zip(got, queries, strict=True))
    assert queries[0].id == "mine"
    assert queries[0].matches[0].text == f"{mark} two"
    assert queries[1].matches[0].scores["cosine"].value == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_array_equal(got.embeddings, expected([f"{mark} two", images["png"]]))


def test_an_error_names_the_callers_own_item(client, call):
    """Not the Document that was made of it."""
    for verb in ("index", "search"):
        with pytest.raises(ItemError) as stopped:
            call(client, verb, ["good", ""])
        assert (stopped.value.index, stopped.value.item) == (1, "")


def test_strings_get_fresh_ids(client, call):
    mark = uuid4().hex
    stored = call(client, "index", [f"{mark} {i}" for i in range(20)])
    assert len({document.id for document in stored}) == 20
    assert all(len(document.id) == 32 and int(document.id, 16) >= 0 for document in stored)


def test_indexing_an_id_again_replaces_it(client, call):
    mark = uuid4().hex
    call(client, "index", [Document(id=mark, text=f"{mark} before")])
    call(client, "index", [Document(id=mark, text=f"{mark} after")])
    (found,) = call(client, "search", [f"{mark} before"], limit=5)
    assert [match.text for match in found.matches if match.id == mark] == [f"{mark} after"]


@pytest.mark.parametrize(("limit", "kind"), [(0, ValueError), (-1, ValueError), ("3", TypeError), (True, TypeError)])
def test_limit_is_checked(client, call, limit, kind):
    with pytest.raises(kind, match="limit"):
        call(client, "search", ["x"], limit=limit)


def test_limit_of_numpy(client, call):
    call(client, "index", [f"{uuid4().hex} limit"])
    assert len(call(client, "search", ["x"], limit=np.int64(1))[0].matches) == 1


def test_a_flow_without_an_indexer(bare, call):
    with pytest.raises(NotSupportedError, match="no indexer") as caught:
        call(bare, "index", ["x"])
    assert (caught.value.done, caught.value.total, list(caught.value.unconfirmed)) == (0, 1, [])  # nothing was stored
    assert caught.value.partial.shape == (1, 512)
    with pytest.raises(NotSupportedError, match="no indexer"):
        call(bare, "search", ["x"])
    assert call(bare, "encode", ["x"]).shape == (1, 512)


@pytest.mark.parametrize("handing", ["on_done", "on_always", "return_responses"])
def test_what_a_flow_cannot_do_is_said_to_callbacks_too(bare, call, handing):
    """With callbacks or responses, the flow is not checked for an indexer."""
    got = []
    option = {handing: True if handing == "return_responses" else got.append}
    for verb in ("index", "search"):
        with pytest.raises(NotSupportedError, match="no indexer"):
            call(bare, verb, ["x"], **option)
    query = Document(text="q", matches=[Document(text="a")])
    got.clear()
    with pytest.raises(NotSupportedError, match="clip_score"):
        call(bare, "rank", [query], parameters={"model_name": "other"}, **option)
    assert got == []


def test_a_document_that_was_not_stored_is_not_searched_for(call):
    """What says that the flow has no indexer is a search for what it took."""
    got = []
    with (
        serve(schemes=["grpc"], index=False, chaos=True) as served,
        Client(served.address("grpc")) as client,
        pytest.raises(NotSupportedError, match="no indexer"),
    ):
        call(client, "index", ["!!raise here", "fine"], batch_size=1, on_error=got.append)
    assert len(got) == 1


# profile


def test_a_profile_begins_when_its_connection_is_open(scheme, call):
    """It opens one if there is none, and sends no request but the one that is measured."""
    with FaultServer(width=8) as server:
        options = {"tls": TLS(ca=server.ca)} if scheme.endswith("s") else {}
        with Client(server.address(scheme), **options) as client:
            profile = call(client, "profile", "hello", quiet=True)
            assert server.counters.requests == server.counters.documents == 1
        assert profile.roundtrip == pytest.approx(profile.network + profile.server)
        collected = []
        with Client(server.address(scheme), **options) as client:
            call(client, "encode", ["one", "two"], batch_size=1, prefetch=1, on_done=collected.append)
    first, second = (response.timings for response in collected)
    assert 0 < first.connecting <= first.network + first.server
    assert second.connecting == 0


def test_what_a_profile_leaves_out():
    routes = (
        Route(executor="gateway", start_ns=1, end_ns=2_000_001),
        Route(executor="clip", start_ns=1, end_ns=1_000_001),
    )
    timings = Timings.between(0, 0, 0, 0, 0.5, 0.5, routes, connecting=0.4)
    profile = Profile.from_response(Response(header=Header(request_id="0"), routes=routes, timings=timings))
    assert timings.total == pytest.approx(0.5)
    assert (profile.roundtrip, profile.network, profile.server) == pytest.approx((100, 98, 2))


@pytest.mark.tls
def test_profile(client, call, images, capsys):
    for content in (None, "hello, world", images["png"], str(images["png"]), Document(text="hello")):
        profile = call(client, "profile", content)
        tree = capsys.readouterr().out
        assert type(profile) is Profile
        assert profile.roundtrip == pytest.approx(profile.network + profile.server)
        assert profile.server == pytest.approx(profile.gateway + sum(ms for _, ms in profile.executors), abs=1e-6)
        assert profile.roundtrip > profile.server > 0
        assert profile["Roundtrip"] == profile.roundtrip
        assert profile["Client-server network"] == profile.network
        assert dict(profile)["CLIP model"] == profile.executors[0][1]
        for title in ("Roundtrip", "Client-server network", "Server", "Gateway-CLIP network", "CLIP model"):
            assert title in tree


def test_profile_quietly(client, call, capsys):
    call(client, "profile", quiet=True)
    assert capsys.readouterr().out == ""


def test_profile_names_a_bad_image(client, call):
    with pytest.raises(FileNotFoundError, match=r"nosuch\.png"):
        call(client, "profile", "nosuch.png")


@pytest.mark.parametrize("verb", ["rank", "index", "search"])
@pytest.mark.parametrize("option", [{"result": "arrow"}, {"dtype": "float16"}, {"dedupe": True}, {"errors": "skip"}])
def test_what_has_no_meaning_is_not_ignored(connect, call, verb, option):
    with pytest.raises(TypeError, match=f"'{next(iter(option))}'"):
        call(connect("grpc"), verb, [Document(text="a", matches=[Document(text="b")])], **option)
