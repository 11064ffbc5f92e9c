"""The names that `import casdk` brings, and that it starts and imports nothing else."""

import importlib
import inspect
import json
import os
import pydoc
import re
import subprocess
import sys
import typing

import casdk
import pytest
from casdk._calls.options import Options

PUBLIC = ("client", "config", "documents", "errors", "models", "servers")
VERBS = ("encode", "stream", "encode_to", "rank", "index", "search", "space", "profile", "close")
TWINS = {
    **{(casdk.Client, verb): f"a{verb}" for verb in VERBS},
    (casdk.Client, "__enter__"): "__aenter__",
    (casdk.Client, "__exit__"): "__aexit__",
}

WATCH = """
import json, os, sys, threading
import numpy, msgspec

WATCHED = ("socket.", "subprocess.", "os.", "_thread.start", "signal.", "ctypes.", "urllib.", "shutil.", "tempfile.")
HARMLESS = ("os.listdir", "os.scandir")
seen = []

def hook(event, arguments):
    if event == "open" and any(mark in str(arguments[1]) for mark in "wxa+"):
        seen.append((event, repr(arguments)))
    if event.startswith(WATCHED) and event not in HARMLESS:
        seen.append((event, repr(arguments)))

environment, threads = dict(os.environ), threading.active_count()
sys.addaudithook(hook)
import casdk
print(json.dumps({
    "seen": seen,
    "threads": threading.active_count() - threads,
    "environment": dict(os.environ) == environment,
    "modules": sorted(sys.modules),
}))
"""


@pytest.fixture(scope="module")
def imported():
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, env=environment, check=True)
    assert run.stderr == ""
    return json.loads(run.stdout)


def test_import_does_nothing(imported):
    assert imported["seen"] == []
    assert imported["threads"] == 0
    assert imported["environment"]


@pytest.mark.parametrize(
    "library",
    ["grpc", "httpx", "websockets", "rich", "PIL", "google.protobuf", "docarray", "opentelemetry", "pandas", "pyarrow"],
)
def test_libraries_are_imported_when_used(imported, library):
    assert "casdk.client" in imported["modules"]
    assert library not in imported["modules"]


@pytest.mark.parametrize("leaf", ["server", "interop", "compat", "cli", "bulk"])
def test_leaves_are_imported_when_asked_for(imported, leaf):
    assert f"casdk.{leaf}" not in imported["modules"]


def test_public_names_are_those_of_the_public_modules():
    parts = [name for module in PUBLIC for name in importlib.import_module(f"casdk.{module}").__all__]
    assert len(parts) == len(set(parts))
    assert set(casdk.__all__) == {*parts, "__version__"}
    assert len(casdk.__all__) == len(set(casdk.__all__))


@pytest.mark.parametrize("name", casdk.__all__)
def test_a_public_name_is_documented(name):
    thing = getattr(casdk, name)
    if inspect.isclass(thing):
        assert (inspect.getdoc(thing) or "").strip(), f"{name} has no docstring"
        assert thing.__module__.split(".")[0] == "casdk"


def test_nothing_else_is_public():
    names = {name for name in vars(casdk) if not name.startswith("_")}
    modules = {name for name in names if inspect.ismodule(getattr(casdk, name))}
    assert names - modules - {"annotations"} == set(casdk.__all__) - {"__version__"}


def public_methods(kind):
    return {name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}


def test_every_method_of_a_client_has_a_twin():
    assert public_methods(casdk.Client) == {*VERBS, *(f"a{verb}" for verb in VERBS)}


def parameters(function):
    """What it takes; an async twin takes async iterables, too, which its annotations say by a prefix."""
    found = inspect.signature(function).parameters.values()
    return [p.replace(annotation=str(p.annotation).replace("Async", "")) for p in found]


def yields(annotation):
    """What a generator of either kind yields; what is none, as it is."""
    found = re.fullmatch(r"(?:Async)?Generator\[(.*?)(?:, None)+\]", str(annotation))
    return found[1] if found else str(annotation)


@pytest.mark.parametrize(("kind", "name"), TWINS, ids=lambda part: getattr(part, "__name__", part))
def test_twins_take_the_same(kind, name):
    one, other = getattr(kind, name), getattr(kind, TWINS[kind, name])
    assert parameters(one) == parameters(other)
    streams = "AsyncGenerator" in str(other.__annotations__["return"])
    assert inspect.iscoroutinefunction(other) is not streams
    assert not inspect.iscoroutinefunction(one)
    ones, others = typing.get_overloads(one), typing.get_overloads(other)
    assert [parameters(overload) for overload in ones] == [parameters(overload) for overload in others]
    returned = [[yields(f.__annotations__["return"]) for f in overloads] for overloads in (ones, others)]
    assert returned[0] == returned[1]


@pytest.mark.parametrize("name", [name for kind, name in TWINS if not name.startswith("_")])
def test_twins_are_documented_once(name):
    assert inspect.getdoc(getattr(casdk.Client, name))
    twin = inspect.getdoc(getattr(casdk.Client, f"a{name}"))
    assert twin.startswith(f"`{name}`, asynchronously")


def options_of(verb):
    """The options of each verb: a stream returns no Responses; rank, index and search no matrix, and are not bulk."""
    every = set(Options.__struct_fields__)
    if verb.endswith("stream"):
        return every - {"out", "result", "on_done", "on_always", "return_responses"}
    return every if verb.endswith("encode") else every - {"dtype", "out", "dedupe", "errors", "result", "patience"}


OF_VERBS = [name for verb in ("encode", "stream", "rank", "index", "search") for name in (verb, f"a{verb}")]


@pytest.mark.parametrize("verb", OF_VERBS)
def test_every_option_is_seen_with_its_default(verb):
    function = getattr(casdk.Client, verb)
    seen = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    own = seen.keys() & {"source", "idempotent_index", "limit"}
    defaults = Options()
    assert seen.items() - {(name, seen[name]) for name in own} == {
        (name, getattr(defaults, name)) for name in options_of(verb)
    }


@pytest.mark.parametrize("verb", [verb for verb in OF_VERBS if verb in VERBS])
def test_every_option_is_documented_where_the_user_looks(verb):
    shown = pydoc.plain(pydoc.render_doc(getattr(casdk.Client, verb)))
    for name in options_of(verb):
        assert re.search(rf"^ +{name}: \S", shown, re.MULTILINE), name
    assert "casdk._" not in shown
    assert "**" not in shown


@pytest.mark.parametrize("name", ["", *casdk.__all__])
def test_help_shows_everything(name):
    thing = getattr(casdk, name) if name else casdk
    if not isinstance(thing, str):  # an alias of types and the version have no page of their own
        assert pydoc.plain(pydoc.render_doc(thing)).startswith("Python Library Documentation")


@pytest.mark.parametrize(
    ("verb", "name", "meant"),
    [
        ("encode", "batchsize", "batch_size"),
        ("encode", "show_progres", "show_progress"),
        ("rank", "sources", "source"),
        ("search", "time_out", "timeout"),
        ("search", "limits", "limit"),
        ("encode", "limits", None),
        ("index", "on_don", "on_done"),
        ("encode", "zzz", None),
        ("search", "dtype", None),
    ],
)
def test_an_unknown_option_says_which_was_meant(verb, name, meant):
    with casdk.Client("grpc://127.0.0.1:1") as client, pytest.raises(TypeError, match=f"argument '{name}'") as caught:
        getattr(client, verb)(["a"], **{name: 1})
    assert (f"did you mean {meant!r}?" in str(caught.value)) is (meant is not None)
