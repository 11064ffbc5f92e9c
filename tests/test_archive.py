"""Documents saved to a file come back unchanged, and a broken file is refused in little memory."""

import errno
import resource
import tracemalloc

import msgspec
import numpy as np
import pytest
from casdk.documents import Document, DocumentArray, NamedScore
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

arrays = st.none() | hnp.arrays(
    hnp.floating_dtypes(endianness="<") | hnp.integer_dtypes() | hnp.complex_number_dtypes() | st.just(np.dtype("U3")),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
)
leaves = st.builds(
    Document,
    blob=st.binary(),
    embedding=arrays,
    tags=st.dictionaries(st.text(), st.binary() | st.floats(allow_nan=False)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("archive")


@given(
    st.lists(
        st.builds(Document, tensor=arrays, weight=st.floats(allow_nan=False), matches=st.lists(leaves, max_size=2)),
        max_size=3,
    )
)
def test_round_trip(folder, content):
    path = folder / "documents.bin"
    DocumentArray(content).save(path)
    loaded = DocumentArray.load(path)
    assert type(loaded) is DocumentArray
    assert loaded == content
    assert [item.name for item in folder.iterdir()] == ["documents.bin"]


def test_everything_travels(tmp_path):
    document = Document(
        text="t",
        uri="u",
        blob=b"\x00\xff",
        tensor=np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
        embedding=np.array([np.nan, np.inf, -0.0], np.float32),
        matches=[Document(text="m", chunks=[Document(text="c")])],
        scores={"cosine": NamedScore(float("inf"), "op", "words", "ref")},
        evaluations={"e": NamedScore(-1.0)},
        tags={"n": None, "deep": [{"a": 1}], "b": b"\x01"},
        mime_type="image/png",
        parent_id="p",
        granularity=1,
        adjacency=2,
        weight=0.5,
        offset=1.5,
        location=[1.0, 2.0],
        modality="image",
    )
    DocumentArray([document]).save(str(tmp_path / "one"))
    assert DocumentArray.load(str(tmp_path / "one")) == [document]


def test_loaded_arrays_can_be_changed(tmp_path):
    documents = DocumentArray([Document(embedding=np.zeros(3, np.float32))])
    documents.save(tmp_path / "a")
    loaded = DocumentArray.load(tmp_path / "a")
    loaded[0].embedding[:] = 1
    assert loaded.embeddings.tolist() == [[1, 1, 1]]


def test_a_view_is_saved_without_its_matrix(tmp_path):
    matrix = np.zeros((10_000, 8), np.float32)
    DocumentArray([Document(embedding=matrix[5])]).save(tmp_path / "a")
    assert (tmp_path / "a").stat().st_size < 300


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    DocumentArray([Document(id="old")]).save(path)
    with pytest.raises(TypeError, match="type object cannot be written"):
        DocumentArray([Document(tags={"a": object()})]).save(path)
    assert DocumentArray.load(path)[0].id == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    """A full disk, as far as this process can tell, and a directory that is in the way."""
    path = tmp_path / "a"
    DocumentArray([Document(id="old")]).save(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            DocumentArray([Document(text="x" * 2000)]).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert DocumentArray.load(path)[0].id == "old"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        DocumentArray().save(tmp_path / "folder")
    assert caught.value.filename == str(tmp_path / "folder")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "folder"]


def packed(**changes):
    fields = {"format": "casdk.DocumentArray", "version": 1, "documents": [{"text": "x"}]}
    return msgspec.msgpack.encode(fields | changes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no documents of casdk"),
        (b"\xff\xff", "holds no documents of casdk"),
        (b"PK\x03\x04", "holds no documents of casdk"),
        (packed()[:-2], "holds no documents of casdk"),
        (packed(format="other"), "holds no documents of casdk"),
        (packed(version=2), r"written by a later casdk \(version 2 of the format\)"),
        (
            packed(documents=[{"text": 1}]),
            r"holds no documents of casdk: Expected `str`, got `int` - at `\$\[0\]\.text`",
        ),
        (packed(documents=[{"embedding": {"dtype": "|O", "shape": [1], "data": b"12345678"}}]), "holds no documents"),
        (packed(documents=[{"embedding": {"dtype": "<f4", "shape": [2**40], "data": b"1234"}}]), "cannot reshape"),
        (packed(documents=[{"embedding": {"dtype": "nonsense", "shape": [1], "data": b"1234"}}]), "holds no documents"),
    ],
)
def test_other_files(tmp_path, data, message):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        DocumentArray.load(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value)


def test_as_written(tmp_path):
    (tmp_path / "a").write_bytes(packed())
    assert DocumentArray.load(tmp_path / "a").texts == ["x"]


@given(st.binary(max_size=64))
def test_garbage(folder, data):
    path = folder / "garbage"
    path.write_bytes(data)
    try:
        with pytest.raises(ValueError, match="garbage"):
            DocumentArray.load(path)
    finally:
        path.unlink()


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        DocumentArray.load(tmp_path / "nosuch")
    with pytest.raises(FileNotFoundError) as caught:
        DocumentArray().save(tmp_path / "nosuch" / "a")
    assert caught.value.filename == str(tmp_path / "nosuch" / "a")


def _file(path, documents):
    path.write_bytes(
        msgspec.msgpack.encode({"format": "casdk.DocumentArray", "version": 1, "documents": msgspec.Raw(documents)})
    )
    return path


def _array(**array):
    return msgspec.msgpack.encode([{"embedding": {"dtype": "<f4", "shape": [1], "data": b"abcd"} | array}])


LIES = {
    "a shape of a terabyte": _array(shape=[2**40]),
    "a shape of more than there is": _array(shape=[2**62, 4]),
    "a hundred axes": _array(shape=[1] * 100),
    "objects": _array(dtype="O", data=bytes(8)),
    "a dtype of many": _array(dtype="i4," * 1000),
    "a dtype of an array": _array(dtype="(99999999,99999)f4"),
    "matches in matches": b"\x91" + b"\x81\xa7matches\x91" * 20_000 + b"\x80",
    "4 billion documents": b"\xdd\xff\xff\xff\xff",
    "4 billion fields": b"\x91\xdf\xff\xff\xff\xff",
    "a blob of 4 GB": b"\x91\x81\xa4blob\xc6\xff\xff\xff\xffab",
}


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused_in_little_memory(tmp_path, name):
    path = _file(tmp_path / "a", LIES[name])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="holds no documents of casdk"):
            DocumentArray.load(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
