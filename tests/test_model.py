"""A Document and an array of them, against what Python and NumPy do."""

import copy
import json
import operator
import pickle

import numpy as np
import pytest
from casdk.documents import Document, DocumentArray, NamedScore
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

TEXTS = ["a", "b", "c", "d"]


def documents(*texts):
    return DocumentArray([Document(id=f"id-{text}", text=text) for text in texts])


@pytest.fixture
def four():
    return documents(*TEXTS)


arrays = st.one_of(
    st.none(),
    hnp.arrays(st.sampled_from(["<f4", "<f8", "<f2", "|u1", "<i8", "|b1"]), hnp.array_shapes(min_side=0, max_side=4)),
)
words = st.text(max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
jsons = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
)
scores = st.dictionaries(words, st.builds(NamedScore, numbers, words, words, words), max_size=2)


def made(nested):
    return st.builds(
        Document,
        text=words,
        uri=words,
        blob=st.binary(max_size=8),
        tensor=arrays,
        embedding=arrays,
        matches=nested,
        chunks=nested,
        scores=scores,
        evaluations=scores,
        tags=st.dictionaries(words, jsons, max_size=3),
        mime_type=words,
        parent_id=words,
        granularity=st.integers(0, 2**31),
        adjacency=st.integers(0, 2**31),
        weight=numbers,
        offset=numbers,
        location=st.lists(numbers, max_size=3),
        modality=words,
    )


trees = made(st.lists(made(st.just([])), max_size=2))


class TestDocument:
    def test_empty(self):
        document = Document()
        assert len(document.id) == 32
        assert int(document.id, 16) >= 0
        assert document.id != Document().id
        shown = {name: getattr(document, name) for name in Document.__struct_fields__[1:]}
        assert shown == {
            "text": "",
            "uri": "",
            "blob": b"",
            "tensor": None,
            "embedding": None,
            "matches": [],
            "chunks": [],
            "scores": {},
            "evaluations": {},
            "tags": {},
            "mime_type": "",
            "parent_id": "",
            "granularity": 0,
            "adjacency": 0,
            "weight": 0.0,
            "offset": 0.0,
            "location": [],
            "modality": "",
        }

    def test_nothing_is_shared(self):
        one, other = Document(), Document()
        one.matches.append(Document())
        one.tags["a"] = 1
        one.scores["a"] = NamedScore(1.0)
        one.location.append(1.0)
        assert (other.matches, other.tags, other.scores, other.location) == ([], {}, {}, [])

    def test_unknown_keywords(self):
        with pytest.raises(TypeError, match="txt"):
            Document(txt="x")  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            Document("x")  # type: ignore[call-arg]
        with pytest.raises(AttributeError):
            Document().txt = "x"  # type: ignore[attr-defined]

    @pytest.mark.parametrize("name", ["matches", "chunks"])
    def test_nested(self, name):
        inner = [Document(text="a"), Document(text="b")]
        document = Document(**{name: inner})
        assert type(getattr(document, name)) is DocumentArray
        assert [one is other for one, other in zip(getattr(document, name), inner, strict=True)] == [True, True]
        setattr(document, name, iter(inner[:1]))
        assert type(getattr(document, name)) is DocumentArray
        assert getattr(document, name) == inner[:1]
        setattr(document, name, inner[1])
        assert getattr(document, name) == inner[1:]
        array = DocumentArray(inner)
        setattr(document, name, array)
        assert getattr(document, name) is array
        with pytest.raises(TypeError, match="item 1: a DocumentArray holds Documents, not str"):
            setattr(document, name, [inner[0], "b"])
        with pytest.raises(TypeError, match="not int"):
            Document(**{name: [1]})

    def test_contents_stand_side_by_side(self):
        pixels = np.zeros((2, 2, 3), np.uint8)
        document = Document(tensor=pixels)
        assert (document.content_type, document.content is pixels) == ("tensor", True)
        document.blob = b"x"
        assert (document.content_type, document.content) == ("blob", b"x")
        document.text = "t"
        assert (document.content_type, document.content) == ("text", "t")
        assert document.tensor is pixels
        assert Document(uri="a.png").content is None

    @pytest.mark.parametrize(
        ("value", "kind"), [("t", "text"), (b"b", "blob"), (np.zeros((1, 1, 3), np.uint8), "tensor")]
    )
    def test_content_by_type(self, value, kind):
        document = Document()
        document.content = value
        assert document.content_type == kind
        assert document.content is value

    def test_repr(self):
        document = Document(
            id="0",
            text="she smiled, with pain",
            uri="data:image/png;base64," + "A" * 200,
            blob=b"secret bytes",
            tensor=np.zeros((16, 8, 3), np.uint8),
            embedding=np.full(512, 0.25, np.float32),
            matches=[Document(text="inner")],
            scores={"cosine": NamedScore(0.096)},
            tags={"key": "v" * 100},
        )
        assert repr(document) == (
            "Document(id='0', text='she smiled, with pain', "
            f"uri='data:image/png;base64,{'A' * 37}…, blob=<12 bytes>, tensor=uint8[16, 8, 3], embedding=float32[512], "
            "matches=<DocumentArray of 1 Document>, scores={'cosine': {'value': 0.096}}, "
            f"tags={{'key': '{'v' * 51}…)"
        )
        assert repr(Document(id="1")) == "Document(id='1')"

    def test_repr_of_what_contains_itself(self):
        document = Document(id="1")
        document.matches.append(document)
        assert repr(document) == "Document(id='1', matches=<DocumentArray of 1 Document>)"

    def test_is_not_hashable(self):
        with pytest.raises(TypeError, match="unhashable"):
            hash(Document())


