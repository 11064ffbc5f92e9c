"""Memory of long runs: the peak of a process of its own, beyond the result and beyond what a small call takes."""

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from casdk import Document, ItemError
from PIL import Image
from PIL.PngImagePlugin import PngInfo

MOST = 60_000_000
CALL = """
import json, resource, sys
from casdk import Client

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

address, image = sys.argv[1:]
content = [image] * 1000 if image else (f"a text, and its number is {number}" for number in range(100_000))
with Client(address) as client:
    client.encode(["a text"])
    before = peak()
    rows = client.encode(content)
    print(json.dumps({"shape": rows.shape, "beyond": peak() - before - rows.nbytes}))
"""


def grown(address, image=""):
    command = [sys.executable, "-c", CALL, address, image]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_hundred_thousand_texts_from_a_generator(server, scheme):
    found = grown(server.address(scheme))
    assert found["shape"] == [100_000, 512]
    assert found["beyond"] < MOST


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("scheme", ["grpc", pytest.param("http", marks=pytest.mark.soak)])
def test_a_thousand_images_by_path(server, scheme, tmp_path):
    path = tmp_path / "small.png"
    comment = PngInfo()  # makes a large file of a picture that the server decodes at once
    comment.add_text("Comment", "x" * 100_000)
    Image.new("RGB", (8, 8)).save(path, pnginfo=comment)
    assert 100_000 <= path.stat().st_size < 110_000
    found = grown(server.address(scheme), str(path))
    assert found["shape"] == [1000, 512]
    assert found["beyond"] < MOST


@pytest.mark.parametrize("verb", ["encode", "stream"])
def test_what_a_call_returned_goes_with_its_owner(client, call, verb):
    """No cycle of the call's own keeps it until a garbage collection."""
    call(client, "encode", ["a text"])
    gc.collect()
    gc.disable()
    try:
        found = call(client, verb, [f"text {number}" for number in range(40)], batch_size=8)
        result = weakref.ref(found if verb == "encode" else list(found)[-1])
        del found
        call(client, "encode", ["the engine has done with the call before"])
        assert result() is None
    finally:
        gc.enable()


def test_what_a_merged_call_returned_goes_with_its_owner(connect, call):
    client = connect("grpc", coalesce=True)
    call(client, "encode", ["a text"])
    gc.collect()
    gc.disable()
    try:
        found = call(client, "encode", ["one", "two"])
        result = weakref.ref(found)
        del found
        call(client, "encode", ["the engine has done with the call before"])
        assert result() is None
    finally:
        gc.enable()


def test_an_index_call_that_gathers_nothing_keeps_no_documents(client, call):
    """A long input needs no more memory than a short one."""
    made = []
    untouched = Document()
    references = sys.getrefcount(untouched)

    def documents():
        for number in range(150):
            made.append(Document(text=f"text {number}"))
            yield made[-1]

    held = []

    def count(_):
        held.append(sum(sys.getrefcount(document) > references + 1 for document in made))

    call(client, "index", documents(), on_done=count, batch_size=8, prefetch=2)
    assert len(held) == 19
    assert max(held) <= 5 * 8


class TheirError(Exception):
    pass


@pytest.mark.parametrize("failing", ["a bad item", "the caller's iterable"])
def test_what_a_failed_call_had_goes_with_its_error(client, failing):
    texts = [f"text {number}" for number in range(40)]

    def iterable():
        yield from texts
        raise TheirError

    def fail():
        try:
            content = [*texts, Path("missing.png")] if failing == "a bad item" else iterable()
            client.encode(content, batch_size=8, prefetch=1)
        except ItemError as error:
            return weakref.ref(error.partial)
        except TheirError as error:
            return weakref.ref(error)
        raise AssertionError("it did not fail")

    client.encode(["a text"])
    gc.collect()
    gc.disable()
    try:
        kept = fail()
        client.encode(["the engine has done with the call before"])
        assert kept() is None
    finally:
        gc.enable()
