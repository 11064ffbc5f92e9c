"""Items of odd classes, which lie, raise or have every attribute, get their row or fail alone."""

import array
import collections
import ctypes
import enum
import mmap
import os
import types
import weakref
from unittest.mock import AsyncMock, MagicMock, Mock, create_autospec

import numpy as np
import pytest
from casdk import Client, Document, DocumentArray, Image, InputTypeError, Text
from odd import PIXELS, OwnError, alike, turns_of
from PIL import Image as Pillow


@pytest.fixture(scope="module")
def turns(server, expected):
    yield from turns_of(lambda scheme: Client(server.address(scheme)), expected)


def with_hooks(base, note, *arguments, **hooks):
    """An object of a subclass, each hook of which says where it runs; an exception as a hook is raised."""

    def hook(answer):
        def run(*_, **__):
            note()
            if isinstance(answer, type) and issubclass(answer, BaseException):
                raise answer
            return answer

        return run

    named = {name: answer if isinstance(answer, property) else hook(answer) for name, answer in hooks.items()}
    return type("Odd", (base,), named)(*arguments)


def iterable(**named):
    """An iterable of one text, with more in its class."""
    return type("Odd", (), {"__iter__": lambda self: iter("b"), **named})()


class Proxy:
    """As werkzeug's `LocalProxy` does it: everything, the class too, is that of another object, if there is one."""

    __slots__ = ("_of",)

    def __init__(self, of):
        object.__setattr__(self, "_of", of)

    @property
    def __class__(self):
        return type(self._of())

    def __getattr__(self, name):
        return getattr(self._of(), name)

    def __len__(self):
        return len(self._of())

    def __iter__(self):
        return iter(self._of())

    def __str__(self):
        return str(self._of())


def unbound():
    raise RuntimeError("working outside of request context")


class Meta(type):
    """A metaclass that answers nothing but what the interpreter asks itself."""

    def __getattribute__(cls, name):
        raise OwnError(name)


class Nameless(type):
    __name__ = property(lambda cls: 7)


class Believer(type):
    def __instancecheck__(cls, instance):
        raise OwnError

    def __subclasscheck__(cls, subclass):
        raise OwnError


class Ordered(type):
    def mro(cls):
        return [cls, object]


def of_module(module):
    return type("Odd", (), {"__module__": module})()


def mapped(data=b"abc", *, closed=False):
    file = mmap.mmap(-1, len(data))
    file.write(data)
    if closed:
        file.close()
    return file


def dead():
    return weakref.proxy(type("Gone", (), {})())


def documented(**fields):
    return lambda note: Document(**{name: make(note) if callable(make) else make for name, make in fields.items()})


Named = collections.namedtuple("Named", "text uri")

