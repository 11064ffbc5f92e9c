"""Whatever a caller passes leads to a row or to an error of casdk's, on every scheme alike."""

import enum
import os
import pathlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from casdk import CasdkError, Client, Document, DocumentArray, Image, NamedScore, Text
from casdk._calls.options import CHECKS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

PLAIN = ("grpc", "http", "websocket")
SECURE = ("grpcs", "https", "websockets")
EXAMPLES = 1000 if os.environ.get("HYPOTHESIS_PROFILE") == "slow" else 25
Make = Callable[[], Any]
"""Makes a thing anew for each call: some are used up, some change."""


class OwnError(Exception):
    """What the caller's own code raises; it cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("not shown")

    __repr__ = __str__


HOOKS = (
    *("__array__", "__array_interface__", "__fspath__", "__iter__", "__len__", "__hash__", "__eq__", "__bool__"),
    *("__str__", "__repr__", "__float__", "__index__", "__bytes__", "__class__", "detach", "save", "shape", "dtype"),
)


def hostile(hooks: list[str], bases: tuple[type, ...], raised: type[BaseException]) -> Any:
    """An object whose methods and properties of these names raise."""

    own = type("Own", (OwnError, raised), {})

    def refuse(*_: object, **__: object) -> Any:
        raise own

    named = {
        name: property(refuse) if name in ("__class__", "__array_interface__", "shape", "dtype") else refuse
        for name in hooks
    }
    kind = type("Hostile", bases, named)
    return kind()


class Named(enum.Enum):
    ONE = 1


class Worded(enum.StrEnum):
    APPLE = "an apple"


class Elsewhere(os.PathLike):  # type: ignore[type-arg]
    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        return self.path


class Keyed(Mapping):  # type: ignore[type-arg]
    def __getitem__(self, key: object) -> Any:
        raise OwnError

    def __iter__(self) -> Any:
        return iter(["key"])

    def __len__(self) -> int:
        return 1


class Kind(Document):
    first: str = "first"


def half_closed() -> Any:
    made = (item for item in ("a", "b"))
    next(made)
    made.close()
    return made


def released() -> memoryview:
    view = memoryview(b"bytes")
    view.release()
    return view


def nested(depth: int) -> Document:
    document = Document(text="deepest")
    for _ in range(depth):
        document = Document(text="a", matches=[document], chunks=[Document(text="c")])
    return document


def self_made() -> Document:
    document = Document(text="a")
    document.matches = [document]
    return document


texts = st.text(st.characters(), max_size=8) | st.sampled_from(
    [
        "\ud800",
        "a\udcff",
        "",
        " ",
        "\0",
        "cat.png",
        "./x\0y",
        "data:,",
        "data:;base64,AA=A",
        "file:///no/such",
        "http://127.0.0.1:9/a",
    ]
)
numbers = st.sampled_from(
    [0, -1, 2**31, 2**63, 10**400, 0.5, float("nan"), float("inf"), True, None, 1j, np.float32("nan"), np.longdouble(1)]
)
dtypes = st.sampled_from(
    ["u1", "i1", "u2", "f4", "f8", "f2", "?", "c8", "O", "U3", "S3", "M8[s]", "f4,u1", ">f4", "V4"]
)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple) | st.sampled_from(
    [(2, 2, 3), (2, 2, 1), (2, 2, 4), (3, 2, 2)]
)


def array_of(dtype: str, shape: tuple[int, ...], how: str) -> Any:
    array = np.zeros(shape, dtype)
    if how == "turned":
        return array.T
    if how == "reversed":
        return array[::-1] if array.ndim else array
    if how == "wide":
        return np.broadcast_to(array, (2, *shape))
    if how == "masked":
        return np.ma.masked_array(array, mask=np.ones(shape, bool)) if array.dtype.names is None else np.ma.array(array)
    if how == "matrix" and array.ndim == 2 and array.dtype.names is None:
        return array.view(np.matrix)
    if how == "read-only":
        array.flags.writeable = False
    return array


arrays = st.builds(
    lambda *a: lambda: array_of(*a),
    dtypes,
    shapes,
    st.sampled_from(["plain", "turned", "reversed", "wide", "masked", "matrix", "read-only"]),
)
values: st.SearchStrategy[Make] = st.one_of(
    texts.map(lambda text: lambda: text),
    numbers.map(lambda number: lambda: number),
    arrays,
    st.binary(max_size=5).map(lambda data: lambda: data),
    st.sampled_from(
        [
            *(released, half_closed, dict, set, list, object, Keyed, lambda: [[]], lambda: {"key": {"key": [1, None]}}),
            *(lambda: bytearray(b"x"), lambda: memoryview(b"abcd")[::2], lambda: Named.ONE, lambda: Worded.APPLE),
            *(lambda: {1: 2}, lambda: {"key": "\ud800"}, lambda: {"\ud800": 1}, lambda: {"key": float("nan")}),
            *(lambda: {"key": np.float32(1)}, lambda: {"key": object()}, lambda: [1.0, "b"], lambda: NamedScore(1.0)),
            *(lambda: {"one": NamedScore(float("inf"))}, lambda: {"one": NamedScore("b")}, lambda: {"one": 3}),  # type: ignore[arg-type]
        ]
    ),
    st.builds(
        lambda *a: lambda: hostile(*a),
        st.lists(st.sampled_from([hook for hook in HOOKS if hook != "__eq__"]), min_size=1, max_size=3, unique=True),
        st.sampled_from([(), (Pillow.Image,)]),
        st.sampled_from([Exception, ValueError, TypeError, StopIteration, AttributeError, MemoryError]),
    ),
)


@st.composite
def documents(draw: st.DrawFn) -> Make:
    """Documents, two fields of which may hold anything."""
    kind = draw(st.sampled_from([Document, Document, Kind]))
    names = [name for name in Document.__struct_fields__ if name not in ("matches", "chunks")]
    odd = draw(st.dictionaries(st.sampled_from(names), values, max_size=2))
    return lambda: kind(**{"text": "a", **{name: make() for name, make in odd.items()}})


items: st.SearchStrategy[Make] = st.one_of(
    values,
    documents(),
    st.sampled_from(
        [
            *(lambda: nested(3), lambda: nested(70), self_made, lambda: Document(uri="no/such.png"), Document),
            *(lambda: Elsewhere("no/such.png"), lambda: Elsewhere(b"no/\xff.png"), lambda: Elsewhere(7)),
            *(lambda: Elsewhere("a\0b"), lambda: Elsewhere("\ud800"), lambda: pathlib.Path("/")),
            *(lambda: Text("cat.png"), lambda: Text("\ud800"), lambda: Image("a\0b"), lambda: Image("\ud800")),
            *(lambda: Image(b""), lambda: Image(np.zeros((0, 2, 3), np.uint8)), lambda: Image(Elsewhere(""))),
            *(lambda: Pillow.new("RGB", (2, 2)), lambda: Pillow.new("F", (2, 2)), lambda: Pillow.new("P", (0, 2))),
            *(
                lambda: Pillow.new("CMYK", (2, 2)),
                lambda: Document,
                lambda: DocumentArray(),
                lambda: DocumentArray([Document()]),
            ),
        ]
    ),
)


def outcome(act: Callable[[], Any]) -> Any:
    """What comes of a call: what each item came to, or the class that was raised."""
    try:
        found = act()
    except CasdkError as error:
        said = bool(str(error) and repr(error))  # both can be made, whatever the item is
        return type(error).__name__, getattr(error, "index", None), said
    except OwnError:
        return "the caller's own"
    if hasattr(found, "errors"):
        return [len(found.embeddings), *((error.index, type(error).__name__) for error in found.errors)]
    return len(list(found))


@pytest.fixture(
    scope="module",
    params=[PLAIN, pytest.param((PLAIN[0], *SECURE), marks=pytest.mark.twin)],
    ids=["plain", "secure"],
)
def clients(request: pytest.FixtureRequest, server: Any) -> Any:
    """One client of each plain scheme, or of each secure one and a plain one to compare them with."""
    from casdk import TLS

    made = {
        s: Client(server.address(s), tls=TLS(ca=server.ca) if s in SECURE else None, timeout=30) for s in request.param
    }
    yield made
    for client in made.values():
        client.close()


def agree(clients: dict[str, Client], act: Callable[[Client], Any]) -> None:
    """Assert that a call comes to the same on every scheme."""
    found = {scheme: outcome(partial(act, client)) for scheme, client in clients.items()}
    assert len({repr(one) for one in found.values()}) == 1, found


CALLS: dict[str, Callable[[Client, list[Any]], Any]] = {
    "encode": lambda client, content: client.encode(content, errors="return"),
    "encode, once": lambda client, content: client.encode(content, errors="return", dedupe=True, batch_size=2),
    "encode, or raise": lambda client, content: client.encode(content),
    "index": lambda client, content: client.index(content),
    "search": lambda client, content: client.search(content, limit=1),
    "rank": lambda client, content: client.rank(content),
    "stream": lambda client, content: list(client.stream(content, errors="skip")),
}


@pytest.mark.parametrize("verb", CALLS)
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(makes=st.lists(items, min_size=1, max_size=3), position=st.integers(0, 3))
def test_whatever_is_in_a_list(clients, verb, makes, position):
    def content():
        made = [make() for make in makes]
        made.insert(position, Document(text="fine", matches=[Document(text="m")]) if verb == "rank" else "fine")
        return made

    agree(clients, lambda client: CALLS[verb](client, content()))


@pytest.mark.parametrize("verb", ["encode", "index", "search"])
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(make=documents())
def test_whatever_a_document_holds(clients, verb, make):
    """By itself, so that it comes as far as the server if it can be sent."""
    agree(clients, lambda client: CALLS[verb](client, [make()]))


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    make=documents(),
    candidates=st.lists(documents(), min_size=1, max_size=3),
    source=st.sampled_from(["matches", "chunks"]),
)
def test_whatever_is_ranked(clients, make, candidates, source):
    def content():
        document = make()
        setattr(document, source, [made() for made in candidates])
        return [document]

    agree(clients, lambda client: client.rank(content(), source=source))


def of_length(length: Any) -> dict[str, Make]:
    """Contents of two texts that say that they have this length."""

    class Lying(list):  # type: ignore[type-arg]
        def __len__(self) -> Any:
            return length

    class Once:
        def __len__(self) -> Any:
            return length

        def __iter__(self) -> Any:
            return iter(["a", "b"])

    return {
        "a list that lies": lambda: Lying(["a", "b"]),
        "an iterable that lies": Once,
    }


def unlike_a_list() -> dict[str, Make]:
    """Contents that differ from a list in another way."""

    class Refusing:
        def __len__(self) -> int:
            raise TypeError("no length")

        def __iter__(self) -> Any:
            return iter(["a"])

    class Broken:
        def __iter__(self) -> Any:
            raise OwnError

    class Midway:
        def __iter__(self) -> Any:
            yield "a"
            raise OwnError

    return {
        "no length": Refusing,
        "broken": Broken,
        "broken midway": Midway,
        "half closed": half_closed,
        "keys": lambda: Keyed().keys(),
        "itself": lambda: (itself := [], itself.append(itself))[0],
    }


VERBS = ("encode", "index", "search", "stream")


@pytest.mark.parametrize("length", [0, 1, 3, 2**40, 2**62, 2**63, -1, 10**400, 0.5, None])
@pytest.mark.parametrize("kind", list(of_length(0)))
def test_whatever_a_content_says_of_its_length(clients, kind, length):
    for verb in VERBS:
        agree(clients, lambda client, verb=verb: CALLS[verb](client, of_length(length)[kind]()))


@pytest.mark.parametrize("kind", list(unlike_a_list()))
def test_a_content_that_is_unlike_a_list(clients, kind):
    for verb in VERBS:
        agree(clients, lambda client, verb=verb: CALLS[verb](client, unlike_a_list()[kind]()))


@settings(max_examples=2 * EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(content=values)
def test_whatever_is_given_in_place_of_a_content(clients, content):
    agree(clients, lambda client: client.encode(content(), errors="return"))


@settings(max_examples=2 * EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(name=st.sampled_from(sorted(CHECKS)), make=values)
def test_whatever_is_given_for_an_option(clients, name, make):
    agree(clients, lambda client: client.encode(["a"], **{name: make()}))
