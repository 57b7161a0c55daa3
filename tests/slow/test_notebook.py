"""The notebook of `camox guide kaggle --notebook`, run from its first cell to its last in a real kernel, in small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from tests.helpers.forked import RealPopen
from tests.helpers.places import ROOT
from tests.helpers.tiny_data import TEST_IMAGES, write_tiny_data

nbformat: Any = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install '.[notebook]'")
nbclient: Any = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install '.[notebook]'")
pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install '.[notebook]'")

LIMIT = 300  # seconds for a cell
PRESET = """\
summary: small
model: {backbone: test_resnet, num_experts: 2, pretrained: off}
data: {img_size: 64, val_fraction: 0.25, num_workers: 0, cache: off}
train: {epochs: 2, stage1_epochs: 1, batch_size: 4, stage2_batch_size: 3}
run: {device: cpu, session_limit: 12h}
"""


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder next to a dataset in COD10K's layout; `camox` is that of this checkout."""
    monkeypatch.setattr(subprocess, "Popen", RealPopen)
    data = write_tiny_data(tmp_path / "tiny")
    for ours, theirs in (("TrainDataset", "Train"), ("TestDataset/TINY", "Test")):
        (tmp_path / "COD10K-v3" / theirs).mkdir(parents=True)
        (data / ours / "Imgs").rename(tmp_path / "COD10K-v3" / theirs / "Image")
        (data / ours / "GT").rename(tmp_path / "COD10K-v3" / theirs / "GT_Object")
    (tmp_path / "small.yaml").write_text(PRESET)
    camox = tmp_path / "bin" / "camox"
    camox.parent.mkdir()
    camox.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m camoxpert_cli "$@"\n')
    camox.chmod(0o755)
    monkeypatch.setenv("PATH", f"{camox.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "working").mkdir()
    return tmp_path


def execute(session: Path, name: str, **settings: str) -> Any:
    """The notebook after it ran, as papermill runs it: with a cell of other settings behind the tagged one."""
    path = session / f"{name}.ipynb"
    outcome = CliRunner().invoke(app, ["guide", "kaggle", "--notebook", str(path)])
    assert outcome.exit_code == 0, outcome.output
    notebook = nbformat.read(path, as_version=4)
    (at,) = (index for index, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    given = {"DATA": str(session / "COD10K-v3"), "PRESET": str(session / "small.yaml"), **settings}
    lines = [f"{key} = {value!r}" for key, value in given.items()]
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    client = nbclient.NotebookClient(
        notebook, timeout=LIMIT, kernel_name="python3", resources={"metadata": {"path": str(session / "working")}}
    )
    try:
        client.execute()
    finally:
        nbformat.write(notebook, path)
    return notebook


def shown(notebook: Any, cell: str) -> str:
    """All that the cell of that id put below itself, as text."""
    (found,) = (each for each in notebook.cells if each.get("id") == cell)
    texts = [each.get("text") or json.dumps(each.get("data", "")) for each in found.outputs]
    return "\n".join(texts)


def kinds(notebook: Any) -> set[str]:
    return {kind for cell in notebook.cells for each in cell.get("outputs", []) for kind in each.get("data", {})}


def test_a_session_that_suffices(session: Path) -> None:
    """All epochs are trained, on the list where a file is damaged; scores, samples and the evidence are shown."""
    damaged = session / "COD10K-v3" / "Train" / "Image" / "train-00.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    notebook = execute(session, "whole", RUN="first")
    working = session / "working"
    evidence = (working / "evidence.md").read_text()

    assert json.loads((working / "train.json").read_text())["complete"]
    assert "clean.json" in (working / "first" / "config.yaml").read_text()
    assert "Not needed" in shown(notebook, "continue")
    assert "S" in shown(notebook, "evaluate").split()
    assert len(list((working / "samples").glob("*.png"))) == TEST_IMAGES
    assert "image/png" in kinds(notebook)
    assert [line for line in evidence.splitlines() if line.startswith("| 1 single | ")]
    assert evidence.strip() in shown(notebook, "evidence")
    assert not [line for line in evidence.splitlines() if "None" in line or "nan" in line]


def test_a_run_of_two_sessions(session: Path) -> None:
    """Stopped by the clock, the first says how to continue; the second takes the run up and completes it."""
    first = execute(session, "first", RUN="first", TRAIN_OPTIONS="--time-limit 1s")
    assert not json.loads((session / "working" / "train.json").read_text())["complete"]
    assert "PREVIOUS" in shown(first, "continue")
    assert shown(first, "evaluate") == ""
    assert "| epochs complete | 0 |" in shown(first, "evidence")
    (session / "working").rename(session / "earlier")
    (session / "working").mkdir()

    second = execute(
        session, "second", RUN="first", PREVIOUS=str(session / "earlier"), RESUME_OPTIONS="--time-limit 1h"
    )
    assert json.loads((session / "working" / "train.json").read_text())["complete"]
    assert "Not needed" in shown(second, "continue")
    assert "| validation IoU | " in shown(second, "evidence")


@pytest.mark.parametrize(
    ("settings", "cell"),
    [
        ({"DATA": "/nowhere"}, "data"),
        ({"TRAIN_OPTIONS": "--epochs none"}, "train"),
        ({"PREVIOUS": "/nowhere"}, "train"),
        ({"PRESET": "nothing-is-called-so"}, "doctor"),
    ],
)
def test_a_cell_that_fails_stops_the_notebook(session: Path, settings: dict[str, str], cell: str) -> None:
    """What camox says is shown below the cell, and nothing after it runs."""
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        execute(session, "failing", RUN="first", **settings)
    notebook = nbformat.read(session / "failing.ipynb", as_version=4)
    names = [each.get("id") for each in notebook.cells]

    assert "Error: " in shown(notebook, cell)
    assert not [each for each in notebook.cells[names.index(cell) + 1 :] if each.get("outputs")]
