"""Which part of the package may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "camoxpert_cli"
LAYERS = [
    {"__init__", "errors", "console", "atomic"},
    {"config", "runs", "launch"},
    {"model", "losses", "metrics", "data"},
    {"report"},
    {"engine"},
    {"commands", "api"},
    {"app"},
    {"__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {
    *("torch", "torchvision", "numpy", "cv2", "timm", "albumentations", "safetensors", "huggingface_hub"),
    *("jinja2", "matplotlib", "onnx", "onnxruntime", "onnxscript", "tensorboard"),
}


def part_of(path: Path) -> str:
    """The first folder or file below the package: what the layers are made of."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "camoxpert_cli":
            yield from (alias.name if alias.name in LEVEL else "__init__" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("camoxpert_cli."):
            yield str(node.module).split(".")[1]


def test_every_part_has_a_layer() -> None:
    """A new folder or module must be given its place."""
    parts = {part_of(path) for path in MODULES}

    assert parts == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_lower_layers_never_import_higher_ones(path: Path) -> None:
    """An import goes down, or stays within one part; the parts of the third layer do not know each other.

    The report is given plain data and knows nobody who measures.
    """
    own = part_of(path)
    if own == "__init__" and path.parent == PACKAGE:
        pytest.skip("the package's face hands on names of the engine when they are asked for")
    parts = set(imported_parts(ast.parse(path.read_text())))
    upward = {part for part in parts if part != own and LEVEL[part] > LEVEL[own]}
    sideways = {part for part in parts if part != own and LEVEL[part] == LEVEL[own] == LEVEL["model"]}
    into_config = parts & {"config"} if LEVEL[own] == LEVEL["model"] else set()
    beyond_report = parts - LAYERS[0] - {own} if own == "report" else set()

    assert upward | sideways | into_config | beyond_report == set()


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["train", "--help"], ["predict", "-h"], ["benchmark", "-h"], ["export", "-h"], ["eval", "-h"]),
        *(["presets"], ["--version"]),
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """Help and version appear without waiting for torch and its like."""
    code = (
        "import sys\n"
        "from camoxpert_cli.app import app\n"
        "try:\n"
        f"    app({arguments!r})\n"
        "finally:\n"
        "    print('\\n' + ' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=PACKAGE.parent
    )
    loaded = set(done.stdout.splitlines()[-1].split())

    assert "camoxpert_cli.app" in loaded
    assert loaded & HEAVY == set()
