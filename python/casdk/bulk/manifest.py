"""What is finished of a bulk run and what may follow; there is no I/O here.

A target is made of shards, runs of ``shard_rows`` items of the input, the last one shorter. The manifest has an entry
for each shard that is whole, and it is written when the shard is on disk: what the manifest says is what is true, and
whatever else lies around, a killed run has left. The same run, made again, begins at the first row that is not in it.

Nothing in it depends on when and where a run was made, nor on how often it was stopped: the manifests of two runs over
the same input are equal, byte for byte.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal, TypeAlias

import msgspec

from casdk._calls.sample import Verdict
from casdk._calls.space import Space
from casdk.errors import BulkError, ConfigError

__all__ = [
    "BY_THAT_INPUT",
    "BY_UPDATE",
    "DIGEST_BYTES",
    "EXACT",
    "FORMAT",
    "Digest",
    "Input",
    "Manifest",
    "Settings",
    "Shard",
    "Share",
    "read_manifest",
    "write_manifest",
]

FORMAT: Final = 1
"""Version of the manifest's form."""
DIGEST_BYTES: Final = 16
Written: TypeAlias = Literal["exact", "jpeg95", "webp90"]
"""How crops may be written."""
EXACT: Final = "exact"
"""The ``images`` of a run that sends nothing with loss."""
OTHERWISE: Final = "give another target, or overwrite=True to begin again"
BY_UPDATE: Final = f"update=True takes that into a folder, and into a matrix that was finished; or {OTHERWISE}"
"""What to do about an input that is another one."""
BY_THAT_INPUT: Final = (
    "an update that was stopped needs the input that it began with, and another update after it takes this one; or "
    f"{OTHERWISE}"
)
"""The same, while an update makes a new matrix."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The options that decide which bytes a target holds: a run that goes on has to have the same.

    Attributes:
        shard_rows: Rows in a shard.
        batch_size: Rows per request.
        dtype: ``float32`` or ``float16``.
        normalize: Whether rows have length 1.
        parameters: What the executors are sent; ``model_name`` among it.
        hash: Whether files are compared by their bytes, and not by size and time.
        columns: What the matrices of the target are called.
        layout: Whose layout a folder has; ``None`` for our own.
        images: How images are sent that may have loss; ``"exact"`` also for originals, whose rows are the same.
        min_fidelity: The smallest cosine of their rows, where they may.
    """

    shard_rows: int
    batch_size: int
    dtype: str
    normalize: bool
    parameters: dict[str, Any] = {}
    hash: bool = False
    columns: tuple[str, ...] = ("embedding",)
    layout: str | None = None
    images: str = EXACT
    min_fidelity: float | None = None

    def verdict(self, written: Written | None = None, fidelity: float | None = None) -> Verdict | None:
        """Return how crops are written, as far as that is known; ``None`` for a run that sends nothing with loss."""
        return None if self.min_fidelity is None else Verdict(self.min_fidelity, fidelity, written)


