"""A run that is killed goes on when it is made again, and what it leaves is what an undisturbed run would have left."""

import importlib.util
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from casdk import Client
from casdk._calls.space import SENTENCE
from casdk.testing import FaultServer

from .stopped_runs import StoppedRuns

VICTIM = Path(__file__).with_name("victim.py")
OPTIONS = {"shard_rows": 16, "batch_size": 4}
FAILED = {"texts": 3, "files": 2, "lines": 1, "tables": 1, "archives": 1, "pairs": 3}
"""The sources, and how many rows of each have no embedding."""
STEPS = 25
"""Steps on the disk among which one is chosen; every run here has more."""

spec = importlib.util.spec_from_file_location("victim", VICTIM)
victim = importlib.util.module_from_spec(spec)
spec.loader.exec_module(victim)


def items_at(server):
    """Return how many items of runs came to a server, which each run asks for its space, too."""
    return sum(len(request.texts) for request in server.requests if request.texts not in ((SENTENCE,), ("",)))


def check_as_undisturbed(client, source, target, tmp_path, held, options=OPTIONS):
    result = client.encode_to(target, victim.items_of(source), **options)
    (tmp_path / "undisturbed").mkdir()
    client.encode_to(tmp_path / "undisturbed" / target.name, victim.items_of(source), **options)
    assert held(target.parent) == held(tmp_path / "undisturbed")
    return result


PAIRS = [
    (source, target)
    for source in FAILED
    for target, not_of in {"rows.npy": ("pairs",), "rows": (), "clip-retrieval": ("texts", "lines")}.items()
    if source not in not_of
]


@pytest.mark.parametrize(("source", "kind"), PAIRS, indirect=["source"])
def test_two_kills(source, kind, request, server, encoder, victims, tmp_path, held):
    """Of each source and each target, but for those that do not go together."""
    choose, url = random.Random(request.node.name), server.address("grpc")
    options = {**OPTIONS, "layout": kind} if kind == "clip-retrieval" else OPTIONS
    target = tmp_path / "out" / ("rows" if "layout" in options else kind)
    target.parent.mkdir()
    assert victims.kill(url, source, target, options, disk=choose.randint(1, STEPS))
    assert victims.kill(url, source, target, options, item=choose.randint(17, 39))
    result = check_as_undisturbed(encoder, source, target, tmp_path, held, options)
    assert result.failed == FAILED[request.node.callspec.params["source"]]


@pytest.mark.parametrize("source", ["tables", "archives"], indirect=True)
def test_a_kill_in_the_second_of_two_files(source, server, encoder, victims, tmp_path, held):
    """One kind of target is enough here: targets do not know where items come from."""
    target = tmp_path / "out" / "rows.npy"
    target.parent.mkdir()
    assert victims.kill(server.address("grpc"), source, target, OPTIONS, item=41)
    assert check_as_undisturbed(encoder, source, target, tmp_path, held).failed == 1