TEXTS = {
    "str, __len__ lies": lambda note: with_hooks(str, note, "b", __len__=10**9),
    "str, __len__ raises": lambda note: with_hooks(str, note, "b", __len__=OwnError),
    "str, __iter__ raises": lambda note: with_hooks(str, note, "b", __iter__=OwnError),
    "str, __getitem__ raises": lambda note: with_hooks(str, note, "b", __getitem__=OwnError),
    "str, __contains__ raises": lambda note: with_hooks(str, note, "b", __contains__=OwnError),
    "str, encode lies": lambda note: with_hooks(str, note, "b", encode=b"other"),
    "str, __bool__ raises": lambda note: with_hooks(str, note, "b", __bool__=OwnError),
    "str, __str__ raises": lambda note: with_hooks(str, note, "b", __str__=OwnError, __repr__=OwnError),
    "str, __eq__ raises": lambda note: with_hooks(str, note, "b", __eq__=OwnError, __hash__=hash("b")),
    "str, __hash__ raises": lambda note: with_hooks(str, note, "b", __hash__=OwnError),
    "str, startswith raises": lambda note: with_hooks(str, note, "b", startswith=OwnError, lower=OwnError),
    "str, __class__ is bytes": lambda note: type("Odd", (str,), {"__class__": property(lambda _: (note(), bytes)[1])})(
        "b"
    ),
    "str, __fspath__ too": lambda note: with_hooks(str, note, "b", __fspath__="/no/such/file.png"),
    "str, __array__ too": lambda note: with_hooks(str, note, "b", __array__=PIXELS),
    "Text of a str, __len__ lies": lambda note: Text(with_hooks(str, note, "b", __len__=0)),
    "Document, text of a str that lies": lambda note: Document(text=with_hooks(str, note, "b", __len__=0)),
    "Document, text of a str that raises": lambda note: Document(
        text=with_hooks(str, note, "b", __str__=OwnError, __bool__=True)
    ),
    "str of numpy": lambda note: np.str_("b"),
    "a member of StrEnum": lambda note: enum.StrEnum("Odd", {"B": "b"}).B,
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_of_odd_classes_are_texts(turns, kind):
    assert alike(turns, lambda turn: turn.encode(["a", TEXTS[kind](turn.note), "c"])) == ["a", "b", "c"]
    hashed = "ItemTypeError" if kind == "str, __hash__ raises" else "b"
    found = alike(turns, lambda turn: turn.encode(["a", TEXTS[kind](turn.note), "c", "a"], dedupe=True))
    assert found == ["a", hashed, "c", "a"]


OTHERS = {
    # classes that lie
    "MagicMock": lambda note: MagicMock(),
    "AsyncMock": lambda note: AsyncMock(),
    "Mock of an ndarray": lambda note: Mock(spec=np.zeros((2, 2, 3), np.uint8)),
    "Mock of a Document": lambda note: Mock(spec=Document()),
    "Mock of a str": lambda note: Mock(spec="a"),
    "Mock of bytes": lambda note: MagicMock(spec=b"a"),
    "Mock of a picture": lambda note: Mock(spec=Pillow.new("RGB", (2, 2))),
    "Mock of a path": lambda note: create_autospec(os.PathLike, instance=True),
    "Mock of a Text": lambda note: Mock(spec=Text("a")),
    "Mock of an Image": lambda note: Mock(spec=Image("a")),
    "proxy of nothing": lambda note: Proxy(unbound),
    "proxy of a number": lambda note: Proxy(lambda: 1),
    "dead weak reference": lambda note: dead(),
    "metaclass that raises": lambda note: Meta("Odd", (), {})(),
    "metaclass without names": lambda note: Nameless("Odd", (), {})(),
    "metaclass that checks": lambda note: Believer("Odd", (), {})(),
    "metaclass of an order": lambda note: Ordered("Odd", (), {})(),
    "module is None": lambda note: of_module(None),
    "module is a number": lambda note: of_module(7),
    "module is bytes": lambda note: of_module(b"PIL."),
    "module lies": lambda note: of_module("PIL.Image"),
    "module is docarray's": lambda note: of_module("docarray.document"),
    "a class": lambda note: Document,
    "a module": lambda note: types,
    "a function": lambda note: with_hooks,
    "a coroutine function": lambda note: turned,
    "a type that is a mapping": lambda note: types.MappingProxyType({"text": "b"}),
    "a namedtuple": lambda note: Named("b", ""),
    "UserString": lambda note: collections.UserString("b"),
    "SimpleNamespace": lambda note: types.SimpleNamespace(text="b", uri="", blob=b"", tensor=None),
    "Ellipsis": lambda note: ...,
    "NotImplemented": lambda note: NotImplemented,
    "an exception": lambda note: ValueError("b"),
    # buffers that are no bytes
    "mmap": lambda note: mapped(),
    "closed mmap": lambda note: mapped(closed=True),
    "array.array": lambda note: array.array("B", b"abc"),
    "a ctypes array": lambda note: (ctypes.c_char * 3)(*b"abc"),
    "a list of a list": lambda note: [["b"]],
    "int that says it is a str": lambda note: type("Odd", (int,), {"__class__": property(lambda _: str)})(3),
    "float": lambda note: 1.5,
    "complex": lambda note: 1j,
    "a range": lambda note: range(3),
    "a slice": lambda note: slice(3),
    "a generator": lambda note: (text for text in "b"),
    "a DocumentArray": lambda note: DocumentArray([Document(text="b")]),
}


async def turned():
    """Never awaited."""


PATHS = ("MagicMock", "AsyncMock", "Mock of a path")
"""They answer `os.fspath`, so they are paths."""


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_item_is_the_error_of_its_item(turns, kind):
    becomes = "FileMissingError" if kind in PATHS else "ItemTypeError"
    make = OTHERS[kind]
    assert alike(turns, lambda turn: turn.encode(["a", make(turn.note), "c"])) == ["a", becomes, "c"]
    again = alike(turns, lambda turn: turn.encode(["a", make(turn.note), "c", "a"], dedupe=True))
    assert again == ["a", becomes, "c", "a"]
    try:
        image = Image(make(lambda: None))
    except InputTypeError:
        return
    assert alike(turns, lambda turn: turn.encode(["a", image, "c"])) == ["a", becomes, "c"]


@pytest.mark.parametrize("verb", ["index", "search", "rank"])
@pytest.mark.parametrize("kind", OTHERS)
def test_of_every_verb(turns, kind, verb):
    good = Document(text="a", matches=[Document(text="b")])
    found = alike(turns, lambda turn: turn.call(verb, [good, OTHERS[kind](turn.note)]))
    unlike = "InputTypeError" if verb == "rank" and kind in PATHS else ("FileMissingError", 1)
    assert found == (unlike if kind in PATHS else ("ItemTypeError", 1))


CONTENTS = {
    "MagicMock": lambda note: MagicMock(),
    "AsyncMock": lambda note: AsyncMock(),
    "Mock of a list": lambda note: Mock(spec=["a"]),
    "Mock of an ndarray": lambda note: MagicMock(spec=np.zeros((2, 2), np.uint8)),
    "proxy of nothing": lambda note: Proxy(unbound),
    "dead weak reference": lambda note: dead(),
    "metaclass that raises": lambda note: Meta("Odd", (), {"__iter__": lambda self: iter("b")})(),
    "metaclass that checks": lambda note: Believer("Odd", (), {"__iter__": lambda self: iter("b")})(),
    "metaclass of an order": lambda note: Ordered("Odd", (), {"__iter__": lambda self: iter("b")})(),
    "module is None": lambda note: of_module(None),
    "module is a number": lambda note: of_module(7),
    "module is bytes": lambda note: of_module(b"PIL."),
    "ndim raises": lambda note: iterable(ndim=property(lambda _: 1 / 0)),
    "ndim is an array": lambda note: iterable(ndim=np.zeros(3)),
    "ndim without dtype": lambda note: iterable(ndim=3),
    "columns raises": lambda note: iterable(columns=property(lambda _: 1 / 0), __arrow_c_stream__=None),
    "__arrow_c_stream__ is None": lambda note: type(
        "Odd", (), {"__arrow_c_stream__": None, "__iter__": lambda _: iter("b")}
    )(),
    "__arrow_c_stream__ raises": lambda note: with_hooks(object, note, __arrow_c_stream__=OwnError, __iter__=iter("b")),
    "__arrow_c_array__ lies": lambda note: with_hooks(object, note, __arrow_c_array__=(1, 2), __iter__=iter("b")),
    "__iter__ is None": lambda note: type("Odd", (), {"__iter__": None})(),
    "__iter__ returns no iterator": lambda note: with_hooks(object, note, __iter__=5),
    "__iter__ returns itself, without __next__": lambda note: type("Odd", (), {"__iter__": lambda self: self})(),
    "__aiter__ returns no iterator": lambda note: with_hooks(object, note, __aiter__=5),
    "__iter__ on the instance only": lambda note: types.SimpleNamespace(__iter__=lambda: iter("b")),
    "namedtuple": lambda note: Named("a", "b"),
    "mapping proxy": lambda note: types.MappingProxyType({"b": 1}),
    "closed mmap": lambda note: mapped(closed=True),
    "mmap": lambda note: mapped(),
    "a class": lambda note: list,
    "an Enum": lambda note: enum.StrEnum("Odd", {"B": "b"}),
}

READ = {
    **{kind: ["b"] for kind in ("metaclass that checks", "metaclass of an order", "an Enum")},
    "namedtuple": ["a", "b"],
    "Mock of an ndarray": [],
}


@pytest.mark.parametrize("reader", ["caller", "thread"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_odd_contents_are_read_or_refused(turns, kind, reader):
    if kind.startswith("__aiter__") and reader == "thread":
        return
    found = alike(turns, lambda turn: turn.encode(CONTENTS[kind](turn.note), reader=reader))
    assert found == READ.get(kind, "InputTypeError")
    found = alike(turns, lambda turn: turn.call("stream", CONTENTS[kind](turn.note), reader=reader) is not None)
    assert found == (True if kind in READ else "InputTypeError")


@pytest.mark.parametrize("raised", [OwnError, ValueError, TypeError])
def test_what_a_contents_own_iter_raises_passes(turns, raised):
    """As it would from a loop over it."""

    class Content:
        def __iter__(self):
            raise raised("mine")

    for turn in turns:
        for reader in ("caller", "thread"):
            with pytest.raises(raised, match="mine"):
                turn.encode(Content(), reader=reader)


def test_an_image_of_a_picture_does_not_load_it():
    """It may be made on a loop, so the picture is not read there, but where it is encoded."""

    class Picture(Pillow.Image):
        @property
        def __array_interface__(self):
            raise AssertionError("loaded")

        def load(self):
            raise AssertionError("loaded")

    assert isinstance(Image(Picture()).source, Picture)
    with pytest.raises(InputTypeError, match="RuntimeError: working outside of request context"):
        Image(Proxy(unbound))
