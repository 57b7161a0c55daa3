"""Fitted runs in processes of their own, whose time is the machine's: they end, and before their time is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.processes import camox, run
from tests.helpers.run_files import read_json
from tests.helpers.tiny_data import tiny_run


@pytest.mark.parametrize("settings", [{"num_workers": 1}, {"gpus": 2, "batch_size": 2}], ids=["alone", "two processes"])
def test_a_fitted_run(tiny_data: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """The whole of it, from a preset: chosen, trained to the end, saved, and resumed as a complete run."""
    folder = RunFolder(tmp_path / "run")
    content = to_mapping(tiny_run(tiny_data, folder.path, report=True, **settings).config)
    content["train"]["fit"] = "50s"
    content["run"] = {name: content["run"][name] for name in ("device", "gpus", "report")}
    (tmp_path / "fitted.yaml").write_text(yaml.safe_dump(content))
    code, output = run(camox("train", "--preset", str(tmp_path / "fitted.yaml"), "--checkpoint-dir", str(folder.path)))
    rows, chosen = read_json(folder.history), folder.settings["train"]

    assert code == 0, output
    assert "Fit 50s: measuring the pace of this machine\n" in output
    assert "\nFit         50s: " in output
    assert "Resume with" not in output, output
    assert folder.results.exists()
    assert folder.report.exists()
    assert [row["epoch"] for row in rows] == list(range(1, chosen["epochs"] + 1))
    assert not [path for path in folder.path.iterdir() if path.name.startswith(".")]

    code, output = run(camox("resume", str(folder.path)))
    assert code == 0, output
    assert "chosen when the run was started\n" in output
    assert "Training is complete" in output
