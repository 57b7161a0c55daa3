"""Which part of the package may import which."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.places import PACKAGE

LAYERS = [
    {
        "__init__",
        "errors",
        "console",
        "markdown",
        "atomic",
        "regular_file",
        "rerun",
        "signals",
        "supported",
        "targets",
        "temporary",
        "user_path",
    },
    {"config", "run_folder"},
    {"model", "losses", "metrics", "data", "report"},
    {"labels"},
    {"parallel"},
    {"checkpoints"},
    {"inference"},
    {"evaluation"},
    {"engine"},
    {"launch"},
    {"benchmark", "doctor", "status"},
    {"commands"},
    {"api"},
    {"app"},
    {"__main__"},
]
# Rooms that do not know each other, nor what a setting is: they take plain arguments.
BLIND = LAYERS[2]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def part_of(path: Path) -> str:
    """The first folder or file below the package: what the layers are made of."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "camoxpert_cli":
            yield from (alias.name if alias.name in LEVEL else "__init__" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("camoxpert_cli."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Constant) and re.fullmatch(r"camoxpert_cli(\.\w+)+", str(node.value)):
            yield str(node.value).split(".")[1]  # to be run as a program


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {module_of(path) for path in MODULES}


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Modules of the package that are imported, apart from what is imported for the sake of types alone."""
    for node in runtime_nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("camoxpert_cli"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in NAMES else str(node.module)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from runtime_nodes(child)


def test_every_part_has_a_layer() -> None:
    """A new folder or module must be given its place."""
    parts = {part_of(path) for path in MODULES}

    assert parts == set(LEVEL)


@pytest.mark.parametrize("own", sorted(LEVEL.keys() - {"__init__"}))
def test_imports_go_down(own: str) -> None:
    """An import goes to a lower layer, or stays within one room; the lowest layer's files may know each other.

    So does the name of a module that is run as a program. The package's face alone hands on names of others when they
    are asked for.
    """
    for path, tree in TREES.items():
        if part_of(path) != own:
            continue
        parts = set(imported_parts(tree)) - {own}
        upward = {part for part in parts if LEVEL[part] > LEVEL[own]}
        sideways = {part for part in parts if LEVEL[part] == LEVEL[own] > 0}
        unseen = parts & LAYERS[1] if own in BLIND else set()
        # Whoever has scores and images gives them to the report as plain data.
        beyond_report = parts - LAYERS[0] if own == "report" else set()

        assert upward | sideways | unseen | beyond_report == set(), path


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """The modules that each module imports."""
    return {module_of(path): set(imported_modules(tree)) for path, tree in TREES.items()}


def test_no_circles(graph: dict[str, set[str]]) -> None:
    """No file imports one that imports it, by however many steps, at whatever place in the file."""
    below: dict[str, set[str]] = {}

    def reach(module: str, trail: tuple[str, ...]) -> set[str]:
        assert module not in trail, f"a circle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if module not in below:
            below[module] = set().union(*(reach(each, (*trail, module)) | {each} for each in graph.get(module, ())))
        return below[module]

    for module in graph:
        reach(module, ())
