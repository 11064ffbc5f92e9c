"""One body over six schemes x {sync, async}: every row equals what the encoder computes directly."""

import asyncio
import base64
import pathlib

import numpy as np
import pytest
from casdk import (
    DataURIError,
    Document,
    DocumentArray,
    EmptyItemError,
    EncodeResult,
    FileMissingError,
    FileUnreadableError,
    Image,
    InputTypeError,
    NoEmbeddingError,
    NotAnImageError,
    RejectedError,
    Text,
)

TEXTS = ["she smiled, with pain", "hello world", "setup", "日本語の文章", "a photo of cat.png"]


@pytest.mark.tls
def test_texts(client, call, expected):
    rows = call(client, "encode", TEXTS)
    assert rows.shape == (len(TEXTS), 512)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(rows, expected(TEXTS))


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, dict.fromkeys, set, lambda x: (t for t in x)])
def test_any_iterable(client, call, expected, kind):
    content = kind(TEXTS)
    if isinstance(content, dict):
        content = content.keys()
    order = list(content) if isinstance(content, set) else TEXTS
    np.testing.assert_array_equal(call(client, "encode", content), expected(order))


def test_async_iterable(client, expected):
    async def texts():
        for text in TEXTS:
            await asyncio.sleep(0)
            yield text

    rows = asyncio.run(client.aencode(texts(), batch_size=2))
    np.testing.assert_array_equal(rows, expected(TEXTS))


@pytest.mark.tls
def test_images_of_every_kind(client, call, expected, images, web):
    png = images["png"]
    data = png.read_bytes()
    from PIL import Image as Pillow

    picture = Pillow.open(png)
    pixels = np.asarray(picture)
    content = [
        str(png),
        png,
        data,
        f"data:image/png;base64,{base64.b64encode(data).decode()}",
        png.as_uri(),
        web(png),
        Image(str(png)),
        Image(data),
        pixels,
        picture,
        str(images["jpeg"]),
        str(images["gif"]),
        str(images["webp"]),
    ]
    rows = call(client, "encode", content)
    np.testing.assert_array_equal(rows[:10], np.repeat(expected([png]), 10, axis=0))
    np.testing.assert_array_equal(rows[10:], expected([images["jpeg"], images["gif"], images["webp"]]))


def test_explicit_types_override_the_rule(client, call, expected, images, monkeypatch):
    monkeypatch.chdir(images["png"].parent)
    rows = call(client, "encode", [Text("apple.png"), Image(images["png"].name)])
    np.testing.assert_array_equal(rows[0], expected(["apple.png"])[0])
    np.testing.assert_array_equal(rows[1], expected([images["png"]])[0])


def documents(images):
    from PIL import Image as Pillow

    data = images["png"].read_bytes()
    return [
        Document(text="she smiled, with pain"),
        Document(uri=str(images["png"])),
        Document(blob=data),
        Document(tensor=np.asarray(Pillow.open(images["png"]))),
        Document(uri=f"data:image/png;base64,{base64.b64encode(data).decode()}"),
        Document(text="text wins", uri="nosuch.png"),
    ]


@pytest.mark.parametrize("kind", [list, DocumentArray, iter])
def test_documents_come_back_as_the_same_objects(client, call, expected, images, kind):
    sent = documents(images)
    before = [(d.id, d.text, d.uri, d.blob, d.mime_type) for d in sent]
    got = call(client, "encode", kind(sent), batch_size=2)
    assert type(got) is DocumentArray
    assert all(a is b for a, b in zip(got, sent, strict=True))
    assert [(d.id, d.text, d.uri, d.blob, d.mime_type) for d in sent] == before
    png = images["png"]
    wanted = expected(["she smiled, with pain", png, png, png, png, "text wins"])
    np.testing.assert_array_equal(got.embeddings, wanted)
    assert all(d.embedding.base is not None and d.embedding.base is sent[0].embedding.base for d in sent)


class OwnDocument(Document):
    """A program's own."""


