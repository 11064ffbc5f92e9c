"""A run that has lost its power goes on when it is made again, whatever the disk has of what was not yet synced."""

import os
import random
import shutil
from pathlib import Path

import pytest
from casdk import Text, bulk
from casdk._calls.space import SENTENCE
from casdk.bulk import large_part, row_blocks
from casdk.bulk.call import open_target
from casdk.bulk.disk import PAGE_BYTES

from .recorded_folder import NEWEST, NOTHING, RecordedFolder
from .stopped_runs import StoppedRuns

OPTIONS = {"shard_rows": 16, "batch_size": 4}
TEXTS = [f"sentence {number}" if number % 37 else "" for number in range(76)]
OTHERS = [text for text in TEXTS if not text.endswith("5")] + [f"another {number}" for number in range(20)]
"""What an update brings: seven texts fewer and twenty more."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks and blocks of 8 rows, so that the thread of large files writes several of each shard."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nothing is lost in a test, and it would wait in vain
    monkeypatch.setattr(large_part, "CHUNK_BYTES", 2 * PAGE_BYTES)
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 2 * PAGE_BYTES)


class CountedRuns(StoppedRuns):
    """Runs of texts whose items are counted.

    Attributes:
        items: How many items have come to the server, without those that ask for the vector space.
    """

    def __init__(self):
        super().__init__()
        self.items = 0

    def __call__(self, request):
        if request.texts not in ((SENTENCE,), ("",)):
            self.items += len(request.texts)
        super().__call__(request)

    def encode(self, target, texts=TEXTS, requests=0, **options):
        """Make a run, which is stopped at the last of so many requests."""
        content = texts
        if "layout" in options:  # clip-retrieval's layout needs a source that says that it holds texts
            content = bulk.Named(lambda: ((text, Text(text), "") for text in texts), len(texts), ("text",))
        return self.run(target, content, {**OPTIONS, **options}, requests=requests)


@pytest.fixture
def runs():
    with CountedRuns().served(256) as runs:
        yield runs


def nothing(runs, target, **layout):
    pass


def a_stopped_run(runs, target, **layout):
    with pytest.raises(SystemExit):
        runs.encode(target, requests=7, prefetch=1, **layout)


def a_finished_run(runs, target, **layout):
    runs.encode(target, **layout)


def a_run_with_failures(runs, target, **layout):
    runs.server.executor.poison = lambda text: text.endswith("3")
    runs.encode(target, **layout)
    runs.server.executor.poison = None


CASES = {
    "a run": (nothing, {}),
    "a run that goes on": (a_stopped_run, {}),
    "a run that begins again": (a_stopped_run, {"overwrite": True}),
    "a run over a finished one": (a_finished_run, {"overwrite": True, "texts": OTHERS}),
    "a retry": (a_run_with_failures, {"retry_errors": True}),
    "an update": (a_finished_run, {"update": True, "texts": OTHERS}),
}
"""What lies there, and how the run is made that loses its power, and then made again."""


class Case:
    """A run that loses its power, and what it would leave if it were not disturbed.

    Attributes:
        before: A folder with what is there before the run.
    """

    def __init__(self, runs, name, kind, tmp_path, held):
        self._runs, self._name, self._tmp_path, self._held = runs, name, tmp_path, held
        prepare, self._options = CASES[name]
        self._target = "rows.npy" if kind == "rows.npy" else "rows"
        if kind == "clip-retrieval":
            self._options = {**self._options, "layout": kind}
        self.before, self._undisturbed = tmp_path / "before", tmp_path / "undisturbed"
        self.before.mkdir()
        prepare(runs, self.before / self._target, **({"layout": kind} if kind == "clip-retrieval" else {}))
        shutil.copytree(self.before, self._undisturbed)
        start = runs.items
        runs.encode(self._undisturbed / self._target, **self._options)
        self._items = runs.items - start

    def losses(self, folder, choices=1):
        """Make the run in a folder, and return a loss of power for each of its moments and for several choices."""
        start = self._runs.items
        recorded = RecordedFolder(folder, lambda: self._runs.items - start, self._name, choices)
        with recorded.recorded():
            self._runs.encode(folder / self._target, **self._options)
        self._check(folder)
        return recorded.losses

    def _check(self, folder):
        assert self._held(folder) == self._held(self._undisturbed)

    def copy_of_before(self, name="recorded"):
        return Path(shutil.copytree(self.before, self._tmp_path / name))

    def laid_out(self, loss, name="lost"):
        """Return a folder with what a loss has left."""
        folder = self._tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path, found in loss.files.items():
            if found is None:
                (folder / path).mkdir()
            elif isinstance(found, str):
                (folder / path).hardlink_to(folder / found)
            else:
                (folder / path).write_bytes(found)
        return folder

    def go_on(self, loss, sent=0, losses=1):
        """Make the run again after a loss, and compare what it leaves and how many items were sent.

        Args:
            loss: The last loss.
            sent: Items that were sent up to the loss before that one.
            losses: How many there were.
        """
        folder, start = self.laid_out(loss), self._runs.items
        manifest = open_target(folder / self._target, "float32").read_manifest()
        result = self._runs.encode(folder / self._target, **self._options)
        self._check(folder)
        if self._name == "a run":
            assert result.encoded == result.rows - (0 if manifest is None else manifest.rows)
        if "overwrite" not in self._options:
            sent += loss.items + self._runs.items - start
            assert sent <= self._items + losses * OPTIONS["shard_rows"]


@pytest.fixture
def case(request, runs, tmp_path, held):
    return Case(runs, *request.param, tmp_path, held)


EVERY = [
    pytest.param((name, kind), id=f"{name}, {kind}")
    for name in CASES
    for kind in ("rows.npy", "rows", "clip-retrieval")
    if kind != "clip-retrieval" or name not in ("a retry", "an update")
]


@pytest.mark.soak
@pytest.mark.parametrize("case", [case for case in EVERY if case.values[0][0] == "a run"], indirect=True)
def test_losses_after_a_name_is_given(case):
    """Then a disk may have the name of a file but not what it speaks of, or still lack what was there long before."""
    losses = [loss for loss in case.losses(case.copy_of_before()) if loss.change in ("rename", "make folder")]
    lost = [loss for loss in losses if loss.kept in (NOTHING, NEWEST)]
    others = [loss for loss in losses if loss.kept not in (NOTHING, NEWEST)]
    for loss in (*lost, *random.Random(0).sample(others, min(len(others), 8))):
        case.go_on(loss)


@pytest.mark.parametrize("case", EVERY, indirect=True)
def test_some_losses(case):
    """Of each kind of run into each kind of target."""
    for loss in random.Random(0).sample(case.losses(case.copy_of_before()), 2):
        case.go_on(loss)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", EVERY, indirect=True)
def test_many_losses(case):
    losses = case.losses(case.copy_of_before(), choices=3)
    for loss in random.Random(1).sample(losses, min(len(losses), 400)):
        case.go_on(loss)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", EVERY, indirect=True)
def test_three_losses_one_after_the_other(case):
    choose = random.Random(2)
    first_losses = case.losses(case.copy_of_before())
    for number in range(20):
        first = choose.choice(first_losses)
        second = choose.choice(case.losses(case.laid_out(first, f"second-{number}")))
        third = choose.choice(case.losses(case.laid_out(second, f"third-{number}")))
        case.go_on(third, first.items + second.items, 3)
