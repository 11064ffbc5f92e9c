"""Who may import whom: reads the imports and holds every file to the table of ARCHITECTURE.md."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "casdk"
LEAVES = ("interop", "server", "compat", "cli", "testing", "__main__")
LIBRARIES = {
    "grpc": "grpc",
    "http": "httpcore",
    "network": "httpcore",
    "websocket": "websockets",
    "frames": "websockets",
}
"""The one transport library of each channel."""
LAZY = {
    "rich",
    "PIL",
    "google",
    "uvicorn",
    "cryptography",
    "docarray",
    "torch",
    "onnxruntime",
    "opentelemetry",
    "pyarrow",
    "pandas",
    "polars",
}
"""Libraries that a core module imports only inside the function that needs them."""
LATE_ROOMS = ("_summary", "_telemetry")
"""Rooms that are themselves imported so."""
EVERYTHING = {"*"}
LINES = 550

# Modules of ours that each room may import to run.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"_rust", "client", "config", "documents", "errors", "models"},
    "client": EVERYTHING,
    "_verbs": {
        *("_callers", "_columns", "_engine", "_foreign", "_inputs", "_merging", "_options", "_originals", "_outcome"),
        *("_results", "_run", "_session", "documents", "errors"),
    },
    "_merging": {
        *("_batches", "_codecs", "_engine", "_feeds", "_foreign", "_inputs", "_options", "_originals", "_outcome"),
        *("_results", "_run", "errors"),
    },
    "_run": {
        *("_batches", "_callbacks", "_calls", "_codecs", "_engine", "_feeds", "_inputs", "_logging", "_options"),
        *("_originals", "_outages", "_outcome", "_packing", "_progress", "_reading", "_results", "_rust", "_session"),
        *("_tasks", "_tracebacks", "_transport", "errors"),
    },
    "_reading": {
        *("_batches", "_calls", "_engine", "_feeds", "_inputs", "_progress", "_results", "_tasks", "errors"),
    },
    "_packing": {
        *("_batches", "_calls", "_codecs", "_engine", "_inputs", "_options", "_session", "documents", "errors"),
    },
    "_callbacks": {
        *("_batches", "_codecs", "_engine", "_options", "_transport", "documents", "errors", "models"),
    },
    "_tasks": set(),
    "_tracebacks": {"errors"},
    "_outcome": {"errors"},
    "_session": {
        "_forks",
        *("_calls", "_downloads", "_engine", "_greenlets", "_logging", "_outages", "_transport", "errors"),
    },
    "_transport": {
        *("_channels", "_codecs", "_credentials", "_engine", "_logging", "_proxy", "_uri", "config", "errors"),
    },
    "_calls": {"_batches", "_outages", "models", "errors", "config"},
    "_outages": set(),
    "_signatures": {"_options"},
    "_settings": {"_credentials", "_inputs", "_merging", "_options", "_telemetry", "_uri", "config", "errors"},
    "_options": {"_calls", "models", "errors", "config"},
    "_results": {"_codecs", "_options", "_outcome", "documents", "errors"},
    "_remarks": set(),
    "_codecs": {"_remarks", "_rust", "models", "documents", "errors"},
    "_foreign": set(),
    "_originals": {
        *("_columns", "_foreign", "_inputs", "_options", "_outcome", "_results", "documents", "errors", "models"),
    },
    "_inputs": {"_columns", "_foreign", "_rust", "models", "documents", "errors"},
    "_batches": {"_foreign", "errors"},
    "_feeds": {"_threads", "errors"},
    "_credentials": {"_engine", "_threads", "errors"},
    "_downloads": {"_logging", "_remarks", "config", "errors"},
    "_callers": {"_engine", "_mailbox", "errors"},
    "_greenlets": {"_uri", "errors"},
    "_modules": {"_uri", "errors"},
    "_forks": set(),
    "_engine": {"_forks", "_greenlets", "_logging", "_mailbox", "_threads", "errors"},
    "_logging": {"_threads", "errors"},
    "_threads": {"errors"},
    "_mailbox": set(),
    "_columns": {"_foreign", "errors"},
    "_progress": {"_logging", "_threads", "errors"},
    "_telemetry": {"_codecs", "_logging", "_rust", "_uri", "errors"},
    "_uri": {"errors"},
    "_proxy": {"_uri", "errors"},
    "_channels": {"_channels.base", "_uri", "config", "errors"},
    "_channels.base": {"_logging", "_remarks", "_uri", "config", "errors"},
    "_channels.grpc": {
        *("_channels.base", "_channels.causes", "_channels.certificates", "_channels.ends", "_channels.forks"),
        "_channels.silence",
        *("_logging", "_remarks", "errors", "config"),
    },
    "_channels.http": {
        *("_channels.addresses", "_channels.base", "_channels.causes", "_channels.network", "_logging", "_remarks"),
        *("errors", "config", "_rust"),
    },
    "_channels.causes": set(),
    "_channels.ends": set(),
    "_channels.silence": set(),
    "_channels.forks": {"_channels.base", "errors"},
    "_channels.certificates": {"_channels.base", "errors"},
    "_channels.addresses": {"_channels.base", "_uri", "errors"},
    "_channels.network": {"_channels.addresses", "_channels.base"},
    "_channels.frames": set(),
    "_channels.websocket": {
        *("_channels.addresses", "_channels.base", "_channels.causes", "_channels.frames"),
        *("_logging", "_remarks", "_uri", "errors", "config", "_rust"),
    },
    "models": {"documents", "errors"},
    "documents": {"_archive", "_rust", "_selectors", "errors"},
    "_archive": {"documents", "errors"},
    "_selectors": {"_rust", "errors"},
    "_summary": set(),
    "_images": {"errors"},
    "config": {"errors"},
    "_extras": set(),
    "errors": set(),
}
# What a room may import inside a function on top of that.
MAY_IMPORT_LATE: dict[str, set[str]] = {
    "documents": {"_images", "_summary", "interop"},
    "_inputs": {"interop"},
    "_originals": {"interop"},
    "_archive": {"documents"},
    "_images": {"_downloads", "_rust"},
    "models": {"_columns"},
}
# Standard modules that would make a decision into an act.
ACTS = {"asyncio", "socket", "time", "threading", "ssl", "selectors", "os", "random"}
FORBIDDEN = {"_calls": ACTS, "_batches": ACTS, "_outages": ACTS}


class Import(NamedTuple):
    name: str
    line: int
    late: bool


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {
    module_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if "wire" not in path.relative_to(PACKAGE).parts
}
CORE = {module: path for module, path in FILES.items() if module.split(".")[0] not in LEAVES}


def imports(path: Path) -> Iterator[Import]:
    """Yield what a file imports to run; imports for types alone are free."""
    yield from _walk(ast.parse(path.read_text()), late=False)


def _walk(node: ast.AST, late: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, late) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: write the whole name of the module"
        if node.module == "casdk":
            yield from (Import(f"casdk.{alias.name}", node.lineno, late) for alias in node.names)
        else:
            yield Import(node.module or "", node.lineno, late)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def is_within(name: str, rooms: set[str]) -> bool:
    return rooms == EVERYTHING or any(name == room or name.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("module", CORE)
def test_imports_of_ours(module):
    assert module in MAY_IMPORT, f"{module} is a new room: give it a row here and in ARCHITECTURE.md"
    allowed, late = MAY_IMPORT[module], MAY_IMPORT_LATE.get(module, set())
    for name, line, is_late in imports(CORE[module]):
        if name.split(".")[0] != "casdk":
            continue
        name = name.removeprefix("casdk.")
        fits = (is_within(name, allowed) and name.split(".")[0] not in LEAVES) or (is_late and is_within(name, late))
        assert fits, f"{module}, line {line}: may not import casdk.{name}"


@pytest.mark.parametrize("module", CORE)
def test_imports_of_others(module):
    library = LIBRARIES.get(module.removeprefix("_channels."))
    for name, line, late in imports(CORE[module]):
        root = name.split(".")[0]
        assert root not in FORBIDDEN.get(module, ()), f"{module}, line {line}: may not import {name}"
        if root in {*LIBRARIES.values(), "httpx"}:
            fits = root == library and not late if library else late and root == "httpx"
            assert fits, f"{module}, line {line}: may not import {name}"
        if root in LAZY:
            assert late or module in LATE_ROOMS, f"{module}, line {line}: {name} must be imported where it is used"


def test_extras_are_those_promised():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"server", "cli", "image", "otel", "docarray", "arrow"} <= set(project["optional-dependencies"])


@pytest.mark.parametrize(("channel", "library"), LIBRARIES.items())
def test_a_channel_imports_its_library(channel, library):
    assert library in {name.split(".")[0] for name, _, _ in imports(CORE[f"_channels.{channel}"])}


def test_runtime_dependencies_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {d.split(">")[0].split("<")[0].split("=")[0] for d in project["dependencies"]}
    assert declared == {"numpy", "msgspec", "grpcio", "httpx", "websockets", "rich"}
    modules = {"grpcio": "grpc"}
    brought = {"httpcore"}  # httpx's lower half: httpx 0.28 is nothing without its 1.x
    known = {modules.get(name, name) for name in declared} | brought | {"casdk"} | sys.stdlib_module_names | LAZY
    for module, path in CORE.items():
        for name, line, _ in imports(path):
            assert name.split(".")[0] in known, f"{module}, line {line}: {name} is no declared dependency"


def test_every_rule_has_a_room():
    assert set(MAY_IMPORT) == set(CORE)
    assert set(MAY_IMPORT_LATE) | set(FORBIDDEN) <= set(CORE)


@pytest.mark.parametrize("module", [m for m in CORE if m != "__init__"])
def test_architecture_names_the_room(module):
    table = [line for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines() if line.startswith("|")]
    room = f"`{module.split('.')[0]}{'/' if module.startswith('_channels') else '.py'}`"
    assert any(room in line.split("|")[1] for line in table), f"ARCHITECTURE.md has no row for {room}"


def lines_of(path: Path) -> int:
    """Count lines, overloads aside: they state one signature several times over."""
    text = path.read_text()
    if path.suffix != ".py":
        return len(text.splitlines())
    overloads = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
    ]
    return len(text.splitlines()) - sum((n.end_lineno or 0) - n.lineno + 2 for n in overloads)


SOURCES = [
    path.relative_to(ROOT)
    for folder, pattern in (("python", "*.py"), ("rust", "*.rs"), ("tests", "*.py"), ("benches", "*.py"))
    for path in sorted((ROOT / folder).rglob(pattern))
    if not {"wire", "target"} & set(path.relative_to(ROOT).parts)
]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_file_can_be_seen_at_once(path):
    assert lines_of(ROOT / path) <= LINES, f"{path} has grown beyond {LINES} lines: find the second noun in it"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_file_is_named_after_its_thing(path):
    assert path.stem.strip("_") not in {"util", "utils", "helper", "helpers", "manager", "common", "misc", "tools"}


def test_the_rust_core_knows_no_python():
    manifest = tomllib.loads((ROOT / "rust" / "core" / "Cargo.toml").read_text())
    sections = [manifest, *manifest.get("target", {}).values()]
    crates = {
        crate
        for section in sections
        for kind in ("dependencies", "dev-dependencies", "build-dependencies")
        for crate in section.get(kind, {})
    }
    assert crates
    assert not crates & {"pyo3", "numpy", "pyo3-ffi", "pyo3-build-config"}
    assert "forbid(unsafe_code)" in (ROOT / "rust" / "core" / "src" / "lib.rs").read_text() or (
        tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["lints"]["rust"]["unsafe_code"] == "forbid"
    )