class TestEquality:
    @given(trees)
    def test_copies(self, document):
        for other in (copy.copy(document), copy.deepcopy(document), pickle.loads(pickle.dumps(document))):
            assert other == document
            assert type(other.matches) is DocumentArray
        assert copy.copy(document).matches is document.matches
        assert copy.deepcopy(document).matches is not document.matches

    @pytest.mark.parametrize(
        "change",
        [
            {"text": "x"},
            {"embedding": None},
            {"embedding": np.zeros(3, np.float64)},
            {"embedding": np.zeros(4, np.float32)},
            {"embedding": np.ones(3, np.float32)},
            {"embedding": [0.0, 0.0, 0.0]},
            {"matches": []},
            {"matches": [Document(id="1", text="n")]},
            {"scores": {"a": NamedScore(2.0)}},
            {"tags": {"a": 2}},
        ],
    )
    def test_differs(self, change):
        fields = {
            "id": "0",
            "embedding": np.zeros(3, np.float32),
            "matches": [Document(id="1", text="m")],
            "scores": {"a": NamedScore(1.0)},
            "tags": {"a": 1},
        }
        assert Document(**fields) == Document(**fields)
        assert Document(**fields) != Document(**{**fields, **change})
        assert Document(**fields) != "0"

    def test_missing_rows_are_equal(self):
        nan = np.full(3, np.nan, np.float32)
        assert Document(id="0", embedding=nan) == Document(id="0", embedding=nan.copy())


class TestJson:
    @given(trees)
    def test_round_trip(self, document):
        assert Document.from_json(document.to_json()) == document
        assert Document.from_dict(document.to_dict()) == document
        assert json.loads(document.to_json()) == document.to_dict()

    def test_only_what_is_there(self):
        assert json.loads(Document(id="0", text="x", blob=b"\xff").to_json()) == {
            "id": "0",
            "text": "x",
            "blob": "/w==",
            "matches": [],
            "chunks": [],
        }

    def test_wrong_types_name_their_place(self):
        with pytest.raises(ValueError, match=r"Expected `str`, got `int` - at `\$\.text`"):
            Document.from_json('{"text": 1}')
        with pytest.raises(ValueError, match="matches"):
            Document.from_dict({"matches": [{"text": 1}]})
        with pytest.raises(ValueError, match="embedding"):
            Document.from_dict({"embedding": {"dtype": "|O", "shape": [1], "data": "AAAAAAAAAAA="}})
        with pytest.raises(ValueError, match="embedding"):
            Document.from_dict({"embedding": {"dtype": "<f4", "shape": [9], "data": "AAAAAA=="}})
        with pytest.raises(ValueError, match="embedding"):
            Document.from_dict({"embedding": [1.0]})

    def test_numpy_scalars_in_tags(self):
        assert json.loads(Document(tags={"a": np.float32(0.5), "b": np.int64(2)}).to_json())["tags"] == {
            "a": 0.5,
            "b": 2,
        }

    def test_what_cannot_be_written(self):
        with pytest.raises(TypeError, match="type object cannot be written"):
            Document(tags={"a": object()}).to_json()
        with pytest.raises(TypeError, match="ndarray"):
            Document(tensor=np.array([object()])).to_json()