@pytest.mark.parametrize("coalesce", [False, True])
def test_a_subclass_of_document_is_one(connect, call, expected, coalesce):
    sent = [OwnDocument(text="hello"), Document(text="world")]
    got = call(connect("grpc", coalesce=coalesce), "encode", sent)
    assert type(got) is DocumentArray
    assert all(a is b for a, b in zip(got, sent, strict=True))
    np.testing.assert_array_equal(got.embeddings, expected(["hello", "world"]))


def test_a_mixture_is_an_array(client, call, expected, images):
    rows = call(client, "encode", [Document(text="hello"), "world", images["png"]])
    np.testing.assert_array_equal(rows, expected(["hello", "world", images["png"]]))


def test_duplicate_ids_mix_and_lose_nothing(client, call, expected):
    sent = [Document(id="same", text=text) for text in TEXTS]
    got = call(client, "encode", sent, batch_size=3)
    np.testing.assert_array_equal(got.embeddings, expected(TEXTS))


def test_many_in_batches_of_seven(client, call, expected):
    texts = [f"text number {i % 120}" for i in range(480)]
    rows = call(client, "encode", iter(texts), batch_size=7)
    np.testing.assert_array_equal(rows, np.tile(expected(texts[:120]), (4, 1)))


@pytest.mark.parametrize(
    ("content", "kind"), [([], np.ndarray), (iter(()), np.ndarray), (DocumentArray(), DocumentArray)]
)
def test_nothing(client, call, content, kind):
    got = call(client, "encode", content)
    assert isinstance(got, kind)
    assert len(got) == 0
    if kind is np.ndarray:
        assert got.shape == (0, 0)


@pytest.mark.tls
def test_stream_yields_ordered_pieces(client, expected):
    texts = [f"text {i}" for i in range(100)]
    pieces = list(client.stream(iter(texts), batch_size=8))
    assert [len(piece) for piece in pieces] == [8] * 12 + [4]
    np.testing.assert_array_equal(np.concatenate(pieces), expected(texts))


def test_pieces_of_a_stream_name_their_bad_items(client, call, expected, images):
    """Those before the first row, in the middle and at the end, as `encode` names them."""
    sent = ["", "a", "b", Text(" "), images["png"], "missing.png", "c", None]
    pieces = list(call(client, "stream", iter(sent), batch_size=2, errors="return"))
    assert [piece.start for piece in pieces] == [0, 2, 4, 6]
    whole = call(client, "encode", sent, errors="return")
    np.testing.assert_array_equal(np.concatenate([piece.embeddings for piece in pieces]), whole.embeddings)
    errors = [error for piece in pieces for error in piece.errors]
    assert [(type(error), error.index, error.item) for error in errors] == [
        (type(error), error.index, error.item) for error in whole.errors
    ]
    assert [error.index for error in errors] == [0, 5, 7]
    assert [piece.ok for piece in pieces] == [False, True, False, False]
    assert pieces[2].to_arrow().is_valid().to_pylist() == [True, False]


def test_documents_of_a_stream_are_filled_and_the_bad_ones_named(client, call, expected):
    sent = [Document(text="a"), Document(), Document(text="b")]
    [piece] = call(client, "stream", sent, errors="return")
    np.testing.assert_array_equal(np.stack([sent[0].embedding, sent[2].embedding]), expected(["a", "b"]))
    assert sent[1].embedding is None
    [error] = piece.errors
    assert error.item is sent[1]


def test_stream_of_an_endless_generator_can_be_left(client, expected):
    from itertools import count

    stream = client.stream((f"text {i}" for i in count()), batch_size=4)
    np.testing.assert_array_equal(next(stream), expected([f"text {i}" for i in range(4)]))
    np.testing.assert_array_equal(next(stream), expected([f"text {i}" for i in range(4, 8)]))
    stream.close()
    assert client.encode(["still here"]).shape == (1, 512)


