"""The shard that a `Run` is making or comparing: what was read for it, and which rows have come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from casdk._calls.sample import Verdict
from casdk.bulk.items import Contents
from casdk.bulk.manifest import Digest, Shard
from casdk.bulk.sources import Block, to_lines
from casdk.errors import ItemError

__all__ = ["NAMES_AT_ONCE", "Labels", "Work"]

NAMES_AT_ONCE: Final = 4096
"""Names that are encoded, digested and written at a time: each of these steps costs as much as hundreds of names."""


class Labels(NamedTuple):
    """What is written beside the embeddings of consecutive rows.

    Attributes:
        names: The names of the rows.
        lines: The same names, a line of JSON each.
        captions: The texts of the rows, if the target stores captions; otherwise empty.
    """

    names: list[str]
    lines: bytes
    captions: Sequence[str]

    @classmethod
    def of(cls, names: list[str], captions: Sequence[str] = ()) -> Labels:
        """Return the labels of rows with these names."""
        return cls(names, to_lines(names), captions)


class Work:
    """A shard in progress.

    Args:
        number: The number of the shard, from 0.

    Attributes:
        verdict: How crops of its images are written, if they may have loss.
        read: Number of rows that were read for it.
        rows: Number of rows that have come back, in order, with embeddings or errors.
        failed: Number of these rows with an error.
        unlabelled: Number of these rows whose labels were not taken yet.
        waiting: Count and errors of rows that came before the width of a row was known, because all of their items
            failed. They are written once it is known.
    """

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.verdict: Verdict | None = None
        self.read: int = 0
        self.rows: int = 0
        self.failed: int = 0
        self.unlabelled: int = 0
        self.waiting: list[tuple[int, Mapping[int, ItemError]]] = []
        self._digest = Digest()
        self._names: list[str] = []
        self._contents: dict[int, str] = {}
        self._noted = Contents()
        self._captions: list[str] = []

    def note(self, block: Block) -> None:
        """Remember the names, contents and captions of the next rows until they come back."""
        if block.contents:
            self._contents.update((self.read + place, content) for place, content in block.contents.items())
        self._names += block.names
        self._captions += block.captions
        self.read += len(block)

    def names(self, rows: int) -> list[str]:
        """Return the names of the rows that come back next."""
        return self._names[self.unlabelled : self.unlabelled + rows]

    def count(self, rows: int, failed: int = 0) -> None:
        """Count the next rows as having come back."""
        if self._contents:
            places = range(self.rows, self.rows + rows)
            known = [(place, self._contents.pop(place)) for place in places if place in self._contents]
            self._digest.add(b"", to_lines(known))
            for place, content in known:
                self._noted.note(place, content)
        self.rows += rows
        self.failed += failed
        self.unlabelled += rows

    def pass_over(self, block: Block) -> None:
        """Count the next rows as having come back, which the target has already."""
        self.note(block)
        self.count(len(block))
        for _ in self.take_labels():
            pass

    def take_labels(self, fewest: int = NAMES_AT_ONCE) -> Iterator[Labels]:
        """Take the labels of rows that have come back, in order and each once, and count the names into the digest.

        Args:
            fewest: How many there must be; fewer are left for later.
        """
        while self.unlabelled >= fewest:
            rows = min(self.unlabelled, NAMES_AT_ONCE)
            labels = Labels.of(self._names[:rows], self._captions[:rows])
            del self._names[:rows], self._captions[:rows]
            self.unlabelled -= rows
            self._digest.add(labels.lines, b"")
            yield labels

    @property
    def digest(self) -> str:
        """The digest of the items that have come back. Their labels cannot be taken afterwards."""
        for _ in self.take_labels(fewest=1):
            pass
        return self._digest.text

    @property
    def contents(self) -> bytes:
        """The contents of the items that have come back, as a later update compares them."""
        return self._noted.of(self.rows)

    def goes_on_behind(self, items: int) -> bool:
        """Whether a later run can continue this beginning so that the bytes are those of an undisturbed run.

        Args:
            items: Number of items that have come back of the current stream.
        """
        verdict = self.verdict
        if verdict is None or not verdict.has_begun:
            return True
        # The images to be measured are sent together, so a beginning before that is not kept.
        return verdict.written is not None and items >= verdict.first

    def as_shard(self) -> Shard:
        """Return its entry in the manifest, to which the target adds files and checksum."""
        verdict, digest = self.verdict or Verdict(0.0), self.digest
        return Shard(
            number=self.number,
            rows=self.rows,
            failed=self.failed,
            items=digest,
            files={},
            checksum="",
            images=verdict.written,
            fidelity=verdict.fidelity,
        )
