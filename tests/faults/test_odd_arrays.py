"""Arrays, buffers, pictures and files of odd kinds get their row or fail alone."""

import mmap
import os
import pathlib
import socket
import tempfile
import threading
from io import BytesIO

import numpy as np
import pytest
from casdk import Client, Document, Image, InputTypeError
from numpy.lib.stride_tricks import as_strided
from odd import PIXELS, OwnError, alike, turns_of
from PIL import Image as Pillow

LARGE, TYPE, EMPTY, NONE = "ItemTooLargeError", "ItemTypeError", "EmptyItemError", "NotAnImageError"
FILE, MISSING, ROW = "FileUnreadableError", "FileMissingError", "another row"


@pytest.fixture(scope="module")
def turns(server, expected):
    yield from turns_of(lambda scheme: Client(server.address(scheme)), expected)


def png(image=None):
    file = BytesIO()
    (image or Pillow.fromarray(PIXELS)).save(file, "PNG")
    return file.getvalue()


PNG = png()


def of_subclass(**named):
    return PIXELS.view(type("Odd", (np.ndarray,), named))


def raising(*_, **__):
    raise OwnError


def converting(answer, **named):
    return type("Odd", (), {"__array__": lambda *_, **__: answer, **named})()


def interface(answer):
    return type("Odd", (), {"__array_interface__": answer})()


def finalized():
    kind = type("Odd", (np.ndarray,), {})
    array = PIXELS.view(kind)
    kind.__array_finalize__ = raising
    return array


def mapped():
    file = mmap.mmap(-1, len(PNG))
    file.write(PNG)
    return memoryview(file)


def on_disk():
    with tempfile.TemporaryFile() as file:
        array = np.memmap(file, np.uint8, "w+", shape=PIXELS.shape)
    array[:] = PIXELS
    return array


def itself():
    return type("Odd", (), {"__array__": lambda self, *_, **__: self})()


