"""A folder whose changes are recorded, and what a loss of power at any moment may leave of it.

POSIX promises nothing about a change until an fsync has returned that was called after it: the fsync of the file for
its bytes and its size, the fsync of the folder for the names in it. Of all changes since then, the disk may have any,
in any order, and of a write some sectors but not others. `RecordedFolder` takes the place of the functions of the
system with which a bulk run changes files, calls each of them, and notes what it did. Whenever a run waits for a file
or a folder, the notes are compared with what the system has, so a change that was not noted is an error.
"""

from __future__ import annotations

import builtins
import io
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SECTOR_BYTES = 512
"""A disk writes a sector completely or not at all."""

Files = dict[str, bytes | str | None]
"""What is in a folder, by path: the bytes of a file, the path of one that is the same file, or None for a folder."""


class Kept(NamedTuple):
    """How likely it is that the disk has a change that no fsync has waited for.

    Attributes:
        names: Of the names in a folder.
        sectors: Of the bytes of a file.
        newest: Whether, of the names in a folder, only the last change may be kept.
    """

    names: float
    sectors: float
    newest: bool = False


NOTHING, NEWEST = Kept(0, 0), Kept(1, 1, newest=True)
EXTREMES = (Kept(1, 1), Kept(1, 0), Kept(0, 1), NEWEST, NOTHING)
"""Everything is kept; or all names, but no bytes; or the other way round; or of the names the last one; or nothing."""


class File:
    """A file: what processes see, what is certainly on the disk, and the changes since then."""

    def __init__(self, data: bytes = b"") -> None:
        self.seen = bytearray(data)
        self._durable = data
        self._pending: list[tuple[int, bytes | None]] = []

    def write(self, place: int, data: bytes) -> None:
        _put(self.seen, place, data)
        self._pending.append((place, data))

    def cut(self, size: int) -> None:
        _cut(self.seen, size)
        self._pending.append((size, None))

    def sync(self) -> None:
        self._durable, self._pending = bytes(self.seen), []

    def after_loss(self, kept: Kept, choose: random.Random) -> bytes:
        """Return the bytes that the disk may have after a loss of power."""
        data = bytearray(self._durable)
        for place, written in self._pending:
            if written is None:
                if choose.random() < kept.sectors:
                    _cut(data, place)
                continue
            missing = place + len(written) - len(data)
            if missing > 0 and choose.random() < 0.5:
                # The new size is on the disk before the bytes: there may be anything in their place.
                data += choose.randbytes(missing)
            start = 0
            while start < len(written):
                stop = min(len(written), start + SECTOR_BYTES - (place + start) % SECTOR_BYTES)
                if choose.random() < kept.sectors:
                    _put(data, place + start, written[start:stop])
                start = stop
        return bytes(data)


class Folder:
    """A folder: the names that processes see, those that are certainly on the disk, and the changes since then."""

    def __init__(self) -> None:
        self.seen: dict[str, File | Folder] = {}
        self._durable: dict[str, File | Folder] = {}
        self._pending: list[dict[str, File | Folder | None]] = []

    def change(self, names: dict[str, File | Folder | None]) -> None:
        """Give names to files, or take them away (None), all at once."""
        _rename(self.seen, names)
        self._pending.append(names)

    def sync(self) -> None:
        self._durable, self._pending = dict(self.seen), []

    def after_loss(self, kept: Kept, choose: random.Random) -> Files:
        """Return what the disk may have in this folder after a loss of power."""
        files: Files = {}
        self._add(files, {}, kept, choose, "")
        return files

    def _add(self, files: Files, paths: dict[File, str], kept: Kept, choose: random.Random, folder: str) -> None:
        names = dict(self._durable)
        for change in self._pending[-1:] if kept.newest else self._pending:
            if choose.random() < kept.names:
                _rename(names, change)
        for name, node in sorted(names.items()):
            path = folder + name
            if isinstance(node, Folder):
                files[path] = None
                node._add(files, paths, kept, choose, f"{path}/")
            elif node in paths:
                files[path] = paths[node]
            else:
                files[path], paths[node] = node.after_loss(kept, choose), path


