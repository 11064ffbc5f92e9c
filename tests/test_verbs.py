"""rank, index, search, profile and the callbacks: one body over six schemes x {sync, async}, NumPy as the oracle."""

import asyncio
import threading
from time import perf_counter
from uuid import uuid4

import numpy as np
import pytest
from casdk import (
    TLS,
    CallbackError,
    Client,
    Document,
    DocumentArray,
    InputTypeError,
    ItemError,
    NotSupportedError,
    Profile,
    RejectedError,
    Response,
    Retry,
)
from casdk.server import serve
from casdk.testing import Cut, DeadExecutor, FaultServer, Garbage, Refuse

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


def test_a_ranking_that_stops_changes_nothing(client, call):
    documents = [Document(text=text, matches=[Document(text="m"), Document(text="n")]) for text in "abcdef"]
    documents[-1].text = "!!raise here"
    with pytest.raises(RejectedError):
        call(client, "rank", documents, prefetch=1)
    assert not any(match.scores for document in documents for match in document.matches)
    assert [match.text for document in documents for match in document.matches] == ["m", "n"] * 6


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
    """An address where a request would fail: nobody listens on a port that was just given back."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"grpc://127.0.0.1:{probe.getsockname()[1]}"


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
    with pytest.raises(NotSupportedError, match="no indexer"):
        call(bare, "index", ["x"])
    with pytest.raises(NotSupportedError, match="no indexer"):
        call(bare, "search", ["x"])
    assert call(bare, "encode", ["x"]).shape == (1, 512)


@pytest.mark.parametrize("handing", ["on_done", "on_always", "return_responses"])
def test_what_a_flow_cannot_do_is_said_to_callbacks_too(bare, call, handing):
    """Whoever takes the replies in hand does not look for the one who ought to have made them."""
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


# callbacks and responses


class Watch:
    """Callbacks that remember what they got, and where they ran."""

    def __init__(self, mode):
        self.mode = mode
        self.done, self.error, self.always = [], [], []
        self.places = set()

    def here(self):
        return (threading.get_ident(), asyncio.get_running_loop() if self.mode == "async" else None)

    def hook(self, name):
        kept = getattr(self, name)

        def note(response):
            self.places.add(self.here())
            kept.append(response)

        return note

    @property
    def hooks(self):
        return {f"on_{name}": self.hook(name) for name in ("done", "error", "always")}


VERBS = {
    "encode": lambda: [f"text {i}" for i in range(10)],
    "rank": lambda: [Document(text=f"q{i}", matches=[Document(text="a"), Document(text="b")]) for i in range(10)],
    "index": lambda: [Document(text=f"text {i}") for i in range(10)],
    "search": lambda: [f"text {i}" for i in range(10)],
}


@pytest.mark.parametrize("verb", VERBS)
def test_callbacks(client, mode, verb):
    watch = Watch(mode)

    def sync():
        return getattr(client, verb)(VERBS[verb](), batch_size=3, **watch.hooks), {watch.here()}

    async def twin():
        return await getattr(client, f"a{verb}")(VERBS[verb](), batch_size=3, **watch.hooks), {watch.here()}

    result, here = sync() if mode == "sync" else asyncio.run(twin())
    assert result is None
    assert watch.places == here
    assert watch.error == []
    assert len(watch.done) == len(watch.always) == 4
    assert {id(r) for r in watch.done} == {id(r) for r in watch.always}
    assert len({r.header.request_id for r in watch.done}) == 4
    assert sorted(len(r.docs) for r in watch.done) == [1, 3, 3, 3]
    for response in watch.done:
        assert type(response) is Response
        assert response.ok
        assert response.data.docs is response.docs
        assert response.routes[0].executor == "gateway"
        assert response.routes[0].seconds > 0
        if verb != "rank":
            assert response.docs.embeddings.shape == (len(response.docs), 512)
        if verb == "search":
            assert response.parameters["limit"] == 10


@pytest.mark.parametrize("one", ["on_done", "on_always"])
def test_one_callback_is_enough(client, call, one):
    got = []
    assert call(client, "encode", ["a", "b", "c"], batch_size=2, **{one: got.append}) is None
    assert sorted(len(response.docs) for response in got) == [1, 2]


def test_callbacks_may_be_coroutine_functions(client):
    got = []

    async def on_done(response):
        await asyncio.sleep(0)
        got.append(response)

    asyncio.run(client.aencode(["a", "b", "c"], batch_size=2, on_done=on_done))
    assert len(got) == 2


def test_on_error_keeps_the_call_from_raising(client, call, mode, expected):
    watch = Watch(mode)
    texts = ["a", "b", "!!raise here", "c", "d", "e"]
    rows = call(client, "encode", texts, batch_size=2, on_error=watch.hook("error"))
    (failed,) = watch.error
    assert not failed.ok
    assert failed.status.name == "ValueError"
    assert "boom: !!raise here" in failed.status.description
    np.testing.assert_array_equal(rows[[0, 1, 4, 5]], expected(["a", "b", "d", "e"]))
    assert np.isnan(rows[2:4]).all()


def test_what_was_lost_has_an_error_or_a_piece_of_its_own(client, call, mode, expected):
    """An item whose request failed is not taken for a good one, and later pieces do not wait for it for ever."""
    watch = Watch(mode)
    texts = ["a", "!!raise here", "b"]
    got = call(client, "encode", texts, batch_size=1, errors="return", on_error=watch.hook("error"))
    (error,) = got.errors
    assert (error.index, error.item, got.ok) == (1, "!!raise here", False)
    assert error.cause.name == "ValueError"
    first, lost, last = call(client, "stream", iter(texts), batch_size=1, on_error=watch.hook("error"))
    np.testing.assert_array_equal([first[0], last[0]], expected(["a", "b"]))
    assert np.isnan(lost).all()
    assert len(watch.error) == 2


@pytest.mark.parametrize("verb", ["rank", "index", "search"])
def test_on_error_keeps_the_other_documents_of_every_verb(client, call, mode, verb):
    watch = Watch(mode)
    documents = [Document(text=text, matches=[Document(text="m")]) for text in ("a", "!!raise here", "b")]
    got = call(client, verb, documents, batch_size=1, on_error=watch.hook("error"))
    assert all(one is other for one, other in zip(got, documents, strict=True))
    assert len(watch.error) == 1
    if verb == "rank":
        assert ["clip_score" in document.matches[0].scores for document in got] == [True, False, True]
    else:
        assert [document.embedding is not None for document in got] == [True, False, True]


def test_all_three_see_what_is_theirs(client, call, mode):
    watch = Watch(mode)
    assert call(client, "encode", ["a", "b", "!!raise here", "c", "d"], batch_size=2, **watch.hooks) is None
    assert (len(watch.done), len(watch.error), len(watch.always)) == (2, 1, 3)
    assert {id(r) for r in watch.always} == {id(r) for r in watch.done + watch.error}


LOST = {
    "refused": Refuse.unavailable(),
    "not let in": Refuse.unauthenticated(),
    "without an executor": DeadExecutor(),
    "cut off": Cut("after"),
    "told nonsense": Garbage(),
}


@pytest.mark.parametrize("fault", LOST)
def test_a_request_that_fails_on_the_way_is_told_of_once(scheme, call, mode, fault):
    """By both callbacks, the last one that is under way, too."""
    watch = Watch(mode)
    with FaultServer(LOST[fault]) as server:
        tls = TLS(ca=server.ca) if scheme.endswith("s") else None
        with Client(server.address(scheme), tls=tls, retry=Retry(attempts=1), timeout=20) as client:
            assert call(client, "encode", ["a"] * 6, batch_size=1, **watch.hooks) is None
    assert (len(watch.done), len(watch.error), len(watch.always)) == (0, 6, 6)
    assert {id(response) for response in watch.error} == {id(response) for response in watch.always}
    assert all(response.status.code == 1 and response.status.description for response in watch.error)


@pytest.mark.parametrize("which", ["on_done", "on_error", "on_always"])
def test_a_callback_that_raises_stops_the_call(client, call, which):
    class OwnError(Exception):
        pass

    def raises(response):
        raise OwnError("mine")

    with pytest.raises(CallbackError, match="OwnError: mine") as caught:
        call(client, "encode", ["!!raise here"] if which == "on_error" else ["a"], **{which: raises})
    assert type(caught.value.__cause__) is OwnError
    assert call(client, "encode", ["still works"]).shape == (1, 512)


def test_a_callback_that_runs_out_of_something_stops_the_call(client, call):
    with pytest.raises(CallbackError) as caught:
        call(client, "encode", ["a"], on_done=lambda response: next(iter(())))
    assert type(caught.value.__cause__) is StopIteration


def test_a_coroutine_function_is_no_callback_of_a_sync_call(client):
    async def on_done(response):
        raise AssertionError("never runs")

    with pytest.raises(CallbackError, match="aencode"):
        client.encode(["a"], on_done=on_done)


def test_without_on_error_the_servers_error_is_raised(client, call):
    got = []
    query = Document(text="!!raise here", matches=[Document(text="a")])
    with pytest.raises(RejectedError, match="boom"):
        call(client, "rank", [query], on_done=got.append)
    assert got == []


@pytest.mark.parametrize("verb", VERBS)
def test_return_responses(client, call, verb):
    content = VERBS[verb]()
    responses = call(client, verb, content, batch_size=3, return_responses=True)
    assert [type(response) for response in responses] == [Response] * 4
    assert [len(response.docs) for response in responses] == [3, 3, 3, 1]
    texts = [document.text for response in responses for document in response.docs]
    assert texts == [item if isinstance(item, str) else item.text for item in content]
    if verb == "rank":
        assert all("clip_score" in match.scores for r in responses for d in r.docs for match in d.matches)


def test_rank_cuts_requests_by_query(client, call):
    """The server compares all queries of a request with all its candidates: N times N for N queries."""
    responses = call(client, "rank", VERBS["rank"](), return_responses=True)
    assert [len(response.docs) for response in responses] == [1] * 10


def test_timings_lie_within_the_call(client, call):
    began = perf_counter()
    [response] = call(client, "encode", ["a", "b"], return_responses=True)
    wall = perf_counter() - began
    timings = response.timings
    assert min(timings.queued, timings.packed, timings.sent, timings.scanned) > 0
    assert [name for name, _ in timings.executors] == [route.executor for route in response.routes[1:]]
    assert 0 < timings.executing <= timings.server
    assert timings.total <= wall


@pytest.mark.parametrize("name", ["on_done", "on_error", "on_always"])
def test_a_callback_must_be_callable(client, call, name):
    with pytest.raises(TypeError, match=name):
        call(client, "encode", ["a"], **{name: "print"})


@pytest.mark.parametrize("verb", ["rank", "index", "search"])
@pytest.mark.parametrize("option", [{"result": "arrow"}, {"dtype": "float16"}, {"dedupe": True}, {"errors": "skip"}])
def test_what_has_no_meaning_is_not_ignored(connect, call, verb, option):
    with pytest.raises(TypeError, match=f"'{next(iter(option))}'"):
        call(connect("grpc"), verb, [Document(text="a", matches=[Document(text="b")])], **option)