BYTES = {"typestr": "|u1", "version": 3}
ARRAYS = {
    "object": (lambda: PIXELS.astype(object), TYPE),
    "structured": (lambda: np.zeros((2, 2), "u1,u1,u1"), TYPE),
    "times": (lambda: np.zeros((2, 2, 3), "M8[s]"), TYPE),
    "complex": (lambda: PIXELS.astype("c16"), TYPE),
    "big-endian": (lambda: PIXELS.astype(">u2"), TYPE),
    "float16": (lambda: PIXELS.astype("f2"), TYPE),
    "bool": (lambda: PIXELS.astype(bool), TYPE),
    "negative strides": (lambda: PIXELS[::-1, ::-1][::-1, ::-1], "picture"),
    "fortran": (lambda: np.asfortranarray(PIXELS), "picture"),
    "channels moved twice": (lambda: PIXELS.transpose(2, 0, 1).transpose(1, 2, 0), "picture"),
    "without dimensions": (lambda: np.array(5, np.uint8), TYPE),
    "an object with a text, without dimensions": (lambda: np.array("b", object), TYPE),
    "3 TB by broadcasting": (lambda: np.broadcast_to(np.uint8(1), (10**6, 10**6, 3)), LARGE),
    "2 EB by broadcasting": (lambda: np.broadcast_to(np.uint8(1), (2**30, 2**31, 1)), LARGE),
    "strided": (lambda: as_strided(PIXELS, (2, 3, 3), (9, 3, 1)), "picture"),
    "the masked constant": (lambda: np.ma.masked, TYPE),
    "masked": (lambda: np.ma.masked_array(PIXELS, mask=False), "picture"),
    "a matrix": (lambda: PIXELS[0].view(np.matrix), TYPE),
    "on disk": (on_disk, "picture"),
    "nbytes raises": (lambda: of_subclass(nbytes=property(raising)), TYPE),
    "nbytes lies": (lambda: of_subclass(nbytes=10**12), LARGE),
    "shape lies": (lambda: of_subclass(shape=(9, 9, 3)), "picture"),
    "dtype lies": (lambda: of_subclass(dtype=np.dtype("f4")), "picture"),
    "__array__ of a subclass lies": (lambda: of_subclass(__array__=lambda *_: np.zeros(3)), "picture"),
    "__class__ lies": (lambda: of_subclass(__class__=str), TYPE),
    "__array_finalize__ raises": (finalized, "picture"),
    "__getattribute__ raises": (lambda: of_subclass(__getattribute__=raising), TYPE),
    "no ufunc": (lambda: of_subclass(__array_ufunc__=None), "picture"),
    "__eq__ raises": (lambda: of_subclass(__eq__=raising), "picture"),
    "__array__ returns a list": (lambda: converting([[1]]), TYPE),
    "__array__ returns None": (lambda: converting(None), TYPE),
    "__array__ returns itself": (itself, TYPE),
    "__array__ is no method": (lambda: type("Odd", (), {"__array__": 5})(), TYPE),
    "__array__ takes no arguments": (lambda: type("Odd", (), {"__array__": lambda self: PIXELS})(), "picture"),
    "an interface of nothing": (lambda: interface({}), TYPE),
    "an interface that is no dict": (lambda: interface(5), TYPE),
    "a null pointer": (lambda: interface({**BYTES, "shape": (2, 2, 3), "data": (0, True)}), TYPE),
    "a negative shape": (lambda: interface({**BYTES, "shape": (-2, 2, 3), "data": b"1"}), TYPE),
    "__dlpack__ raises": (lambda: type("Odd", (), {"__dlpack__": raising})(), TYPE),
    "__array_struct__ lies": (lambda: type("Odd", (), {"__array_struct__": 5})(), TYPE),
    "no CPU": (lambda: converting(PIXELS, detach=lambda self: self, cpu=lambda self: None), TYPE),
    "detach is no method": (lambda: converting(PIXELS, detach=5), TYPE),
    "a view of an array": (lambda: memoryview(PIXELS), NONE),
    "a view of a file": (lambda: memoryview(PNG), "picture"),
    "a view with gaps": (lambda: memoryview(bytes(byte for one in PNG for byte in (one, 0)))[::2], "picture"),
    "a view of floats": (lambda: memoryview(np.ones(3, "f4")), NONE),
    "a view without dimensions": (lambda: memoryview(np.array(5, np.uint8)), NONE),
    "a view of a mapped file": (mapped, "picture"),
    "bytes that say they are none": (lambda: type("Odd", (bytes,), {"__len__": lambda _: 0})(PNG), "picture"),
    "bytes that say they are many": (lambda: type("Odd", (bytearray,), {"__len__": lambda _: 10**12})(PNG), "picture"),
    "an empty view": (lambda: memoryview(b""), EMPTY),
}
NO_TENSORS = {
    "dtype": ["object", "structured", "times", "complex", "big-endian", "bool"],
    "dimensions": ["without dimensions", "an object with a text, without dimensions", "the masked constant"],
    "no array": ["__array__ returns a list", "__array__ returns None", "__array__ returns itself", "a null pointer"],
}
REFUSED = [kind for kinds in NO_TENSORS.values() for kind in kinds]


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays(turns, kind):
    make, becomes = ARRAYS[kind]
    assert alike(turns, lambda turn: turn.encode(["a", make(), "c"])) == ["a", becomes, "c"]
    try:
        image = Image(make())
    except InputTypeError:
        assert becomes == TYPE or kind == "dtype lies"
    else:
        assert alike(turns, lambda turn: turn.encode(["a", image, "c"])) == ["a", becomes, "c"]


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("verb", ["encode", "index", "search"])
def test_what_no_message_can_hold(turns, kind, verb):
    """On every scheme alike, in the content and in what travels beside it."""
    make = ARRAYS[kind][0]
    assert alike(turns, lambda turn: turn.call(verb, ["a", Document(tensor=make())])) == (TYPE, 1)
    if verb == "index":
        assert alike(turns, lambda turn: turn.call(verb, ["a", Document(text="b", embedding=make())])) == (TYPE, 1)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_numbers_that_json_does_not_have(turns, number, dtype):
    bad = np.full((2, 3, 3), number, dtype)
    assert alike(turns, lambda turn: turn.encode(["a", Document(tensor=bad), "c"])) == ["a", TYPE, "c"]
    assert alike(turns, lambda turn: turn.call("index", ["a", Document(text="b", embedding=bad)])) == (TYPE, 1)
    beside = Document(text="b", embedding=bad)  # it does not travel
    assert alike(turns, lambda turn: turn.encode(["a", beside, "c"])) == ["a", "b", "c"]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["3 TB by broadcasting", "2 EB by broadcasting"])
