"""The public API is what `tests/api.txt` records; a change of it has to renew that file, and so is seen in a diff.

``.venv/bin/python tests/test_api.py`` renews it. It is read from the source and not from what Python makes of it, so
that it is the same on every version of Python, and needs none of the libraries that `casdk.interop` is for.
"""

import ast
import difflib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "casdk"
LISTING = Path(__file__).parent / "api.txt"
PUBLIC = [
    "casdk",
    "casdk.testing",
    "casdk.testing.certificates",
    "casdk.testing.faults",
    "casdk.bulk",
    "casdk.compat",
    "casdk.server",
    *(f"casdk.interop.{path.stem}" for path in sorted((PACKAGE / "interop").glob("[a-z]*.py"))),
]
"""Modules whose `__all__` is for everybody."""

Tree = dict[str, ast.stmt]


def file_of(module: str) -> Path:
    path = ROOT / "python" / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def tree_of(module: str) -> Tree:
    """Return the statements of a module by the name that each defines."""
    found: Tree = {}
    for node in ast.parse(file_of(module).read_text()).body:
        for name in defined(node):
            found[name] = node
    return found


def defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.AnnAssign):
        yield ast.unparse(node.target)
    elif isinstance(node, ast.Assign):
        yield from (ast.unparse(target) for target in node.targets)
    elif isinstance(node, ast.TypeAlias if hasattr(ast, "TypeAlias") else ()):
        yield ast.unparse(node.name)


def resolved(module: str, name: str) -> tuple[str, ast.stmt | None]:
    """Return the module that defines a name, and the statement; None for what is not of Python's source."""
    node = tree_of(module).get(name)
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("casdk"):
        if node.module == "casdk._rust":
            return node.module, None
        if file_of(f"{node.module}.{name}").exists():
            return module, node
        [original] = [alias.name for alias in node.names if name in (alias.asname, alias.name)]
        return resolved(node.module, original)
    return module, node


def lines_of(module: str, name: str, node: ast.stmt | None, indent: str = "") -> Iterator[str]:
    """Yield one line for a function or an attribute; for a class its members, too."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for decorator in node.decorator_list:
            yield f"{indent}@{ast.unparse(decorator)}"
        kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        yield f"{indent}{kind} {name}({ast.unparse(node.args)}){returns}"
    elif isinstance(node, ast.ClassDef):
        bases = [ast.unparse(base) for base in (*node.bases, *node.keywords)]
        yield f"{indent}class {name}({', '.join(bases)})"
        for member in members(module, node):
            yield from lines_of(module, "".join(defined(member)), member, indent + "    ")
    elif isinstance(node, ast.AnnAssign):
        value = f" = {ast.unparse(node.value)}" if node.value else ""
        yield f"{indent}{name}: {ast.unparse(node.annotation)}{value}"
    elif isinstance(node, ast.Assign):
        yield f"{indent}{name} = {ast.unparse(node.value)}"
    else:
        yield f"{indent}{name}"


def members(module: str, kind: ast.ClassDef) -> Iterator[ast.stmt]:
    """Yield what a class lets others see, private bases' members included; what Python calls by itself is private."""
    for base in kind.bases:
        home, found = resolved(module, ast.unparse(base))
        if isinstance(found, ast.ClassDef) and found.name.startswith("_"):
            yield from members(home, found)
    for node in kind.body:
        names = list(defined(node))
        if names and (not names[0].startswith("_") or names[0] in ("__init__", "__new__")):
            yield node


def public_names(module: str) -> list[str]:
    [node] = [node for node in tree_of(module).values() if "__all__" in defined(node)]
    assert isinstance(node, ast.Assign)
    return sorted(ast.literal_eval(node.value))


def listing() -> list[str]:
    lines = []
    for module in PUBLIC:
        lines.append(f"# {module}")
        for name in public_names(module):
            home, node = resolved(module, name)
            lines += lines_of(home, name, node)
        lines.append("")
    return lines[:-1]


def test_the_public_api_is_the_recorded_one():
    recorded = LISTING.read_text().splitlines()
    changes = list(difflib.unified_diff(recorded, listing(), "tests/api.txt", "the source", lineterm="", n=1))
    assert not changes, "renew it with: .venv/bin/python tests/test_api.py\n" + "\n".join(changes)


def test_every_name_is_found_in_the_source():
    for module in PUBLIC:
        for name in public_names(module):
            home, node = resolved(module, name)
            assert node is not None or home == "casdk._rust", f"{module}.{name}"


if __name__ == "__main__":
    LISTING.write_text("\n".join(listing()) + "\n")