class TestArray:
    def test_takes_documents_only(self, four):
        for wrong in ("text", 1, None, {"text": "a"}):
            with pytest.raises(TypeError, match=type(wrong).__name__):
                DocumentArray([Document(), wrong])  # type: ignore[list-item]
            with pytest.raises(TypeError, match="a DocumentArray holds Documents"):
                four.append(wrong)
            with pytest.raises(TypeError, match="a DocumentArray holds Documents"):
                four.insert(0, wrong)
            with pytest.raises(TypeError, match="item 1"):
                four.extend([Document(), wrong])
            with pytest.raises(TypeError, match="item 0"):
                four += [wrong]
            with pytest.raises(TypeError, match="item 0"):
                operator.add(four, [wrong])
            with pytest.raises(TypeError, match="a DocumentArray holds Documents"):
                four[0] = wrong
            with pytest.raises(TypeError, match="item 0"):
                four[1:2] = [wrong]
        assert four.texts == TEXTS

    def test_the_error_shows_the_fix(self):
        with pytest.raises(TypeError, match=r"not str, write Document\(text='hello'\)"):
            DocumentArray(["hello"])  # type: ignore[list-item]

    def test_construction(self, four):
        assert DocumentArray() == []
        assert DocumentArray(document for document in four) == four
        assert DocumentArray(four[0]) == [four[0]]
        with pytest.raises(TypeError):
            DocumentArray(3)  # type: ignore[arg-type]

    def test_list_protocol(self, four):
        assert isinstance(four, list)
        assert len(four) == 4
        assert [document.text for document in reversed(four)] == TEXTS[::-1]
        four.insert(1, Document(text="x"))
        assert four.pop(1).text == "x"
        four.sort(key=lambda document: document.text, reverse=True)
        assert four.texts == TEXTS[::-1]
        four.reverse()
        four.remove(four[0])
        assert four.texts == TEXTS[1:]
        four.clear()
        assert not four

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda da: da + da[:1], "abcda"),
            (lambda da: da + list(da[:1]), "abcda"),
            (lambda da: da * 2, "abcdabcd"),
            (lambda da: 2 * da, "abcdabcd"),
            (lambda da: da.copy(), "abcd"),
            (lambda da: copy.copy(da), "abcd"),
            (lambda da: copy.deepcopy(da), "abcd"),
            (lambda da: pickle.loads(pickle.dumps(da)), "abcd"),
        ],
    )
    def test_stays_an_array(self, four, make, expected):
        made = make(four)
        assert type(made) is DocumentArray
        assert made is not four
        assert "".join(made.texts) == expected
        assert four.texts == TEXTS

    def test_grows_in_place(self, four):
        same = four
        same += documents("e")
        assert same is four
        assert four.texts == [*TEXTS, "e"]

    def test_membership(self, four):
        assert "id-a" in four
        assert "a" not in four
        assert four[0] in four
        assert Document() not in four
        assert 3 not in four

    def test_equality(self, four):
        assert four == documents(*TEXTS)
        assert four == list(four)
        assert four != documents(*TEXTS[1:])
        four.embeddings = np.zeros((4, 2))
        other = documents(*TEXTS)
        assert four != other
        other.embeddings = np.zeros((4, 2))
        assert four == other

    def test_repr(self, four):
        assert repr(four) == "<DocumentArray of 4 Documents>"
        assert repr(four[:1]) == "<DocumentArray of 1 Document>"


