"""camox from Python, where it starts processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.behaviour.test_api import SMALL
from tests.helpers.places import ROOT
from tests.helpers.processes import TIMEOUT
from tests.helpers.tiny_data import TEST_SET

# No `if __name__ == "__main__"`: what a notebook's cell would be.
SCRIPT = """
import sys
from camoxpert_cli import evaluate, train
from camoxpert_cli.errors import CamoxError

data, settings = sys.argv[1], {settings}
run = train(dataset_path=data, gpus=2, **settings)
print("trained", run.path, run.results.exists(), (run.path / "logs" / "rank1.log").exists())
print("scored", evaluate(run.best, dataset_path=data, device="cpu").sets[0].name)
try:
    train(dataset_path=data, gpus=2, checkpoint_dir=run.path, **settings)
except CamoxError as error:
    print(type(error).__name__, error.exit_code, error.message, error.hint, sep="|")
"""


def test_two_processes_from_a_script_without_a_guard(tiny_data: Path, tmp_path: Path) -> None:
    """Two processes train for a caller that cannot be imported; what goes wrong in one is an error of its class."""
    script = tmp_path / "cell.py"
    script.write_text(SCRIPT.format(settings={**SMALL, "epochs": 1, "tensorboard": False, "save_every": None}))
    done = subprocess.run(
        [sys.executable, str(script), str(tiny_data)], capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if line.startswith(("trained", "scored", "UsageError"))]

    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert said[:2] == [f"trained {folder.relative_to(tmp_path)} True True", f"scored {TEST_SET}"]
    assert said[2].startswith(f"UsageError|2|the folder {folder.relative_to(tmp_path)} already contains a run")
    assert "Traceback" not in done.stderr
