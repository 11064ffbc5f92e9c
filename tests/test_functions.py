"""Functions stay readable: they have few parameters, and no closure returns another closure."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "python" / "casdk"
MOST_PARAMETERS = 9
PRESCRIBED = {
    "_calls/settings.py: read_settings": "takes what Client does",
    "_engine/logging.py: _draft": "takes what logging.Logger.makeRecord does",
}
"""Private functions whose parameters somebody else decides about."""
FILES = [str(path.relative_to(PACKAGE)) for path in sorted(PACKAGE.rglob("*.py")) if not path.stem.endswith("_pb2")]
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@cache
def tree_of(file: str) -> ast.Module:
    """Return what a file is made of. Nothing is parsed where a process collects this test and runs others."""
    return ast.parse((PACKAGE / file).read_text())


def functions(tree: ast.AST) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield each function that a file defines, after the names of what it is in and its own."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not isinstance(child, ast.ClassDef):
                yield child.name, child
            yield from ((f"{child.name}.{name}", function) for name, function in functions(child))
        else:
            yield from functions(child)


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of its parameters, but for the object or class that a method is called on."""
    taken = function.args
    named = [one.arg for one in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg) if one]
    return [name for name in named if name not in ("self", "cls")]


def is_private(file: str, name: str) -> bool:
    """Whether only its own module calls it: its name begins with an underscore, or that of what it is in does."""
    parts = [*file.removesuffix(".py").split("/"), *name.split(".")]
    return any(part.startswith("_") and not part.endswith("__") for part in parts)


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """Yield what a function's own body is made of: a function in it is yielded, but nothing that is in that one."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function):
            waiting += ast.iter_child_nodes(node)


def returned_functions(function: Function) -> list[Function]:
    """Return the functions that a function makes and returns."""
    nodes = list(own_nodes(function))
    made = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    values = [node.value for node in nodes if isinstance(node, ast.Return)]
    if isinstance(function, ast.Lambda):
        values.append(function.body)
    found = [made.get(value.id) if isinstance(value, ast.Name) else value for value in values]
    return [one for one in found if isinstance(one, Function)]


def test_no_private_function_has_more_parameters_than_can_be_read():
    longer = {
        f"{file}: {name.rpartition('.')[2]}"
        for file in FILES
        for name, function in functions(tree_of(file))
        if is_private(file, name) and len(parameters_of(function)) > MOST_PARAMETERS
    }
    assert longer == set(PRESCRIBED)


def test_no_closure_returns_a_closure():
    found = [
        f"{file}, line {closure.lineno}"
        for file in FILES
        for node in ast.walk(tree_of(file))
        if isinstance(node, Function)
        for closure in own_nodes(node)
        if isinstance(closure, Function) and returned_functions(closure)
    ]
    assert found == []


def test_what_is_looked_for_is_found():
    tree = ast.parse("def a():\n def b():\n  def c(): pass\n  return c\n return lambda: lambda: 1")
    [outer] = [node for _, node in functions(tree) if node.name == "a"]
    assert [bool(returned_functions(one)) for one in own_nodes(outer) if isinstance(one, Function)] == [True, True]