@pytest.fixture(params=["rows.npy", "rows", "pairs", "clip-retrieval"])
def soaked(request, captions, pairs, tmp_path):
    """Source, target and options of runs that are killed often."""
    (tmp_path / "out").mkdir()
    if request.param in ("rows.npy", "rows"):
        return f"lines:{captions}", tmp_path / "out" / request.param, OPTIONS
    layout = {"layout": request.param} if request.param == "clip-retrieval" else {}
    return pairs, tmp_path / "out" / "rows", {**OPTIONS, **layout}


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_fifty_kills(soaked, server, encoder, victims, tmp_path, held):
    killed, (source, target, options) = 0, soaked
    for number in range(50):
        choose = random.Random(number)
        where = {"disk": choose.randint(1, 3 * STEPS)} if number % 2 else {"item": choose.randint(0, 59)}
        killed += victims.kill(server.address("grpc"), source, target, options, **where)
        if number % 10 == 9:
            (tmp_path / f"{number}").mkdir()
            check_as_undisturbed(encoder, source, target, tmp_path / f"{number}", held, options)
            for path in sorted(target.parent.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
    assert killed >= 20


def run_again_until_it_is_through(victims, url, source, target, options, places):
    """Kill runs at steps on the disk, one after the other, until one is through; returns how many were killed."""
    killed = 0
    for place in places:
        if not victims.kill(url, source, target, {**OPTIONS, **options}, disk=place):
            break
        killed += 1
    return killed


@pytest.fixture
def refusing():
    """A server that refuses some sentences until its ``executor.poison`` is taken away, and a client of it."""
    with (
        FaultServer(width=8, poison=lambda text: text.endswith("3")) as server,
        Client(server.address("grpc")) as client,
    ):
        yield server, client


def check_retry(refusing, victims, target, tmp_path, held, places):
    server, client = refusing
    source = "texts:76"
    assert client.encode_to(target, victim.items_of(source), **OPTIONS).failed > 3
    server.executor.poison = None
    url = server.address("grpc")
    killed = run_again_until_it_is_through(victims, url, source, target, {"retry_errors": True}, places)
    client.encode_to(target, victim.items_of(source), retry_errors=True, **OPTIONS)
    check_as_undisturbed(client, source, target, tmp_path, held)
    return killed


def test_a_retry_that_is_killed(refusing, victims, target, tmp_path, held):
    choose = random.Random(target.name)
    places = [choose.randint(5, STEPS), choose.randint(5, STEPS)]
    assert check_retry(refusing, victims, target, tmp_path, held, places) == 2


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_retry_that_is_killed_at_every_step(refusing, victims, target, tmp_path, held):
    assert check_retry(refusing, victims, target, tmp_path, held, range(1, 60)) >= 15


@pytest.fixture
def runs():
    with StoppedRuns().served(8) as runs:
        yield runs


def check_update(runs, victims, target, photos, tmp_path, held, places):
    """Files go, come and change; updates that are stopped and killed leave what one leaves that was not disturbed."""
    source, update = f"files:{photos}", {**OPTIONS, "update": True}
    runs.run(target, victim.items_of(source), OPTIONS)
    folder = Path(photos).parent
    paths = sorted(path for path in folder.iterdir() if path.exists())
    for path in paths[2:30:9]:
        path.unlink()
    for path in (paths[21], paths[39]):
        path.touch()
    for number in range(40):
        shutil.copy(paths[number % 2], folder / f"new{number}{paths[number % 2].suffix}")
    shutil.copytree(target.parent, tmp_path / "undisturbed")
    with pytest.raises(SystemExit):
        runs.run(target, victim.items_of(source), {**update, "prefetch": 1}, requests=8)
    manifest = target / "_casdk.json" if target.is_dir() else target.with_suffix(".casdk.json")
    assert json.loads(manifest.read_text())["begun"]["rows"] == 8
    url = runs.server.address("grpc")
    killed = run_again_until_it_is_through(victims, url, source, target, update, places)
    killed += victims.kill(url, source, target, update, item=60)
    runs.run(target, victim.items_of(source), update)
    result = runs.run(tmp_path / "undisturbed" / target.name, victim.items_of(source), update)
    assert held(target.parent) == held(tmp_path / "undisturbed")
    again = 0 if target.is_dir() else result.failed
    assert (result.dropped, result.reencoded, result.encoded) == (4, 2 + again, 42 + again)
    if not target.is_dir():
        (tmp_path / "fresh").mkdir()
        runs.run(tmp_path / "fresh" / target.name, victim.items_of(source), OPTIONS)
        assert held(target.parent) == held(tmp_path / "fresh")
    return killed


def test_an_update_that_is_killed(runs, victims, target, photos, tmp_path, held):
    choose = random.Random("update")
    places = [choose.randint(5, STEPS), choose.randint(5, STEPS)]
    assert check_update(runs, victims, target, photos, tmp_path, held, places) >= 2


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_an_update_that_is_killed_at_every_step(runs, victims, target, photos, tmp_path, held):
    assert check_update(runs, victims, target, photos, tmp_path, held, range(1, 60)) >= 20


def test_a_second_process_is_refused(target, server, encoder):
    """While the first one is at work, which goes on undisturbed."""
    order = {"url": server.address("grpc"), "source": "texts:76", "target": str(target), "options": OPTIONS}
    refused = []

    def items():
        for number, text in enumerate(victim.items_of("texts:76")):
            if number == 40:
                refused.append(subprocess.run([sys.executable, VICTIM, json.dumps(order)], stderr=subprocess.PIPE))
            yield text

    assert encoder.encode_to(target, items(), **OPTIONS).rows == 76
    [second] = refused
    assert second.returncode == 1
    assert b"is being written by another process" in second.stderr


def test_a_kill_costs_a_shard_at_most(target, victims):
    texts = 120
    with FaultServer(width=8) as server, Client(server.address("grpc")) as client:
        url, source = server.address("grpc"), f"texts:{texts}"
        kills = [victims.kill(url, source, target, OPTIONS, item=item) for item in (20, 57, 90)]
        assert all(kills)
        result = client.encode_to(target, victim.items_of(f"texts:{texts}"), **OPTIONS)
        assert result.rows == texts
        assert texts - 4 <= items_at(server) <= texts + len(kills) * OPTIONS["shard_rows"]
        before = server.counters.documents
        assert client.encode_to(target, victim.items_of(f"texts:{texts}"), **OPTIONS).encoded == 0
        assert server.counters.documents == before
