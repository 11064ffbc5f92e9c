"""Every import is allowed by the table of rooms in ARCHITECTURE.md, and every permission there is used."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "casdk"
LEAVES = ("interop", "server", "compat", "cli", "testing", "wire", "__main__")
LIBRARIES = {
    "libraries.grpc": "grpc",
    "libraries.http": "httpx",
    "libraries.websocket": "websockets",
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
    "obstore",
    "pyarrow",
    "pandas",
    "polars",
}
"""Libraries that a core module imports only inside the function that needs them."""
LATE_ROOMS = ("documents.summary", "_calls.telemetry")
"""Rooms that are themselves imported so."""
LINES = 500

# Standard modules that would make a decision into an act.
ACTS = {"asyncio", "socket", "time", "threading", "ssl", "selectors", "os", "random"}
FORBIDDEN = {
    f"_calls.{name}": ACTS
    for name in (
        "allowance",
        "batches",
        "choice",
        "decisions",
        "hedging",
        "isolation",
        "outages",
        "pace",
        "space",
        "tuning",
        "window",
    )
}


class Import(NamedTuple):
    name: str
    line: int
    late: bool


@cache
def tree_of(path: Path) -> ast.Module:
    """Return what a file is made of. Nothing is parsed where a process collects this test and runs others."""
    return ast.parse(path.read_text())


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if not path.stem.endswith("_pb2")}
CORE = {module: path for module, path in FILES.items() if module.split(".")[0] not in LEAVES}


def imports(path: Path) -> Iterator[Import]:
    """Yield what a file imports to run; imports for types alone are free."""
    yield from _walk(tree_of(path), late=False)


def _walk(node: ast.AST, late: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, late) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: write the whole name of the module"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            is_module = node.module == "casdk" or name.removeprefix("casdk.") in FILES
            yield Import(name if is_module else node.module or "", node.lineno, late)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def rooms() -> Iterator[tuple[str, set[str]]]:
    """Yield each room of ARCHITECTURE.md's table, a file or a folder, and the rooms that it may import."""
    _, _, page = (ROOT / "ARCHITECTURE.md").read_text().partition("## Rooms")
    for line in page.partition("\n## ")[0].splitlines():
        if line.startswith("| `") and "rust/" not in line:
            room, _, others = line.split("|")[1:4]
            yield (
                room.split("`")[1].removesuffix(".py").rstrip("/"),
                {name.removesuffix(".py") for name in re.findall(r"`([^`]+)`", others)},
            )


ROOMS = dict(rooms())


def room_of(name: str) -> str:
    """Return the room of a module; a name that is none is imported from the package itself."""
    root = name.split(".")[0]
    return root if root in ROOMS else "__init__"


def used(module: str) -> Iterator[tuple[str, Import]]:
    """Yield the modules of ours that one imports."""
    for found in imports(FILES[module]):
        if found.name.split(".")[0] == "casdk":
            name = found.name.removeprefix("casdk").lstrip(".")
            yield (name or "__init__"), found


def test_imports_of_ours():
    for module in FILES:
        room = module.split(".")[0]
        assert room in ROOMS, f"{module} is in a new room: give it a row in ARCHITECTURE.md"
        for name, found in used(module):
            other = room_of(name)
            assert other == room or other in ROOMS[room], f"{module}, line {found.line}: may not import casdk.{name}"


def test_every_row_is_a_room_and_every_permission_is_used():
    seen: dict[str, set[str]] = {room_of(module): set() for module in (*FILES, "_rust")}
    for module in FILES:
        seen[room_of(module)] |= {room_of(name) for name, _ in used(module)}
    assert {room: others - {room} for room, others in seen.items()} == ROOMS


