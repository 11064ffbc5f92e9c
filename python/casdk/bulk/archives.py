"""`tars`, a source of a bulk run: a member of each sample in WebDataset's tar files, or an image and its caption."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import IO, Any, Final, NamedTuple

import msgspec

from casdk._columns import Unreadable
from casdk.bulk.pairs import Kind, as_row, image_first, read_columns
from casdk.bulk.sources import Named, digest_of, find_files, open_file
from casdk.errors import BulkError, InputValueError
from casdk.models import Image, Text

__all__ = ["tars"]

RANGE: Final = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""A range of numbers such as ``{000..127}``, each written with as many digits as the first one."""
MEMBER: Final = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
"""The name of a member: the key of its sample, up to the first dot after the last slash, and what follows that dot."""
MEMBERS_AT_ONCE: Final = 10_000
"""Members after which the file is opened again at the next one, because ``tarfile`` keeps 450 bytes for each member."""
TEXTS: Final = frozenset({"txt", "text"})


class Member(NamedTuple):
    """A member of a sample.

    Attributes:
        key: The key of the sample.
        kind: What follows the key and the dot, in lower case, such as ``jpg``.
        data: The bytes of the member; ``None`` if they were not requested, or if it is no regular file.
    """

    key: str
    kind: str
    data: bytes | None


class Wanted(NamedTuple):
    """A column that a caller asked for.

    Attributes:
        member: The kind of the member that holds it.
        field: The field of the member that holds the sentence, if the member is JSON; ``""`` if the member itself is
            the item.
    """

    member: str
    field: str

    @property
    def kind(self) -> Kind:
        """Whether the column holds images or texts."""
        return "text" if self.field or self.member in TEXTS else "image"


def tars(pattern: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, columns: str | Sequence[str]) -> Named:
    """Return one member of each sample in tar files as items, sorted by the path of the file, sample by sample.

    A sample, as WebDataset writes it, consists of consecutive members whose paths are the same up to the first dot
    after the last slash, such as ``00/17.jpg`` and ``00/17.txt``. This common part, ``00/17``, is the name of the item.
    A sample without the member is an item that fails. Folders, and members with no dot there or nothing before it
    (``README``, ``.DS_Store``), belong to no sample and are left out. A file that is no tar file, or is truncated,
    stops the run.

    Args:
        pattern: A pattern such as ``"shards/*.tar"``, or ``"shards/{00000..00999}.tar"``, of which all files have to
            exist; or several patterns, or paths. They may be URLs, such as ``"s3://bucket/shards/*.tar"``
            (``casdk[stores]``). The files must not be compressed.
        columns: The member, by what follows the first dot: ``"txt"`` and ``"text"`` are sentences in UTF-8,
            ``"json.caption"`` is the sentence in the field ``caption`` of a JSON object, and anything else, such as
            ``"jpg"``, is an image file. Two columns, in any order, are one of images and one of sentences; each sample
            is then an image and its caption.

    Returns:
        Pairs of a name and a `Text` or an `Image`, or a tuple of both.

    Raises:
        InputValueError: No file matches a pattern; or a column is ``"json"`` without a field; or two columns both hold
            images, or both sentences.

    Examples:
        >>> from casdk import bulk
        >>> bulk.tars("shards/{00000..00999}.tar", columns="jpg")  # doctest: +SKIP
        >>> bulk.tars("shards/{00000..00999}.tar", columns=("jpg", "txt"))  # doctest: +SKIP
    """
    known = {column: _read_column(column) for column in read_columns(columns)}
    in_order, holds = image_first(tuple(known), [wanted.kind for wanted in known.values()])
    members = {wanted.member for wanted in known.values()}
    patterns = [pattern] if isinstance(pattern, str | os.PathLike) else list(pattern)
    paths = find_files([path for one in patterns for path in _numbered(os.fspath(one))])

    def read() -> Iterator[tuple[str, Any, str]]:
        for path in paths:
            for key, group in groupby(_members(path, members), lambda member: member.key):
                sample = list(group)
                yield key, *as_row([_item_of(sample, known[column]) for column in in_order])

    return Named(read, holds=holds)


