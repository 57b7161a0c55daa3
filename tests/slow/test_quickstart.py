"""What the README promises of its first command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from camoxpert_cli.config.resolve import resolve


def test_the_quickstart_learns_what_trivial_methods_cannot(tmp_path: Path) -> None:
    """The quickstart reaches its target IoU where thresholds stay far below, and says what is next."""
    command = [str(Path(sys.executable).with_name("camox")), "train", "--preset", "quickstart"]
    every_core = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, env=every_core)

    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    results = json.loads((folder / "results.json").read_text())
    baselines = results["baselines"]
    target = resolve("quickstart", {}).config.run.target_iou
    assert target is not None
    assert results["validation"]["iou"] >= target >= 0.75
    assert baselines["best color threshold"] < 0.40
    assert baselines["all foreground"] < 0.40
    assert max(baselines["best local variance"], baselines["best orientation energy"]) < 0.55
    assert "camox predict" in done.stderr
