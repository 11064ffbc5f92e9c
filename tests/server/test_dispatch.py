"""What the server answers alike on every scheme."""

import io
import time

import numpy as np
import pytest
from casdk.server.encoders import Features
from PIL import Image

TEXTS = ["a cat", "two dogs on the grass", "ünïcödé 日本語", "x"]


def _png(seed, size=(40, 30)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue(), pixels


def test_texts_get_the_encoders_rows_in_order(ask, raw):
    before = time.time_ns()
    reply = ask(raw.request("/encode", *({"text": text, "id": f"id-{text}"} for text in TEXTS), limit=3, a="b"))
    after = time.time_ns()

    rows = np.stack([raw.row(made) for made in reply.data.docs.docs])
    assert np.array_equal(rows, Features().encode_texts(TEXTS))
    assert [made.id for made in reply.data.docs.docs] == [f"id-{text}" for text in TEXTS]
    assert {made.mime_type for made in reply.data.docs.docs} == {"text/plain"}
    assert dict(reply.parameters) == {"limit": 3.0, "a": "b"}
    assert reply.header.exec_endpoint == "/encode"
    assert reply.header.HasField("target_executor")
    assert reply.header.target_executor == ""
    assert reply.header.status.code == 0
    gateway, encoder = reply.routes
    assert (gateway.executor, encoder.executor) == ("gateway", "encoder")
    times = [gateway.start_time, encoder.start_time, encoder.end_time, gateway.end_time]
    nanoseconds = [time.ToNanoseconds() for time in times]
    assert nanoseconds == sorted(nanoseconds)
    assert before // 1000 * 1000 <= nanoseconds[0]
    assert nanoseconds[-1] <= after


def test_images_come_as_blob_tensor_or_data_uri(ask, raw):
    import base64

    data, pixels = _png(1)
    tensor = {"dense": {"buffer": pixels.tobytes(), "shape": pixels.shape, "dtype": "|u1"}}
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    reply = ask(raw.request("/encode", {"blob": data}, {"tensor": tensor}, {"uri": uri}))
    assert reply.header.status.description == ""
    expected = Features().encode_images([Image.fromarray(pixels)])[0]
    for made in reply.data.docs.docs:
        assert np.array_equal(raw.row(made), expected)


@pytest.mark.parametrize("drop", [True, False])
def test_image_content_is_dropped_when_asked(ask, raw, drop):
    data, _ = _png(2)
    reply = ask(raw.request("/encode", {"blob": data, "uri": "x.png"}, {"text": "t"}, drop_image_content=drop))
    image, text = reply.data.docs.docs
    assert image.blob == (b"" if drop else data)
    assert image.uri == "x.png"
    assert text.text == "t"


def test_documents_without_content_are_skipped(ask, raw):
    reply = ask(raw.request("/encode", {"text": "a"}, {"tags": {"n": 1.0, "s": "x"}}, {"text": "b"}))
    assert [made.HasField("embedding") for made in reply.data.docs.docs] == [True, False, True]
    assert dict(reply.data.docs.docs[1].tags) == {"n": 1.0, "s": "x"}
    assert all(len(made.id) == 32 for made in reply.data.docs.docs)


def test_an_empty_request_is_answered(ask, raw):
    reply = ask(raw.request("/"))
    assert list(reply.data.docs.docs) == []
    assert [route.executor for route in reply.routes] == ["gateway", "encoder"]


def test_what_an_executor_raises_is_the_status(ask, raw):
    reply = ask(raw.request("/encode", {"text": "fine"}, {"text": "!!raise now"}))
    status = reply.header.status
    assert status.code == 1
    assert status.description == "ValueError('boom: !!raise now')"
    assert status.exception.name == "ValueError"
    assert list(status.exception.args) == ["boom: !!raise now"]
    assert status.exception.executor == "EncodeExecutor"
    assert status.exception.stacks[0].startswith("Traceback")
    assert "boom" in status.exception.stacks[-1]
    assert [made.text for made in reply.data.docs.docs] == ["fine", "!!raise now"]
    assert not any(made.HasField("embedding") for made in reply.data.docs.docs)


def test_chaos_loses_rows_and_documents(ask, raw):
    reply = ask(raw.request("/encode", *({"text": text} for text in ("a", "!!noemb", "!!drop", "b"))))
    assert [(made.text, made.HasField("embedding")) for made in reply.data.docs.docs] == [
        ("a", True),
        ("!!noemb", False),
        ("b", True),
    ]


def test_models_differ_and_rank_of_a_model_encodes(ask, raw):
    first, second = (
        raw.row(ask(raw.request(f"/encode/{model}", {"text": "a"})).data.docs.docs[0]) for model in ("m1", "m2")
    )
    assert np.array_equal(first, Features(model="m1").encode_texts(["a"])[0])
    assert not np.array_equal(first, second)
    ranked = ask(raw.request("/rank/m1", {"text": "a", "matches": [{"text": "b"}]}))
    assert np.array_equal(raw.row(ranked.data.docs.docs[0]), first)
    assert not ranked.data.docs.docs[0].matches[0].scores


def test_rank_is_clips(ask, raw):
    queries = {"a cat": ["a dog", "the cat", "a cat on grass"], "tree": ["a tree", "sky"]}
    forms = ({"text": query, "matches": [{"text": text} for text in texts]} for query, texts in queries.items())
    reply = ask(raw.request("/rank", *forms))
    assert reply.header.status.description == ""
    features = Features()
    for made, (query, texts) in zip(reply.data.docs.docs, queries.items(), strict=True):
        cosines = features.encode_texts(texts) @ features.encode_texts([query])[0]
        exponents = np.exp(100 * (cosines - cosines.max()))
        expected = dict(zip(texts, zip(exponents / exponents.sum(), cosines, strict=True), strict=True))
        got = {match.text: match.scores for match in made.matches}
        for text, (probability, cosine) in expected.items():
            assert got[text]["clip_score"].value == pytest.approx(probability, abs=1e-5)
            assert got[text]["clip_score_cosine"].value == pytest.approx(cosine, abs=1e-5)
            assert got[text]["clip_score"].op_name == "softmax"
            assert got[text]["clip_score_cosine"].op_name == "cosine"
        values = [match.scores["clip_score"].value for match in made.matches]
        assert values == sorted(values, reverse=True)
        assert {match.adjacency for match in made.matches} == {1}
        assert not any(match.HasField("embedding") for match in made.matches)
        assert np.array_equal(raw.row(made), features.encode_texts([query])[0])


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"text": "a"}, "document 0 has no matches to rank"),
        ({"text": "a", "matches": [{"text": "b"}, {"tags": {}}]}, "document 0, match 1 has no content to rank"),
        ({"matches": [{"text": "b"}]}, "document 0 has no content to rank by"),
    ],
)
def test_rank_names_what_cannot_be_ranked(ask, raw, form, sentence):
    reply = ask(raw.request("/rank", form))
    assert list(reply.header.status.exception.args) == [sentence]


