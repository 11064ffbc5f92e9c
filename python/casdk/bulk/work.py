"""The shard that is being made: what was read for it, and what of that has come back."""

from __future__ import annotations

from collections.abc import Mapping

from casdk._calls.sample import Verdict
from casdk.bulk.items import Contents
from casdk.bulk.manifest import Digest, Shard
from casdk.bulk.sources import Block, to_lines
from casdk.errors import ItemError

__all__ = ["Work"]


class Work:
    """A shard under way.

    Args:
        number: Its place in the target.

    Attributes:
        verdict: How crops of its images are written, if they may have loss.
        read: Rows that were read for it.
        rows: Rows that have come back, in order, with embeddings or errors.
        failed: Those with an error.
        waiting: Names, errors and captions of rows that came before anybody knew how wide embeddings are: all of their
            items failed.
    """

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.verdict: Verdict | None = None
        self.read: int = 0
        self.rows: int = 0
        self.failed: int = 0
        self.waiting: list[tuple[list[str], Mapping[int, ItemError], list[str]]] = []
        self._digest = Digest()
        self._names: list[str] = []
        self._contents: dict[int, str] = {}
        self._noted = Contents()
        self._captions: list[str] = []

    def note(self, block: Block) -> None:
        """Remember what the next rows are called, and what their captions are, until they come back."""
        if block.contents:
            self._contents.update((self.read + place, content) for place, content in block.contents.items())
        self._names += block.names
        self._captions += block.captions
        self.read += len(block)

    def names(self, rows: int) -> list[str]:
        """Return the names of the rows that come back next."""
        return self._names[:rows]

    def captions(self, rows: int) -> list[str]:
        """Return the captions of the rows that come back next; none if the target writes none down."""
        return self._captions[:rows]

    def count(self, rows: int, failed: int = 0) -> None:
        """Count the next rows as having come back."""
        contents = b""
        if self._contents:
            places = range(self.rows, self.rows + rows)
            known = [(place, self._contents.pop(place)) for place in places if place in self._contents]
            contents = to_lines(known)
            for place, content in known:
                self._noted.note(place, content)
        self._digest.add(to_lines(self._names[:rows]), contents)
        del self._names[:rows], self._captions[:rows]
        self.rows += rows
        self.failed += failed

    @property
    def digest(self) -> str:
        """The digest of the items that have come back."""
        return self._digest.text

    @property
    def contents(self) -> bytes:
        """What is known of the items that have come back, beside their names, for a later update."""
        return self._noted.of(self.rows)

    def goes_on_behind(self, items: int) -> bool:
        """Whether a later run makes of this beginning what this one would have made.

        Args:
            items: That have come back of the stream under way.
        """
        verdict = self.verdict
        if verdict is None or not verdict.has_begun:
            return True
        # Images that are still to be measured are sent and measured together.
        return verdict.written is not None and items >= verdict.first

    def as_shard(self) -> Shard:
        """Return it as an entry of the manifest, without what its target adds."""
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
