"""The manifest, which says what a target holds; there is no I/O here.

A run divides its input into shards of ``shard_rows`` items; the last one may be shorter. When a shard is on disk, the
manifest is written with an entry for it. So the target holds what its manifest says, and anything else in it was left
by a run that was killed. The same call then continues at the first row that is not in the manifest.

The manifest does not depend on when and where a run was made, or on how often it was stopped. So those of two runs over
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
"""Version of the manifest's format."""
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
    """The options that decide which bytes a target holds. A run that continues must have the same ones.

    Attributes:
        shard_rows: Rows in a shard.
        batch_size: Rows per request.
        dtype: ``float32`` or ``float16``.
        normalize: Whether rows have length 1.
        parameters: The parameters that the executors get, including ``model_name``.
        hash: Whether files are compared by their bytes, and not by size and time.
        columns: The names of the columns with embeddings.
        layout: The layout of a folder; ``None`` for casdk's own.
        images: The format of crops that may have loss; ``"exact"`` if the rows are those of the originals.
        min_fidelity: The smallest cosine that a row of a lossy crop may have with the exact one; ``None`` if nothing is
            sent with loss.
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
        items: The digest of the items' names, and of what else is known of their content; ``""`` after an update has
            removed rows.
        files: The size of each of the target's files at the end of this shard, in bytes.
        checksum: The sum of the 64-bit words of its rows (``.npy``) or of its file (Parquet), modulo 2 to the 64th, in
            hexadecimal.
        images: The format of the crops after the first ones, which are measured. ``None`` if none was chosen, because
            the run sends nothing with loss or the shard has few images.
        fidelity: The smallest cosine that was measured.
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
    """The shards that one of several runs makes: those whose number modulo ``of`` is ``index``.

    Attributes:
        index: The number of the run, from 0.
        of: How many runs there are.
    """

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def makes(self, number: int) -> bool:
        """Whether the shard with this number is one of them."""
        return number % self.of == self.index

    def rows_of(self, items: int, shard_rows: int) -> int:
        """Return how many of the items of an input are in these shards."""
        starts = range(self.index * shard_rows, items, self.of * shard_rows)
        return sum(min(shard_rows, items - start) for start in starts)


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """The whole input, as a run with a share has read it.

    Attributes:
        items: Number of its items.
        digest: The digest of all items, including those that other runs encode.
    """

    items: int
    digest: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a target holds.

    Attributes:
        casdk: Version of this format.
        settings: The options that it was begun with.
        share: The share of the run that wrote it, if several runs make the target.
        input: The input that such a run has read, once it is finished.
        space: What `Client.space` returned before the first item was sent; ``None`` before that, and for a server
            that encodes neither of the two items that this one sends.
        finished: Whether it holds all of the input.
        updated: Whether an update has changed it: its rows are then in no order of the input, and any shard may be
            shorter than ``shard_rows``.
        width: Numbers in an embedding; 0 before the first one has come.
        prefetch: Number of requests in flight, if the first run has searched for it, as for the batch size.
        shards: The complete shards, in order.
        begun: The beginning of the next shard, which a run has kept that was stopped.
        ahead: Later shards that other runs have made. Each joins ``shards`` when all shards before it are complete.
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
        """How many rows on disk have no embedding."""
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
        """The entries of all that is on disk: complete shards, the beginning of the next one, and later ones."""
        return (*self.shards, *([] if self.begun is None else [self.begun]), *self.ahead)

    @property
    def next_number(self) -> int:
        """The number of the shard to make next."""
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
        """Whether the input is known to have ended: a shard that is not full is the last one.

        After an update any shard may be shorter, so shards do not show this any more.
        """
        if self.finished or self.updated:
            return self.finished
        return bool(self.shards) and self.shards[-1].rows < self.settings.shard_rows

    def with_space(self, space: str | None) -> Manifest:
        """Return the manifest with the vector space that its rows will have."""
        assert not self.rows
        return msgspec.structs.replace(self, space=space)

    def with_requests(self, batch_size: int, prefetch: int) -> Manifest:
        """Return the manifest with the batch size and the number of requests in flight that were found."""
        assert not self.rows
        settings = msgspec.structs.replace(self.settings, batch_size=batch_size)
        return msgspec.structs.replace(self, settings=settings, prefetch=prefetch)

    def with_shard(self, shard: Shard, width: int) -> Manifest:
        """Return the manifest with the next shard, which is complete.

        Args:
            shard: Its entry.
            width: Numbers in an embedding.
        """
        assert shard.number == self.next_number
        ahead = tuple(later for later in self.ahead if later.number != shard.number)
        return msgspec.structs.replace(self, shards=(*self.shards, shard), begun=None, ahead=ahead, width=width)

    def with_begun(self, shard: Shard, width: int) -> Manifest:
        """Return the manifest with the beginning of the next shard."""
        assert shard.number == self.next_number
        return msgspec.structs.replace(self, begun=shard, width=width)

    def with_replaced(self, shard: Shard) -> Manifest:
        """Return the manifest with another entry for a shard, or for the beginning of the next one."""
        if self.begun is not None and self.begun.number == shard.number:
            return msgspec.structs.replace(self, begun=shard)
        return msgspec.structs.replace(
            self, shards=tuple(shard if one.number == shard.number else one for one in self.shards)
        )

    def to_update(self) -> Manifest:
        """Return the manifest that an update continues: unfinished, and its rows in any order.

        Raises:
            BulkError: Several runs have begun the target, and not all of them have finished.
        """
        if self.ahead:
            raise BulkError("it was begun by several runs and is not finished: finish it without update=True first")
        return msgspec.structs.replace(self, finished=False, updated=True)

    def with_end(self, read: Input | None = None) -> Manifest:
        """Return the manifest once the input has ended.

        Args:
            read: The whole input, which the manifest of a run with a share keeps.
        """
        return msgspec.structs.replace(self, finished=True, input=None if self.share is None else read)

    def check_end(self, target: str) -> None:
        """Check that the target has no shard behind the end of the input.

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
            BulkError: An option is another one; the message names it.
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
        """Check that the server has the vector space of the target, if both are known.

        Args:
            now: The server's space; ``None`` if the server encodes neither canary.
            target: The target's name.

        Raises:
            BulkError: It has another one.
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
            shard: A shard that is on disk, or its beginning.
            rows: Number of items that the input has in the place of the shard, at most ``shard.rows``.
            digest: The digest of these items.
            other: Describes the first item whose name has changed; ``""`` if all names are the same.
            target: The target's name.
            advice: What the message tells the caller to do.

        Raises:
            BulkError: The items have changed.
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
        """Check that the whole input of a finished run with a share is still the same.

        Raises:
            BulkError: It has changed.
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
    """The digest of items. It does not depend on how many are counted in at a time."""

    def __init__(self) -> None:
        self._names = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._contents = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def add(self, names: bytes, contents: bytes) -> None:
        """Count items in.

        Args:
            names: Their names, a line of JSON each.
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
        BulkError: The data is no manifest, or that of a later version of casdk.
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