def test_an_embedding_over_the_limit_is_not_copied(turns, kind, nested):
    document = Document(text="b", embedding=ARRAYS[kind][0]())
    document = Document(text="b", chunks=[document]) if nested else document
    assert alike(turns, lambda turn: turn.call("index", ["a", document])) == (LARGE, 1)


def endless(self, file, *_, **__):
    while True:
        file.write(bytes(10**6))


def cut_back(self, file, *_, **__):
    file.write(PNG)
    file.seek(0)
    file.truncate(4)


def with_info(**info):
    image = Pillow.fromarray(PIXELS)
    image.info.update(info)
    return image


def closed():
    image = Pillow.fromarray(PIXELS)
    image.close()
    return image


def animated(at=0):
    file = BytesIO()
    Pillow.new("RGB", (4, 4)).save(file, "GIF", save_all=True, append_images=[Pillow.new("RGB", (4, 4), (9, 200, 3))])
    image = Pillow.open(file)
    image.seek(at)
    return image


PICTURES = {
    "closed": (closed, TYPE),
    "cut off, and not loaded yet": (lambda: Pillow.open(BytesIO(PNG[:-30])), TYPE),
    **{mode: ((lambda mode=mode: Pillow.new(mode, (2, 2))), ROW) for mode in ("1", "L", "P", "LA", "I;16", "I;16B")},
    **{mode: ((lambda mode=mode: Pillow.new(mode, (2, 2))), TYPE) for mode in ("CMYK", "YCbCr", "HSV", "F", "PA")},
    "very high": (lambda: Pillow.new("RGB", (1, 100_000)), ROW),
    "very wide": (lambda: Pillow.new("RGB", (100_000, 1)), ROW),
    "no width": (lambda: Pillow.new("RGB", (0, 5)), EMPTY),
    "no pixels": (lambda: Pillow.new("L", (0, 0)), EMPTY),
    "animated": (animated, ROW),
    "another frame": (lambda: animated(1), ROW),
    "a profile that is a number": (lambda: with_info(icc_profile=5), TYPE),
    "an odd transparency": (lambda: with_info(transparency=object()), TYPE),
    "an odd gamma": (lambda: with_info(gamma=object()), "picture"),
    "blank": (Pillow.Image, EMPTY),
    "its core": (lambda: Pillow.fromarray(PIXELS).im, TYPE),
}
SAVING = {
    "nothing": (lambda *_, **__: None, EMPTY),
    "no image": (lambda self, file, *_, **__: file.write(b"no image"), NONE),
    "for ever": (endless, LARGE),
    "a text": (lambda self, file, *_, **__: file.write("text"), TYPE),
    "and closes": (lambda self, file, *_, **__: file.close(), TYPE),
    "floats": (lambda self, file, *_, **__: file.write(memoryview(np.ones(3, "f4"))), NONE),
    "and cuts back": (cut_back, NONE),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures(turns, kind):
    make, becomes = PICTURES[kind]
    assert alike(turns, lambda turn: turn.encode(["a", make(), "c"])) == ["a", becomes, "c"]


@pytest.mark.parametrize("kind", SAVING)
def test_pictures_that_save_in_a_way_of_their_own(turns, kind):
    save, becomes = SAVING[kind]

    def make(turn):
        image = type("Odd", (Pillow.Image,), {"save": lambda *a, **o: (turn.note(), save(*a, **o))})()
        image.__dict__.update(Pillow.fromarray(PIXELS).__dict__)
        return image

    assert alike(turns, lambda turn: turn.encode(["a", make(turn), "c"])) == ["a", becomes, "c"]


class Named(os.PathLike):
    def __init__(self, name):
        self.name = name

    def __fspath__(self):
        return self.name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for name in ("ok.png", "new\nline.png", "a\tb.png", "x" * 200 + ".png"):
        (folder / name).write_bytes(PNG)
    pathlib.Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")).write_bytes(PNG)
    os.mkfifo(folder / "fifo.png")
    (folder / "dir.png").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "one.png").symlink_to(folder / "two.png")
    (folder / "two.png").symlink_to(folder / "one.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "link.png").symlink_to(folder / "ok.png")
    (folder / "empty.png").touch()
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(10**12)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "sock.png"))
    return folder