def _put(data: bytearray, place: int, written: bytes) -> None:
    if len(data) < place:
        data += bytes(place - len(data))
    data[place : place + len(written)] = written


def _cut(data: bytearray, size: int) -> None:
    del data[size:]
    data += bytes(size - len(data))


def _rename(names: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Loss(NamedTuple):
    """A loss of power.

    Attributes:
        files: What it has left.
        items: How many items had come to the server before it.
        change: The last change before it.
        kept: How likely it was that changes are kept.
    """

    files: Files
    items: int
    change: str
    kept: Kept


class RecordedFolder:
    """A folder while a run changes it.

    Args:
        path: The folder, which is on the disk with all that is in it.
        items: Returns how many items have come to the server.
        seed: Of the choices of what each loss leaves.
        choices: How many of them there are for each moment, beside the extremes.

    Attributes:
        changes: What was changed, in order.
    """

    def __init__(self, path: Path, items: Callable[[], int], seed: str, choices: int) -> None:
        self.path = path
        self.changes: list[str] = []
        self._losses: dict[int, Loss] = {}
        self._items = items
        self._choose = random.Random(seed)
        self._choices = choices
        self._lock = threading.RLock()
        self._opened: dict[int, Any] = {}
        self._top = Folder()
        for found in sorted(path.rglob("*")):
            above, name = self._found(found)
            above.change({name: Folder() if found.is_dir() else File(found.read_bytes())})
        for folder in [self._top, *filter(lambda node: isinstance(node, Folder), map(self._node, path.rglob("*")))]:
            folder.sync()

    def _found(self, path: Any) -> tuple[Folder, str]:
        """Return the folder that a path is in, and its name there."""
        *above, name = Path(path).relative_to(self.path).parts
        folder = self._top
        for part in above:
            below = folder.seen[part]
            assert isinstance(below, Folder)
            folder = below
        return folder, name

    def _node(self, path: Any) -> Any:
        if Path(path) == self.path:
            return self._top
        folder, name = self._found(path)
        return folder.seen.get(name)

    def _is_inside(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and Path(path).is_relative_to(self.path)

    def _lose(self) -> None:
        """Note what a loss of power may leave at this moment."""
        for kept in (*(Kept(self._choose.random(), self._choose.random()) for _ in range(self._choices)), *EXTREMES):
            files = self._top.after_loss(kept, self._choose)
            # Of several losses that leave the same after the same change, the last one has cost the most items.
            loss = Loss(files, self._items(), self.changes[-1], kept)
            self._losses[hash((tuple(files.items()), loss.change))] = loss

    @property
    def losses(self) -> list[Loss]:
        """A loss of power for each moment and each choice, without those that leave the same."""
        return list(self._losses.values())

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record what is changed."""
        with pytest.MonkeyPatch.context() as patched:
            for name in ("open", "close", "pwrite", "ftruncate", "fsync", "replace", "unlink", "mkdir", "rmdir"):
                patched.setattr(os, name, self._locked(getattr(self, name), getattr(os, name)))
            patched.setattr(builtins, "open", self._locked(self.open_file, builtins.open))
            yield
        self._lose()

    def _locked(self, noted: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that calls another one and notes what it did, for one thread at a time."""

        def call(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                return noted(function, *arguments, **options)

        return call

    def know(self, descriptor: int, file: File, path: Any) -> None:
        """Know what is changed by a descriptor."""
        self._opened[descriptor] = (file, path)

    def forget(self, descriptor: int) -> None:
        """Forget a descriptor, which is about to be closed."""
        self._opened.pop(descriptor, None)

    def _begin(self, change: str) -> None:
        if self.changes:
            self._lose()
        self.changes.append(change)

    # what takes the place of the system's functions, each of which is the first argument

    def open(self, function: Any, path: Any, flags: int, *mode: Any, **options: Any) -> Any:
        if not self._is_inside(path):
            return function(path, flags, *mode, **options)
        node = self._node(path)
        if node is None and flags & os.O_CREAT:
            self._begin("create")
        descriptor = function(path, flags, *mode, **options)
        if node is None:
            node = File()
            folder, name = self._found(path)
            folder.change({name: node})
        self._opened[descriptor] = (node, path)
        return descriptor

    def open_file(self, function: Any, path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not self._is_inside(path) or mode in ("r", "rb"):
            return function(path, mode, *arguments, **options)
        assert mode == "r+b"
        return io.BufferedRandom(RecordedFile(self, path, self._node(path)))

    def close(self, function: Any, descriptor: int) -> None:
        self._opened.pop(descriptor, None)
        function(descriptor)

    def pwrite(self, function: Any, descriptor: int, data: Any, place: int) -> int:
        if descriptor not in self._opened:
            return int(function(descriptor, data, place))
        return self.write(lambda: function(descriptor, data, place), self._opened[descriptor][0], place, data)

    def write(self, function: Callable[[], int], file: File, place: int, data: Any) -> int:
        with self._lock:
            self._begin("write")
            written = function()
            file.write(place, bytes(data[:written]))
            return written

    def ftruncate(self, function: Any, descriptor: int, size: int) -> None:
        if descriptor in self._opened:
            self._begin("cut")
            self._opened[descriptor][0].cut(size)
        function(descriptor, size)

    def fsync(self, function: Any, descriptor: int) -> None:
        if descriptor not in self._opened:
            function(descriptor)
        else:
            self._begin("sync")
            node, path = self._opened[descriptor]
            if isinstance(node, Folder):
                assert sorted(node.seen) == sorted(os.listdir(path))
            else:
                assert bytes(node.seen) == Path(path).read_bytes()
            node.sync()
        # Nothing is lost in a test, so it would wait in vain.

    def replace(self, function: Any, source: Any, target: Any) -> None:
        if self._is_inside(source):
            self._begin("rename")
            (old, old_name), (new, new_name) = self._found(source), self._found(target)
            node = old.seen[old_name]
            if old is new:
                old.change({old_name: None, new_name: node})
            else:  # each of the two folders is on the disk when somebody has waited for it
                old.change({old_name: None})
                new.change({new_name: node})
        function(source, target)

    def unlink(self, function: Any, path: Any, **options: Any) -> None:
        self._remove("remove", function, path, **options)

    def rmdir(self, function: Any, path: Any, **options: Any) -> None:
        self._remove("remove folder", function, path, **options)

    def _remove(self, change: str, function: Any, path: Any, **options: Any) -> None:
        if not self._is_inside(path) or self._node(path) is None:
            function(path, **options)
            return
        self._begin(change)
        function(path, **options)
        folder, name = self._found(path)
        folder.change({name: None})

    def mkdir(self, function: Any, path: Any, *mode: Any, **options: Any) -> None:
        if not self._is_inside(path) or self._node(path) is not None:
            function(path, *mode, **options)
            return
        self._begin("make folder")
        function(path, *mode, **options)
        folder, name = self._found(path)
        folder.change({name: Folder()})


class RecordedFile(io.FileIO):
    """A file that is opened to be changed by Python's own functions."""

    def __init__(self, folder: RecordedFolder, path: Any, file: File) -> None:
        super().__init__(path, "r+b")
        self._folder = folder
        self._file = file
        folder.know(self.fileno(), file, path)

    def write(self, data: Any) -> int:
        return self._folder.write(lambda: super(RecordedFile, self).write(data), self._file, self.tell(), data)

    def close(self) -> None:
        if not self.closed:
            self._folder.forget(self.fileno())
        super().close()