class Shard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A shard that is on disk.

    Attributes:
        number: Its place in the target, from 0.
        rows: Its rows, one per item.
        failed: How many of the items have no embedding.
        items: Digest of the items' names, and of what else is known of their content; ``""`` for a shard that an update
            has left rows out of.
        files: Bytes in each of the target's files at its end.
        checksum: Sum of the 64-bit words of its rows' bytes, or of its files', modulo 2 to the 64th, in hexadecimal.
        images: How crops are written behind its first ones, which are measured, once that is decided; ``None`` for a
            run that sends nothing with loss, and for a shard of few images.
        fidelity: The smallest cosine that was measured for that.
    """

    number: int
    rows: int
    failed: int
    items: str
    files: dict[str, int]
    checksum: str
    images: Written | None = None
    fidelity: float | None = None


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Which shards a run makes where several make one target: every one whose number leaves ``index`` modulo ``of``.

    Attributes:
        index: From 0.
        of: How many runs there are.
    """

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def makes(self, number: int) -> bool:
        """Whether the shard of a number is one of them."""
        return number % self.of == self.index

    def rows_of(self, items: int, shard_rows: int) -> int:
        """Return how many of the items of an input are in these shards."""
        starts = range(self.index * shard_rows, items, self.of * shard_rows)
        return sum(min(shard_rows, items - start) for start in starts)


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """All of an input, as a run has read it that makes a share of the shards.

    Attributes:
        items: How many there are.
        digest: Theirs, also of those that other runs encode.
    """

    items: int
    digest: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a target holds.

    Attributes:
        casdk: Version of this form.
        settings: The options that it was begun with.
        share: Which shards these are, if several runs make the target.
        input: What such a run has read, once it is finished.
        space: What `Client.space` returned before the first item was sent; ``None`` before that, and for a server
            that encodes neither of the two items that this one sends.
        finished: Whether it holds all of the input.
        updated: Whether an update has changed it: its rows are then in no order of the input, and any shard may be
            shorter than ``shard_rows``.
        width: Numbers in an embedding; 0 as long as nobody knows.
        prefetch: Requests in flight, if the first run has found out how many, and the batch size with it.
        shards: Those that are whole, in order.
        begun: The beginning of the next one, which a run that was asked to stop has left.
        ahead: Later ones that other runs have made; each is taken in when it is its turn.
    """

    casdk: int = FORMAT
    settings: Settings
    share: Share | None = None
    input: Input | None = None
    space: str | None = None
    finished: bool = False
    updated: bool = False
    width: int = 0
    prefetch: int | None = None
    shards: tuple[Shard, ...] = ()
    begun: Shard | None = None
    ahead: tuple[Shard, ...] = ()

    @property
    def rows(self) -> int:
        """Rows that are on disk."""
        return sum(shard.rows for shard in self.entries)

    @property
    def failed(self) -> int:
        """How many of them have no embedding."""
        return sum(shard.failed for shard in self.entries)

    @property
    def fidelity(self) -> float | None:
        """The smallest cosine that was measured of rows without and with loss; ``None`` if none was."""
        return min((shard.fidelity for shard in self.entries if shard.fidelity is not None), default=None)

    @property
    def verdict(self) -> Verdict | None:
        """How crops of the next shard are written, as far as its beginning shows."""
        begun = self.begun
        return self.settings.verdict() if begun is None else self.settings.verdict(begun.images, begun.fidelity)

    @property
    def entries(self) -> tuple[Shard, ...]:
        """All that is on disk, also what is there of the next shard, and later ones."""
        return (*self.shards, *([] if self.begun is None else [self.begun]), *self.ahead)

    @property
    def next_number(self) -> int:
        """The shard to make next."""
        made = len(self.shards)
        return made if self.share is None else made * self.share.of + self.share.index

    @property
    def made_ahead(self) -> Shard | None:
        """The next shard, if another run has made it."""
        return next((shard for shard in self.ahead if shard.number == self.next_number), None)

    def start_of(self, number: int) -> int:
        """Return the first row of a shard."""
        if self.updated:
            return sum(shard.rows for shard in self.shards[:number])
        return number * self.settings.shard_rows

    @property
    def ended(self) -> bool:
        """Whether the input has ended for all that is known: a shard that is not full is the last one.

        Shards that an update has left rows out of say nothing about that.
        """
        if self.finished or self.updated:
            return self.finished
        return bool(self.shards) and self.shards[-1].rows < self.settings.shard_rows

    def with_space(self, space: str | None) -> Manifest:
        """Return the manifest once it is known of which vector space its rows are going to be."""
        assert not self.rows
        return msgspec.structs.replace(self, space=space)

    def with_requests(self, batch_size: int, prefetch: int) -> Manifest:
        """Return the manifest once it is known how many items a request has, and how many are in flight."""
        assert not self.rows
        settings = msgspec.structs.replace(self.settings, batch_size=batch_size)
        return msgspec.structs.replace(self, settings=settings, prefetch=prefetch)

    def with_shard(self, shard: Shard, width: int) -> Manifest:
        """Return the manifest once a shard is whole.

        Args:
            shard: The next one.
            width: Numbers in an embedding.
        """
        assert shard.number == self.next_number
        ahead = tuple(later for later in self.ahead if later.number != shard.number)
        return msgspec.structs.replace(self, shards=(*self.shards, shard), begun=None, ahead=ahead, width=width)

    def with_begun(self, shard: Shard, width: int) -> Manifest:
        """Return the manifest once the beginning of the next shard is on disk."""
        assert shard.number == self.next_number
        return msgspec.structs.replace(self, begun=shard, width=width)

    def with_replaced(self, shard: Shard) -> Manifest:
        """Return the manifest once a shard, or what there is of the next one, has been made again."""
        if self.begun is not None and self.begun.number == shard.number:
            return msgspec.structs.replace(self, begun=shard)
        return msgspec.structs.replace(
            self, shards=tuple(shard if one.number == shard.number else one for one in self.shards)
        )

    def to_update(self) -> Manifest:
        """Return the manifest that an update goes on from: what there is, to which shards are added.

        Raises:
            BulkError: Of several runs that made it, some are missing.
        """
        if self.ahead:
            raise BulkError("it was begun by several runs and is not finished: finish it without update=True first")
        return msgspec.structs.replace(self, finished=False, updated=True)

    def with_end(self, read: Input | None = None) -> Manifest:
        """Return the manifest once the input has ended.

        Args:
            read: All of it, which the manifest of one run among several keeps.
        """
        return msgspec.structs.replace(self, finished=True, input=None if self.share is None else read)

    def check_end(self, target: str) -> None:
        """Check that nothing is there of what would come behind the input's end.

        Raises:
            BulkError: Another run has made shards of a longer input.
        """
        if self.ahead:
            first, last = self.start_of(self.next_number), self.ahead[-1]
            raise BulkError(
                f"the input has become shorter: it ends after {first} items at most, and {target} has rows up to "
                f"{self.start_of(last.number) + last.rows}; {OTHERWISE}"
            )

    def check_settings(self, now: Settings, target: str) -> None:
        """Check that a run has the options that the target was begun with.

        Raises:
            BulkError: It has others, which it names.
        """
        for name in Settings.__struct_fields__:
            old, new = getattr(self.settings, name), getattr(now, name)
            if old != new:
                raise BulkError(f"{target} was begun with {name}={old!r}, and now it is {new!r}; {OTHERWISE}")

    def check_order(self, target: str) -> None:
        """Check that the rows are still in the order of the input, by which a run without ``update`` compares them.

        Raises:
            BulkError: An update has changed that.
        """
        if self.updated:
            raise BulkError(
                f"{target} was updated, so its rows are no longer in the order of the input: update=True compares it "
                "with the input, and goes on"
            )

    def check_space(self, now: str | None, target: str) -> None:
        """Check that a server's rows are of the space that the target's are of.

        A server that encodes neither canary now says nothing about its space.

        Args:
            now: What `Client.space` has returned, if it has.
            target: The target's name.

        Raises:
            BulkError: They are not.
        """
        if self.space is None or now is None:
            return
        if reason := Space.read(now, "space").difference(Space.read(self.space, "space")):
            raise BulkError(
                f"the server holds another model than the one that {target} was begun with: {reason}; {OTHERWISE}"
            )

    def check_items(
        self, shard: Shard, rows: int, digest: str, other: str, target: str, advice: str = BY_UPDATE
    ) -> None:
        """Check that a shard's items are those of the input as it is now.

        Args:
            shard: One that is on disk, or its beginning.
            rows: Items that the input has in its place, at most as many as it.
            digest: Theirs.
            other: The first of them that has another name than it had, in words; ``""`` if all have their names.
            target: The target's name.
            advice: What to do about others.

        Raises:
            BulkError: They are others.
        """
        if rows == shard.rows and digest == shard.items:
            return
        first = self.start_of(shard.number)
        if other:
            what = f"has changed since {target} was begun: {other}"
        elif rows < shard.rows:
            what = f"has become shorter: it ends after {first + rows} items, and {target} has rows of {self.rows}"
        else:
            what = f"has changed since {target} was begun: of the items {first} to {first + rows - 1}, one has another "
            what += "content under the same name"
        raise BulkError(f"the input {what}; {advice}")

    def check_input(self, read: Input, target: str) -> None:
        """Check that a finished run of several has an input that is what it was, also where others encode it.

        Raises:
            BulkError: It is another one.
        """
        if self.input not in (None, read):
            raise BulkError(
                f"the input has changed since {target} was begun, among the {read.items} items that it has now: it had "
                f"{self.input.items if self.input else 0}; give another target"
            )

    def refuse_growth(self, target: str) -> None:
        """Refuse an input that goes on where it had ended.

        Raises:
            BulkError: It has grown.
        """
        raise BulkError(
            f"the input has grown: {target} ends after {self.rows} items, and now there are more; {BY_UPDATE}"
        )


class Digest:
    """The digest of items: the same however they were read, in one piece or in many."""

    def __init__(self) -> None:
        self._names = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._contents = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def add(self, names: bytes, contents: bytes) -> None:
        """Count items in.

        Args:
            names: Theirs, a line of JSON each.
            contents: What else is known of some of them, as size and time of a file: a line of JSON each, which begins
                with the item's place in the shard.
        """
        self._names.update(names)
        if contents:
            self._contents.update(contents)

    @property
    def text(self) -> str:
        """The digest, in hexadecimal."""
        both = self._names.digest() + self._contents.digest()
        return hashlib.blake2b(both, digest_size=DIGEST_BYTES).hexdigest()


_decoder: Final = msgspec.json.Decoder(Manifest)


def write_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as JSON, with a line for each shard."""
    head = msgspec.to_builtins(manifest)
    shards = head.pop("shards")
    begun = head.pop("begun")
    if manifest.settings.images == EXACT:
        del head["settings"]["images"], head["settings"]["min_fidelity"]
    if manifest.share is None:
        del head["share"], head["input"]
    if manifest.prefetch is None:
        del head["prefetch"]
    if not manifest.ahead:
        del head["ahead"]
    lines = [f"  {_json(name)}: {_json(value)}," for name, value in head.items()]
    listed = ",\n".join(f"    {_json(shard)}" for shard in shards)
    lines += [f'  "begun": {_json(begun)},', '  "shards": [' + (f"\n{listed}\n  " if shards else "") + "]"]
    return ("{\n" + "\n".join(lines) + "\n}\n").encode()


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def read_manifest(data: bytes, path: str) -> Manifest:
    """Return the manifest that JSON holds.

    Raises:
        BulkError: It is none, or of a later version of casdk.
    """
    try:
        form = msgspec.json.decode(data, type=dict[str, Any]).get("casdk")
        if isinstance(form, int) and form > FORMAT:
            raise BulkError(f"{path} was written by a later version of casdk, which this one cannot go on with")
        manifest = _decoder.decode(data)
        if manifest.space is not None:
            Space.read(manifest.space, "space")
        return manifest
    except (msgspec.MsgspecError, ConfigError) as error:
        raise BulkError(f"{path} is no manifest of a bulk run: {error}") from None