def test_no_room_imports_in_a_circle():
    def reached(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, " -> ".join((*path, room))
        for other in ROOMS[room]:
            reached(other, (*path, room))

    for room in ROOMS:
        reached(room, ())


def test_no_file_imports_in_a_circle():
    """Nor does one that imports late: what two files need of each other goes into a third."""
    graph = {module: {name if name in FILES else room_of(name) for name, _ in used(module)} for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@cache
def published_of(module: str) -> set[str] | None:
    """Return the names that a file publishes, if it says which ones."""
    for node in tree_of(FILES[module]).body if module in FILES else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def test_only_what_a_file_publishes_is_imported_from_it():
    for module, path in FILES.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("casdk."):
                source = (node.module or "").removeprefix("casdk.")
                published = published_of(source)
                names = {alias.name for alias in node.names if f"{source}.{alias.name}" not in FILES}
                assert published is None or names <= published, f"{module}, line {node.lineno}: not in __all__"


def test_imports_of_others():
    for module, path in CORE.items():
        library = LIBRARIES.get(module.removeprefix("_transport.channels."))
        for name, line, late in imports(path):
            root = name.split(".")[0]
            assert root not in FORBIDDEN.get(module, ()), f"{module}, line {line}: may not import {name}"
            if root in {*LIBRARIES.values(), "httpx"}:
                fits = root == library and not late if library else late and root == "httpx"
                assert fits, f"{module}, line {line}: may not import {name}"
            if root in LAZY:
                assert late or module in LATE_ROOMS, f"{module}, line {line}: {name} must be imported where it is used"


def test_extras_are_those_promised():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"libraries", "server", "cli", "image", "otel", "docarray", "arrow"} <= set(project["optional-dependencies"])


@pytest.mark.parametrize(("channel", "library"), LIBRARIES.items())
def test_a_channel_imports_its_library(channel, library):
    assert library in {name.split(".")[0] for name, _, _ in imports(CORE[f"_transport.channels.{channel}"])}


def test_runtime_dependencies_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {d.split(">")[0].split("<")[0].split("=")[0] for d in project["dependencies"]}
    assert declared == {"numpy", "msgspec", "httpx", "rich"}
    known = declared | {"casdk"} | sys.stdlib_module_names | LAZY
    for module, path in CORE.items():
        own = LIBRARIES.get(module.removeprefix("_transport.channels."))
        for name, line, _ in imports(path):
            assert name.split(".")[0] in known | {own}, f"{module}, line {line}: {name} is no declared dependency"


def test_every_rule_has_a_file():
    assert set(FORBIDDEN) | set(LATE_ROOMS) <= set(CORE)


def lines_of(path: Path) -> int:
    """Count lines without overloads, which repeat one signature, and without the examples in docstrings."""
    lines = len(path.read_text().splitlines())
    if path.suffix != ".py" or lines <= LINES:
        return lines
    nodes = [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    overloads = [
        node for node in nodes if any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
    ]
    examples = [(ast.get_docstring(node) or "").partition("\nExamples:\n")[2] for node in nodes]
    repeated = sum((node.end_lineno or 0) - node.lineno + 2 for node in overloads)
    return lines - repeated - sum(example.count("\n") + 2 for example in examples if example)


SOURCES = [
    path.relative_to(ROOT)
    for folder, pattern in (("python", "*.py"), ("rust", "*.rs"), ("tests", "*.py"), ("benches", "*.py"))
    for path in sorted((ROOT / folder).rglob(pattern))
    if not path.stem.endswith("_pb2") and "target" not in path.relative_to(ROOT).parts
]


def test_a_file_can_be_seen_at_once():
    longer = {str(path): lines for path in SOURCES if (lines := lines_of(ROOT / path)) > LINES}
    assert longer == {}, f"a file has grown beyond {LINES} lines: find the second noun in it"


def test_a_file_is_named_after_its_thing():
    names = {path.stem.strip("_") for path in SOURCES}
    assert not names & {"util", "utils", "helper", "helpers", "manager", "common", "misc", "tools"}


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


def name_of(path: Path) -> str:
    """Return what the test file of a source file is named after: itself, or its folder."""
    return (path.parent.name if path.stem in ("__init__", "__main__") else path.stem).strip("_")


OWN_FOLDERS = ("cli", "server", "testing", "wire")
"""Rooms whose tests are in a folder of the same name; those of all other files may be anywhere in tests/."""


def names_of_tests(path: Path) -> set[str]:
    """Return the names that the tests of a source file may have."""
    if path.suffix == ".py":
        room = path.parts[2]
        return names_in(f"tests/{room}" if room in OWN_FOLDERS else "tests")
    return names_in("rust/core/tests" if "core" in path.parts else "tests/rust")


@cache
def names_in(folder: str) -> set[str]:
    """Return what the tests of a folder are named after."""
    if folder.startswith("rust"):
        return {test.stem for test in (ROOT / folder).glob("*.rs")}
    # Those of another library run in an environment of its own, where they are named after it: with_ray.py.
    tests = (test.stem.partition("_") for test in (ROOT / folder).rglob("*_*.py"))
    return {name for kind, _, name in tests if kind in ("test", "with")}


def has_tests_inside(path: Path) -> bool:
    """Whether a file of Rust has its tests beside it, as one has of which nothing is public."""
    return path.suffix == ".rs" and "#[cfg(test)]" in path.read_text()


def border_of(path: Path) -> Path:
    """Return the file of the core through which tests reach another one: a folder's files are private to the file that
    is named after it, and a test sees only what is public."""
    folder = path.parent
    return folder.with_suffix(".rs") if folder.name != "src" and "core" in path.parts else path


def has_code(path: Path) -> bool:
    """Whether there is something to be tested in a file: one that only lists names defines no function."""
    word = "fn " if path.suffix == ".rs" else r"^ *(async )?def "
    return re.search(word, (ROOT / path).read_text(), re.MULTILINE) is not None


def test_a_file_has_a_test_file_of_its_name():
    tested = [
        path for path in SOURCES if path.parts[0] == "python" or (path.parts[0] == "rust" and "src" in path.parts)
    ]
    for path in filter(has_code, tested):
        border = border_of(path)
        assert name_of(border) in names_of_tests(path) or has_tests_inside(path), (
            f"write the tests of {path} in a file named after {name_of(border)}"
        )