FILES = {
    "fifo.png": FILE,
    "dir.png": FILE,
    "loop.png": FILE,
    "one.png": FILE,
    "zero.png": FILE,
    "sock.png": FILE,
    "empty.png": EMPTY,
    "sparse.png": LARGE,
    "ok.png/below.png": MISSING,
    "x" * 300 + ".png": FILE,
    "link.png": "picture",
    "new\nline.png": "picture",
    "a\tb.png": "picture",
    "x" * 200 + ".png": "picture",
    "dir.png/../ok.png": "picture",
    "\udcff\udcfe.png": "picture",
}
SYSTEM = ["/dev/zero", "/dev/null", "/dev/full", "/dev/tty", "/dev/random", "/dev/stdin", "/"]


@pytest.mark.parametrize("name", FILES)
def test_files(turns, folder, name):
    path = f"{folder}/{name}"
    given = [path, pathlib.Path(path), Named(path), Named(os.fsencode(path)), Image(path), Document(uri=path)]
    assert alike(turns, lambda turn: turn.encode(["a", *given, "c"])) == ["a", *[FILES[name]] * 6, "c"]


@pytest.mark.parametrize("name", SYSTEM)
def test_files_of_the_system(turns, name):
    given = [pathlib.Path(name), Image(name), Document(uri=name)]
    assert alike(turns, lambda turn: turn.encode(["a", *given, "c"])) == ["a", *[FILE] * 3, "c"]


@pytest.mark.parametrize("name", [None, 3, bytearray(b"x"), ["x"]])
def test_paths_that_have_no_name(turns, name):
    found = alike(turns, lambda turn: turn.encode(["a", Named(name), Image(Named(name)), "c"]))
    assert found == ["a", TYPE, TYPE, "c"]


def test_a_path_whose_name_has_a_class_of_its_own(turns, folder):
    path = str(folder / "ok.png")
    text = type("Odd", (str,), {"__str__": lambda self: "other", "encode": raising})(path)
    data = type("Odd", (bytes,), {"decode": raising})(os.fsencode(path))
    with os.scandir(folder) as entries:
        entry = next(entry for entry in entries if entry.name == "ok.png")
    found = alike(turns, lambda turn: turn.encode(["a", Named(text), Named(data), Named(Named(path)), entry]))
    assert found == ["a", "picture", TYPE, TYPE, "picture"]


def test_a_file_that_changes_while_it_is_read(turns, folder):
    """Longer and shorter in turns, with what no picture needs: it ends in its row, or in the error of its item."""
    path, over = folder / "changing.png", threading.Event()
    path.write_bytes(PNG)

    def change():
        with path.open("r+b") as file:
            while not over.is_set():
                file.truncate(len(PNG) + 100_000)
                file.truncate(len(PNG))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for turn in turns:
            for _ in range(10):
                first, second, third = turn.encode(["a", path, "c"])
                assert (first, third) == ("a", "c")
                assert second in ("picture", FILE)
    finally:
        over.set()
        thread.join()


def test_an_array_that_changes_while_it_is_encoded(turns):
    """And a buffer that is resized: Python may raise an error there, and all other items have their rows."""
    pixels, data, over, raised = PIXELS.copy(), bytearray(PNG), threading.Event(), []

    def change():
        while not over.is_set():
            pixels[:] = ~pixels
            try:
                data.extend(bytes(1000))
                del data[len(PNG) :]
            except BufferError as error:
                raised.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for turn in turns:
            for _ in range(10):
                first, _, second, third = turn.encode(["a", pixels, data, "c"])
                assert (first, second, third) == ("a", "picture", "c")
    finally:
        over.set()
        thread.join()
