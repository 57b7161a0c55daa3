"""How the interpreter starts camox: what it loads, where it finds itself, and what it writes to a stream."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import camoxpert_cli
from tests.helpers.places import ROOT

CAMOX = Path(sys.executable).with_name("camox")
HEAVY = {
    *("torch", "torchvision", "numpy", "cv2", "timm", "albumentations", "safetensors", "huggingface_hub"),
    *("jinja2", "matplotlib", "onnx", "onnxruntime", "onnxscript", "tensorboard", "wandb"),
}
COMMANDS = [
    *(["--help"], ["train", "--help"], ["predict", "-h"], ["benchmark", "-h"], ["export", "-h"], ["eval", "-h"]),
    *(["presets"], ["status", "RUN"], ["--version"]),  # RUN is a folder with a checkpoint
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
    arguments = [sys.argv[1] if each == "RUN" else each for each in arguments]
    try:
        app(arguments)
    except SystemExit as end:
        assert end.code == 0, arguments
sys.argv = ["camox", *{COMMANDS[-1]!r}]
main()
"""


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    """Help, version and the status of a run appear without waiting for torch and its like.

    What is alive as a command ends is kept from Python's last collections, which would look at all of it.
    """
    content = {"format": "camox", "epoch": 3, "network": {"weight": 1.0}}
    with zipfile.ZipFile(tmp_path / "last.pth", "w") as archive:
        archive.writestr("last/data.pkl", pickle.dumps(content, protocol=2))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    *said, kept, modules = done.stdout.splitlines()

    assert "Saved            last.pth, up to this position" in said

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
