"""`camox train` as people start it, and end it: in a process of its own, with its output in a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.compare import differences
from tests.helpers.cut_runs import CIRCUMSTANCES, differing
from tests.helpers.processes import all_signals_heard, camox, run, train_command
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import PLAIN, tiny_run

LIMIT = 120  # seconds after which a process has hung


def command(data: Path, *more: str) -> list[str]:
    flags = "--backbone test_resnet --num-experts 2 --no-pretrained --img-size 64 --val-fraction 0.25 --device cpu"
    sizes = (
        "--batch-size 4 --stage2-batch-size 3 --lr 1e-3 --stage2-lr 5e-4 --cache off --checkpoint-dir run --no-report"
    )
    given = ["--dataset-path", os.path.relpath(data, Path.cwd()), *flags.split(), *sizes.split(), *more]
    return [sys.executable, "-m", "camoxpert_cli", "train", *given]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_piped_run(tiny_data: Path, tmp_path: Path) -> None:
    """A run ends with code 0 and its results on stdout; a pipe gets plain lines that fit 120 columns.

    The settings are those that `tiny_run` makes, so the flags arrive in the configuration as they were typed.
    """
    (tmp_path / "data").symlink_to(tiny_data)
    arguments = command(tmp_path / "data", "--epochs", "1", "--stage1-epochs", "0", "--num-workers", "0")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=LIMIT, check=False)
    written = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    expected = tiny_run(tmp_path / "data", Path("run"), epochs=1, stage1_epochs=0).config

    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        assert "\r" not in text
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= 120
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[0].split() == ["images", "IoU", "Dice", "MAE", "S", "E", "wF"]
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["validation", "test"]
    assert f"{written['validation']['iou']:.4f}" in done.stdout
    assert "Epoch 1/1  loss " in done.stderr
    config = read_checkpoint(tmp_path / "run" / "last.pth")["config"]
    assert config == to_mapping(expected)


def test_ctrl_c(tiny_data: Path, tmp_path: Path) -> None:
    """Ctrl-C, which reaches the loader's workers too, ends with code 130 and one sentence, without any traceback."""
    arguments = command(tiny_data, "--epochs", "500", "--stage1-epochs", "500", "--num-workers", "2")
    folder = tmp_path / "run"
    with (
        all_signals_heard(),
        subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process,
    ):
        try:
            end = time.monotonic() + LIMIT
            while not (folder / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
            stdout, stderr = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    errors = [line for line in stderr.splitlines() if line.startswith("Error")]

    assert process.returncode == 130, stderr
    assert stdout == ""
    assert len(errors) == 1
    assert errors[0].startswith("Error: stopped by Ctrl-C in epoch ")
    assert errors[0].endswith(f"; saved to {Path('run') / 'last.pth'}")
    assert "Traceback" not in stderr
    assert "Interrupt" not in stderr
    assert not list(folder.glob(".*"))
    assert "training" in read_checkpoint(folder / "last.pth")


def test_killed_and_resumed(tiny_data: Path, tmp_path: Path, plain_run: RunFolder) -> None:
    """Killed before its last step, a run goes on to the weights, EMA, optimizer and history of the one that was not.

    And to its scores on the test set, in results.json.
    """
    folder = tmp_path / "run"
    killed = sabotage(tmp_path / "site", 0, 5, kill("self", "SIGKILL"))
    code, output = run(train_command(tiny_run(tiny_data, folder, **PLAIN)), RANK="0", **killed)
    assert code == -signal.SIGKILL, output
    assert not (folder / "results.json").exists()

    code, output = run(camox("resume", str(folder)))
    assert code == 0, output
    assert "1 epoch complete, 6 images into epoch 2" in output
    assert differing(folder, plain_run.path) == []
    results = [json.loads((each / "results.json").read_text(encoding="utf-8")) for each in (folder, plain_run.path)]
    assert differences(results[0], results[1], CIRCUMSTANCES) == []
    assert list(folder.glob(".*")) == []