class TestColumns:
    def test_strings_and_bytes(self, four):
        four.uris = [f"{text}.png" for text in TEXTS]
        four.blobs = [text.encode() for text in TEXTS]
        assert four.texts == TEXTS
        assert four.uris == ["a.png", "b.png", "c.png", "d.png"]
        assert four.blobs == [b"a", b"b", b"c", b"d"]
        four.texts = tuple("wxyz")
        assert four.texts == ["w", "x", "y", "z"]
        assert four.contents == ["w", "x", "y", "z"]
        four.texts = None
        assert four.contents == [b"a", b"b", b"c", b"d"]
        four.blobs = None
        four.uris = None
        assert (four.contents, four.uris) == ([None] * 4, [""] * 4)

    @pytest.mark.parametrize("name", ["texts", "uris", "blobs", "tensors", "embeddings"])
    def test_as_many_as_documents(self, four, name):
        with pytest.raises(ValueError, match="3 values for 4"):
            setattr(four, name, [np.zeros(2)] * 3)

    def test_none_has_one(self, four):
        assert four.embeddings is None
        assert four.tensors is None
        assert DocumentArray().embeddings.shape == (0, 0)
        assert DocumentArray().texts == []

    def test_some_have_one(self, four):
        four[0].embedding = np.zeros(2)
        with pytest.raises(ValueError, match=r"document 1 has no embedding \(3 of 4 have none\)"):
            _ = four.embeddings

    def test_shapes_differ(self, four):
        for size, document in enumerate(four, 2):
            document.embedding = np.zeros(max(size, 4))
        with pytest.raises(ValueError, match=r"embeddings differ: document 0 has \[4\], document 3 \[5\]"):
            _ = four.embeddings

    def test_tensors(self, four):
        pixels = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
        four.tensors = pixels
        assert np.array_equal(four[2].tensor, pixels[2])
        assert np.shares_memory(four.tensors, pixels)
        assert four.tensors.shape == (4, 2, 3, 3)
        four.tensors = list(pixels)
        assert np.array_equal(four.tensors, pixels)
        four.tensors = None
        assert four.tensors is None

    def test_embeddings_of_lists(self, four):
        four.embeddings = [[1.0, 2.0]] * 4
        assert isinstance(four[0].embedding, np.ndarray)
        assert four.embeddings.tolist() == [[1.0, 2.0]] * 4
        four.embeddings = None
        assert four.embeddings is None


class TestFiles:
    def test_from_files(self, tmp_path, monkeypatch):
        (tmp_path / "deep" / "er.png").mkdir(parents=True)
        for name in ("b.png", "a.png", "c.jpg", "deep/d.png"):
            (tmp_path / name).write_bytes(b"")
        found = DocumentArray.from_files(f"{tmp_path}/*.png")
        assert found.uris == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
        assert not any(found.blobs)
        everything = DocumentArray.from_files([f"{tmp_path}/*.jpg", f"{tmp_path}/**/*.png"])
        assert [uri.removeprefix(f"{tmp_path}/") for uri in everything.uris] == [
            "c.jpg",
            "a.png",
            "b.png",
            "deep/d.png",
        ]
        assert len(DocumentArray.from_files(f"{tmp_path}/**/*.png", recursive=False)) == 1
        assert len(DocumentArray.from_files(f"{tmp_path}/**/*.png", size=2)) == 2
        monkeypatch.setenv("HOME", str(tmp_path))
        assert DocumentArray.from_files("~/*.jpg").uris == [f"{tmp_path}/c.jpg"]
        assert DocumentArray.from_files("nosuch/*") == []

    @given(st.lists(trees, max_size=3))
    def test_list_round_trip(self, content):
        array = DocumentArray(content)
        plain = array.to_list()
        assert json.loads(json.dumps(plain)) == plain
        assert DocumentArray.from_list(plain) == array
