"""How the interpreter starts camox: what it loads, where it finds itself, and what it writes to a stream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import camoxpert_cli
from tests.helpers.places import ROOT

CAMOX = Path(sys.executable).with_name("camox")
HEAVY = {
    *("torch", "torchvision", "numpy", "cv2", "timm", "albumentations", "safetensors", "huggingface_hub"),
    *("jinja2", "matplotlib", "onnx", "onnxruntime", "onnxscript", "tensorboard"),
}
COMMANDS = [
    *(["--help"], ["train", "--help"], ["predict", "-h"], ["benchmark", "-h"], ["export", "-h"], ["eval", "-h"]),
    *(["presets"], ["--version"]),
]
# Calls every command that needs no more, one after another, then `main`, and says what is loaded and kept at the end.
PROGRAM = f"""
import atexit, gc, sys

@atexit.register  # hooks are called last to first
def tell():
    print(f"\\nkept from the last collection: {{gc.get_freeze_count() > 0}}")
    print(*sys.modules)

from camoxpert_cli.app import app, main
for arguments in {COMMANDS[:-1]!r}:
    try:
        app(arguments)
    except SystemExit as end:
        assert end.code == 0, arguments
sys.argv = ["camox", *{COMMANDS[-1]!r}]
main()
"""


def test_help_loads_nothing_heavy() -> None:
    """Help and version appear without waiting for torch and its like.

    What is alive as a command ends is kept from Python's last collections, which would look at all of it.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    *_, kept, modules = done.stdout.splitlines()

    assert "camoxpert_cli.app" in modules.split()
    assert set(modules.split()) & HEAVY == set()
    assert kept == "kept from the last collection: True"


def test_the_installed_command(tmp_path: Path) -> None:
    """`camox` agrees with the package on the version, away from the checkout."""
    done = subprocess.run([str(CAMOX), "--version"], capture_output=True, text=True, timeout=60, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, f"camox {camoxpert_cli.__version__}\n")


def test_presets_away_from_the_checkout(tmp_path: Path) -> None:
    """`python -m camoxpert_cli` carries its presets along, and writes to a stream that takes ASCII alone."""
    (tmp_path / "größe.yaml").write_text("extends: kaggle-2xT4\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "camoxpert_cli", "presets", "check", "größe.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=environment,
    )

    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/gr\\xf6\\xdfe.yaml is valid; it extends preset kaggle-2xT4" in done.stdout