def test_model_name_selects_the_endpoint_and_parameters_stay(client, call, expected):
    parameters = {"model_name": "other", "note": np.float32(1.5)}
    first = call(client, "encode", ["hello"], parameters=parameters)
    second = call(client, "encode", ["hello"], parameters=parameters)
    assert parameters == {"model_name": "other", "note": np.float32(1.5)}
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, expected(["hello"]))


@pytest.mark.parametrize("value", [object(), {1, 2}, {"deep": [object()]}])
def test_a_parameter_that_cannot_travel_is_named(client, call, value):
    with pytest.raises(InputTypeError, match=r"parameters\.thing"):
        call(client, "encode", ["hello"], parameters={"thing": value})


def bad_items(tmp_path):
    (tmp_path / "text.png").write_bytes(b"this is no image")
    return [
        ("nosuch.png", FileMissingError, "nosuch.png"),
        (pathlib.Path("nosuch"), FileMissingError, "nosuch"),
        (tmp_path, FileUnreadableError, "directory"),
        (str(tmp_path / "text.png"), NotAnImageError, "text.png"),
        (b"this is no image", NotAnImageError, ""),
        ("data:,hello", NotAnImageError, ""),
        ("data:image/png;base64,a*b=", DataURIError, "23"),
        ("", EmptyItemError, "empty"),
        (Document(), EmptyItemError, "no"),
        (None, EmptyItemError, "None"),
        (42, TypeError, "int"),
        ("http://127.0.0.1:1/x.png", ConnectionError, "http://127.0.0.1:1/x.png"),
    ]


@pytest.mark.parametrize("case", range(12))
def test_a_bad_item_is_named(client, call, tmp_path, case):
    item, kind, says = bad_items(tmp_path)[case]
    with pytest.raises(kind) as caught:
        call(client, "encode", ["fine", "fine too", item])
    assert caught.value.index == 2
    assert str(caught.value).startswith("item 2: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("text", 3), ("uri", 3), ("blob", "x"), ("id", 3), ("weight", "x")])
def test_a_documents_field_of_another_type_is_named(connect, call, field, value):
    wrong = Document(text="a")
    if field in ("uri", "blob"):
        wrong.text = ""
    setattr(wrong, field, value)
    with pytest.raises(TypeError, match=f"^item 1: {field}: ") as caught:
        call(connect("grpc"), "encode", ["fine", wrong])
    assert caught.value.item is wrong


def test_unchecked_images_go_to_the_server(client, call):
    with pytest.raises(RejectedError) as caught:
        call(client, "encode", ["fine", b"this is no image"], check_images=False)
    assert caught.value.index == 1
    assert caught.value.cause.name


def test_errors_return(client, call, expected, tmp_path):
    bad = [item for item, _, _ in bad_items(tmp_path)]
    content = [x for item in bad for x in ("fine", item)]
    got = call(client, "encode", content, errors="return", batch_size=5)
    assert isinstance(got, EncodeResult)
    assert [error.index for error in got.errors] == list(range(1, len(content), 2))
    assert [type(e).__mro__[1].__name__ for e in got.errors]
    np.testing.assert_array_equal(got.embeddings[::2], np.repeat(expected(["fine"]), len(bad), axis=0))
    assert np.isnan(got.embeddings[1::2]).all()


def test_errors_skip(client, call, expected):
    rows = call(client, "encode", ["a", "nosuch.png", "b"], errors="skip")
    np.testing.assert_array_equal(rows, expected(["a", "b"]))


def test_errors_raise_carries_what_was_finished(client, call, expected):
    def texts():
        yield from ["a"] * 8
        yield "nosuch.png"

    with pytest.raises(FileMissingError) as caught:
        call(client, "encode", texts(), batch_size=4, prefetch=1)
    np.testing.assert_array_equal(caught.value.partial[:8], np.repeat(expected(["a"]), 8, axis=0))


def test_the_servers_bad_item_is_found(client, call, expected):
    content = [f"text {i}" for i in range(20)]
    content[13] = "!!raise at 13"
    with pytest.raises(RejectedError, match="boom") as caught:
        call(client, "encode", content)
    assert caught.value.index == 13
    assert caught.value.cause.name == "ValueError"
    got = call(client, "encode", content, errors="return", batch_size=8)
    assert [error.index for error in got.errors] == [13]
    good = [i for i in range(20) if i != 13]
    np.testing.assert_array_equal(got.embeddings[good], expected([content[i] for i in good]))


@pytest.mark.parametrize("magic", ["!!noemb", "!!drop"])
def test_a_row_the_server_leaves_out_is_named(client, call, expected, magic):
    with pytest.raises(NoEmbeddingError) as caught:
        call(client, "encode", ["a", "b", magic, "c"])
    assert caught.value.index == 2
    got = call(client, "encode", ["a", "b", magic, "c"], errors="return")
    np.testing.assert_array_equal(got.embeddings[[0, 1, 3]], expected(["a", "b", "c"]))


def test_unknown_keyword(client, call):
    with pytest.raises(TypeError, match="batchsize"):
        call(client, "encode", ["a"], batchsize=8)


@pytest.mark.parametrize("content", ["hello", b"hello", Document(text="x"), 7])
def test_one_item_is_refused_with_the_fix(client, call, content):
    with pytest.raises(InputTypeError, match="iterable of items"):
        call(client, "encode", content)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("prefetch", 0),
        ("timeout", 0),
        ("errors", "ignore"),
        ("dtype", "int8"),
        ("dtype", "nonsense"),
    ],
)
def test_bad_option(client, call, option, value):
    with pytest.raises(ValueError, match=option):
        call(client, "encode", ["a"], **{option: value})


