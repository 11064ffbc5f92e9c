"""Tar files as WebDataset writes them: a member of each sample, and what is wrong with a file said by its name."""

import io
import json
import tarfile

import pytest
from casdk import BulkError, Image, InputValueError, Text, bulk
from casdk.bulk import archives
from hypothesis import given
from hypothesis import strategies as st


def write(path, members, **options):
    with tarfile.open(path, "w", **options) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
            else:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return str(path)


def samples(*keys):
    for key in keys:
        yield f"{key}.jpg", f"image {key}".encode()
        yield f"{key}.txt", f"text {key}".encode()
        yield f"{key}.json", json.dumps({"caption": f"caption {key}", "width": 7}).encode()


def entries(pattern, columns):
    return list(bulk.tars(pattern, columns=columns).entries())


def causes(found):
    return [str(item.cause) for _, item, _ in found]


def test_samples_come_by_their_keys_in_the_order_of_the_files(tmp_path):
    write(tmp_path / "0001.tar", samples("a/3"))
    write(tmp_path / "0000.tar", [("a.b", None), ("README", b"none"), (".hid.jpg", b"none"), *samples("a.b/2", "1")])
    for pattern in ("*.tar", "{0000..0001}.tar"):
        images = bulk.tars(tmp_path / pattern, columns="JPG")
        assert [name for name, _ in images] == ["a.b/2", "1", "a/3"]
        assert all(isinstance(item, Image) and item.source == f"image {name}".encode() for name, item in images)
        assert len({content for _, _, content in images.entries()}) == 3
        assert images.total is None
    both = bulk.tars([tmp_path / "0001.tar", str(tmp_path / "0000.tar")], columns="txt")
    assert [item for _, item in both] == [Text("text a.b/2"), Text("text 1"), Text("text a/3")]
    assert entries(tmp_path / "0001.tar", "json.caption") == [("a/3", Text("caption a/3"), "caption a/3")]


def test_what_a_sample_lacks_fails_alone(tmp_path):
    twice = [("5.txt", b"five"), ("5.TXT", b"five")]
    members = [("1.txt", b"one"), ("2.jpg", b""), ("3.txt", b"\xff"), ("4.txt", "1.txt"), *twice, ("6.txt", b"six")]
    found = entries(write(tmp_path / "a.tar", members), "txt")
    assert [name for name, _, _ in found] == list("123456")
    assert [type(item).__name__ for _, item, _ in found] == ["Text", *["Unreadable"] * 4, "Text"]
    lacking, undecodable, link, twice = causes(found[1:5])
    assert lacking == "the sample has no member 'txt', of jpg"
    assert "utf-8" in undecodable
    assert link == "the member 'txt' is no plain file"
    assert twice == "the sample has 2 members 'txt', of txt, txt"


def test_fields_of_json_that_are_no_sentences_fail_alone(tmp_path):
    objects = [b'{"caption": "a"}', b"{", b"[]", b"{}", b'{"caption": null}', b'{"caption": 7}']
    found = entries(write(tmp_path / "a.tar", [(f"{n}.json", data) for n, data in enumerate(objects)]), "json.caption")
    assert found[0][1] == Text("a")
    assert causes(found[3:]) == [
        "the field 'caption' is null or missing",
        "the field 'caption' is null or missing",
        "the field 'caption' is int, not a string",
    ]
    assert len({content for _, _, content in found}) == len(objects)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_format(tmp_path, format):
    key = "/".join(["folder" * 4] * 5) + "/é"
    assert [name for name, _, _ in entries(write(tmp_path / "a.tar", samples(key), format=format), "txt")] == [key]


@pytest.mark.parametrize("kept", [1, 2, 3, 6, 7])
def test_a_long_tar_is_opened_anew_on_the_way(tmp_path, monkeypatch, kept):
    path = write(tmp_path / "a.tar", samples("1", "folder" * 40 + "/2"))
    expected = entries(path, "txt")
    monkeypatch.setattr(archives, "MEMBERS_AT_ONCE", kept)
    assert entries(path, "txt") == expected
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole.rstrip(b"\0"))
    with pytest.raises(BulkError, match=r"a\.tar cannot be read beyond folder.*/2\.json"):
        entries(path, "txt")


@given(st.data())
def test_a_tar_that_was_cut_is_never_taken_for_a_whole_one(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("tars") / "cut.tar"
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 511, 512, 513, 1024]), min_size=1, max_size=4))
    write(path, [(f"{number}.{(number % 2 and 'txt') or 'jpg'}", b"x" * size) for number, size in enumerate(sizes)])
    whole = path.read_bytes()
    end = sum(512 + -(-size // 512) * 512 for size in sizes)
    assert len(entries(path, "txt")) == len(sizes)
    path.write_bytes(whole[: data.draw(st.integers(0, end + 511))])
    with pytest.raises(BulkError, match=r"cut\.tar cannot be read beyond "):
        entries(path, "txt")


def test_a_tar_that_is_damaged_says_where(tmp_path):
    path = write(tmp_path / "a.tar", [("1.txt", b"one"), ("2.txt", b"two"), ("3.txt", b"three")])
    with open(path, "r+b") as file:
        file.seek(2 * 1024)
        file.write(b"\xff")
    found = iter(bulk.tars(path, columns="txt"))
    assert next(found) == ("1", Text("one"))
    with pytest.raises(BulkError, match=r"a\.tar cannot be read beyond 2\.txt: .*cut or is damaged"):
        list(found)


def test_what_is_no_tar_file_is_refused(tmp_path):
    (tmp_path / "a.tar").write_text("no archive")
    with pytest.raises(BulkError, match=r"a\.tar cannot be read beyond its beginning"):
        entries(tmp_path / "a.tar", "txt")
    (tmp_path / "b.tar").mkdir()
    with pytest.raises(BulkError, match=r"b\.tar cannot be read"):
        entries(tmp_path / "b.tar", "txt")


@pytest.mark.parametrize(
    ("pattern", "columns", "said"),
    [
        ("{0..1}.tar", "jpg", r"no file is called .*1\.tar"),
        ("{3..1}.tar", "jpg", r"\{3\.\.1\} in .*larger than the last"),
        ("0.tar", "json", "say which of its fields"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(tmp_path, pattern, columns, said):
    write(tmp_path / "0.tar", [])
    with pytest.raises(InputValueError, match=said):
        bulk.tars(tmp_path / pattern, columns=columns)


def test_ranges_in_several_places(tmp_path):
    for name in ("a8-1", "a8-2", "a9-1", "a9-2", "a10-1", "a10-2", "{1..2}"):
        write(tmp_path / f"{name}.tar", [(f"{name}.txt", b"")])
    assert len(entries(tmp_path / "a{8..10}-{1..2}.tar", "txt")) == 6
    assert [name for name, _, _ in entries(tmp_path / "{1..2}.tar", "txt")] == ["{1"]