def _read_column(name: str) -> Wanted:
    """Return the column that a name such as ``"jpg"`` or ``"json.caption"`` stands for.

    Raises:
        InputValueError: It is ``"json"`` without a field.
    """
    member, _, field = name.partition(".")
    if member.lower() != "json":
        return Wanted(name.lower(), "")
    if not field:
        raise InputValueError('columns is "json": say which of its fields is the sentence, as "json.caption"')
    return Wanted("json", field)


def _numbered(pattern: str) -> Iterator[str]:
    """Yield a pattern once for each number in its ranges."""
    found = RANGE.search(pattern)
    if found is None or os.path.lexists(pattern):
        yield pattern
        return
    first, last = found.groups()
    if int(first) > int(last):
        raise InputValueError(f"{found[0]} in {pattern}: the first number is larger than the last")
    for number in range(int(first), int(last) + 1):
        yield from _numbered(f"{pattern[: found.start()]}{number:0{len(first)}}{pattern[found.end() :]}")


def _members(path: str, wanted: set[str]) -> Iterator[Member]:
    """Yield the members of all samples in a tar file, with the bytes of the wanted kinds.

    Raises:
        BulkError: The file is no tar file, or is truncated.
    """
    last = "its beginning"
    try:
        with open_file(path) as file:
            for archive, member in _headers(file):
                found = MEMBER.fullmatch(member.name)
                if found is not None and not member.isdir():
                    key, kind = found[1], found[2].lower()
                    opened = archive.extractfile(member) if kind in wanted and member.isfile() else None
                    yield Member(key, kind, None if opened is None else opened.read())
                last = member.name
    except (OSError, tarfile.TarError) as error:
        raise BulkError(f"{path} cannot be read beyond {last}: {error}") from error


def _headers(file: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members of an archive, each with the ``TarFile`` that can extract it.

    Raises:
        tarfile.ReadError: The archive is truncated or damaged.
    """
    end, seen = 0, MEMBERS_AT_ONCE
    while seen == MEMBERS_AT_ONCE:
        file.seek(end)
        seen = 0
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in islice(archive, MEMBERS_AT_ONCE):
                yield archive, member
                end = member.offset_data + (_blocks(member.size) if member.isfile() else 0)
                seen += 1
    # tarfile also ends without an error if the file is truncated or damaged between two members.
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("the mark of a tar file's end is missing, so it was cut or is damaged")


def _blocks(size: int) -> int:
    """Return how many bytes a member of this size takes in a tar file, which consists of whole blocks."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _item_of(sample: list[Member], wanted: Wanted) -> tuple[Any, str]:
    """Return the item of a column in a sample, and its fingerprint."""
    found = [member for member in sample if member.kind == wanted.member]
    if len(found) != 1:
        how_many = f"{len(found)} members" if found else "no member"
        kinds = ", ".join(member.kind for member in sample)
        return Unreadable(InputValueError(f"the sample has {how_many} {wanted.member!r}, of {kinds}")), kinds
    data = found[0].data
    if data is None:
        return Unreadable(InputValueError(f"the member {wanted.member!r} is no plain file")), ""
    if wanted.kind == "image":
        return Image(data), digest_of(data)
    try:
        text = _field_of(data, wanted.field) if wanted.field else data.decode()
    except (UnicodeDecodeError, msgspec.MsgspecError, InputValueError) as error:
        return Unreadable(error), digest_of(data)
    return Text(text), text


def _field_of(data: bytes, field: str) -> str:
    """Return the sentence in a field of a JSON object.

    Raises:
        msgspec.MsgspecError: The data is no JSON object.
        InputValueError: The field is missing, or no string.
    """
    value = msgspec.json.decode(data, type=dict[str, Any]).get(field)
    if not isinstance(value, str):
        what = "null or missing" if value is None else f"{type(value).__name__}, not a string"
        raise InputValueError(f"the field {field!r} is {what}")
    return value