def test_half_precision_and_out(client, call, expected):
    half = call(client, "encode", TEXTS, dtype="float16")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, expected(TEXTS).astype(np.float16))
    out = np.zeros((len(TEXTS) + 2, 512), np.float32)
    assert call(client, "encode", TEXTS, out=out) is out
    np.testing.assert_array_equal(out[:-2], expected(TEXTS))
    assert not out[-2:].any()


def test_the_users_own_exception_passes(client, call):
    class OwnError(Exception):
        pass

    def texts():
        yield "a"
        raise OwnError

    with pytest.raises(OwnError):
        call(client, "encode", texts())


ENDINGS = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, BaseException]


class Ends:
    """An iterator that raises after so many texts."""

    def __init__(self, ending, count=100):
        self.ending = ending
        self.left = count

    def __iter__(self):
        return self

    def __next__(self):
        self.left -= 1
        if self.left < 0:
            raise self.ending("mine")
        return "a"


@pytest.mark.parametrize("timeout", [None, 20])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("verb", ["encode", "stream"])
def test_what_ends_more_than_a_call_reaches_the_caller_and_ends_no_engine(connect, call, verb, ending, timeout):
    client = connect("grpc", timeout=timeout)
    with pytest.raises(ending) as caught:
        list(call(client, verb, Ends(ending), batch_size=4))
    assert type(caught.value) is ending
    assert client.encode(["still here"]).shape == (1, 512)


@pytest.mark.parametrize("timeout", [None, 20])
@pytest.mark.parametrize("ending", [KeyboardInterrupt, asyncio.CancelledError])
def test_so_does_what_an_async_iterable_raises(connect, ending, timeout):
    async def texts():
        for _ in range(100):
            yield "a"
        raise ending

    client = connect("grpc", timeout=timeout)
    with pytest.raises(ending):
        asyncio.run(client.aencode(texts(), batch_size=4))
    assert client.encode(["still here"]).shape == (1, 512)


@pytest.mark.parametrize("timeout", [None, 20])
def test_an_async_iterable_needs_the_async_twin(connect, timeout):
    async def texts():
        yield "a"

    with pytest.raises(InputTypeError, match="aencode"):
        connect("grpc", timeout=timeout).encode(texts())