def test_what_is_indexed_is_found(ask, raw, scheme):
    texts = [f"{scheme} {text}" for text in TEXTS]
    forms = [
        {"text": text, "id": f"{scheme}-{text}", "tags": {"at": float(at)}, "uri": f"u{at}", "weight": 0.5}
        for at, text in enumerate(texts)
    ]
    reply = ask(raw.request("/index", *forms))
    assert [route.executor for route in reply.routes] == ["gateway", "encoder", "indexer"]
    assert np.array_equal(raw.row(reply.data.docs.docs[2]), Features().encode_texts([texts[2]])[0])

    found = ask(raw.request("/search", {"text": texts[1]}, limit=2)).data.docs.docs[0]
    assert len(found.matches) == 2
    best, next_best = found.matches
    assert (best.id, best.text, best.uri, best.weight) == (f"{scheme}-{texts[1]}", texts[1], "u1", 0.5)
    assert (dict(best.tags), best.mime_type, best.adjacency) == ({"at": 1.0}, "text/plain", 1)
    assert best.scores["cosine"].value == pytest.approx(0.0, abs=1e-6)
    assert best.scores["cosine"].value <= next_best.scores["cosine"].value

    ids = [form["id"] for form in forms]
    assert ask(raw.request("/delete", ids=ids)).header.status.code == 0
    gone = ask(raw.request("/search", {"text": texts[1]}, limit=100)).data.docs.docs[0]
    assert not {match.id for match in gone.matches} & set(ids)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "ten", True])
def test_a_senseless_limit_is_an_error(ask, raw, limit):
    reply = ask(raw.request("/search", {"text": "a"}, limit=limit))
    assert reply.header.status.exception.executor == "IndexExecutor"
    assert "'limit'" in reply.header.status.description


def test_a_target_that_matches_nothing_leaves_documents_alone(ask, raw):
    asked = raw.request("/encode", {"text": "a"})
    asked.header.target_executor = "nobody"
    reply = ask(asked)
    assert reply.header.status.code == 0
    assert not reply.data.docs.docs[0].HasField("embedding")
    assert not reply.routes[1].HasField("end_time")
    asked.header.target_executor = "enc.*"
    assert ask(asked).data.docs.docs[0].HasField("embedding")


def test_access_paths_choose_the_documents(ask, raw):
    form = {"text": "root", "chunks": [{"text": "chunk"}], "matches": [{"text": "match"}]}
    reply = ask(raw.request("/encode", form, access_paths="@c,m")).data.docs.docs[0]
    assert not reply.HasField("embedding")
    assert np.array_equal(raw.row(reply.chunks[0]), Features().encode_texts(["chunk"])[0])
    assert np.array_equal(raw.row(reply.matches[0]), Features().encode_texts(["match"])[0])
    assert (reply.chunks[0].granularity, reply.chunks[0].parent_id) == (1, reply.id)
    wrong = ask(raw.request("/encode", form, access_paths="@r[0]"))
    assert "access path '@r[0]'" in wrong.header.status.description


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"blob": b"no image"}, "no image that Pillow knows"),
        ({"uri": "http://127.0.0.1:9/x.png"}, "fetches none"),
        ({"uri": "/etc/hostname"}, "reads no files"),
        ({"uri": "file:///etc/hostname"}, "reads no files"),
    ],
)
def test_what_is_no_image_is_named(ask, raw, form, words):
    reply = ask(raw.request("/encode", {"text": "a"}, form))
    assert reply.header.status.exception.name == "ValueError"
    assert reply.header.status.exception.args[0].startswith("document 1: ")
    assert words in reply.header.status.description
