"""`camox resume`: which checkpoint, which settings, which folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.checkpoints import write_content
from tests.helpers.places import COMPAT

needs_originals = pytest.mark.skipif(
    not COMPAT.is_dir(), reason="the checkpoints of the original program are not beside the repository"
)


def camox(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def cut_back(folder: Path) -> None:
    """Have the run stand where its last but one save left it."""
    (folder / "previous.pth").replace(folder / "last.pth")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_one_before_is_kept(plain_run: RunFolder) -> None:
    """Beside last.pth lies the save before it, an optimizer step or an epoch earlier."""
    last, previous = (read_checkpoint(path)["training"]["progress"] for path in (plain_run.last, plain_run.previous))

    assert (last["epoch"], last["samples"]) == (2, 0)
    assert (previous["epoch"], previous["samples"]) == (1, 6)


def test_synchronised_batch_norm_on_the_cpu(plain_run: RunFolder, tmp_path: Path) -> None:
    """A run of several GPUs that synchronised it is refused there, and goes on by what the message says to type."""
    content = read_checkpoint(plain_run.previous)
    content["config"]["train"]["sync_batchnorm"] = True
    write_content(tmp_path / "last.pth", content)
    refused = [camox("resume", tmp_path, *arguments) for arguments in ([], ["--dry-run"])]
    goes_on = camox("resume", tmp_path, "--dry-run", "--set", "train.sync_batchnorm=off")

    assert [each.exit_code for each in refused] == [2, 2]
    assert all("--set train.sync_batchnorm=off" in " ".join(each.stderr.split()) for each in refused)
    assert goes_on.exit_code == 0, goes_on.output


def test_all_damaged(tmp_path: Path) -> None:
    """Where no checkpoint can be read, all are named, exit code 4."""
    for name in ("last.pth", "previous.pth", "best_model.pth"):
        (tmp_path / name).write_bytes(b"damaged")
    outcome = camox("resume", tmp_path)

    assert outcome.exit_code == 4
    assert "can be read: last.pth, previous.pth, best_model.pth" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_nothing_there(tmp_path: Path) -> None:
    """A missing folder, one mistyped and an empty one end with a sentence and exit code 4."""
    (tmp_path / "run").mkdir()
    missing, mistyped = camox("resume", tmp_path / "zzz" / "zzz"), camox("resume", tmp_path / "rum")
    empty = camox("resume", tmp_path / "run")

    assert (missing.exit_code, mistyped.exit_code, empty.exit_code) == (4, 4, 4)
    assert f"Try:   {tmp_path / 'run'}, which has a similar name" in mistyped.stderr
    assert "contains no checkpoint (last.pth, previous.pth, best_model.pth)" in empty.stderr


def test_extended(run_copy: Path) -> None:
    """More epochs go on where the last ended, with what had been unfrozen, and say what that means."""
    outcome = camox("resume", run_copy, "--epochs", 3)
    rows = json.loads((run_copy / "history.json").read_text())

    assert outcome.exit_code == 0, outcome.output
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert (
        "Changed train.epochs 2 -> 3: from here on, the stage's learning-rate schedule is stretched over more"
        in outcome.stderr
    )
    assert "Epoch 3: stage 2, training the whole backbone" in outcome.stderr


def test_going_on_elsewhere(run_copy: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A run goes on in another folder, with its images at another place and another rate, which is a warning.

    History, log and best weights come along, and what lies in its own folder stays as it is.
    """
    cut_back(run_copy)
    shutil.copytree(tiny_data, tmp_path / "moved")
    before = contents(run_copy)
    where = ["--checkpoint-dir", tmp_path / "new", "--dataset-path", tmp_path / "moved"]
    outcome = camox("resume", run_copy, *where, "--set", "train.stage2_lr=0.002")
    results = json.loads((tmp_path / "new" / "results.json").read_text())

    assert outcome.exit_code == 0, outcome.output
    assert "Warning: changed train.stage2_lr 0.0005 -> 0.002: from here on, this is no longer the run" in outcome.stderr
    assert contents(run_copy) == before
    assert read_checkpoint(tmp_path / "new" / "last.pth")["epoch"] == 2
    assert [row["epoch"] for row in json.loads((tmp_path / "new" / "history.json").read_text())] == [1, 2]
    # Those of the first epoch, which was over.
    assert (results["epoch"], read_checkpoint(tmp_path / "new" / "best_model.pth")["epoch"]) == (1, 1)


def test_unknown_setting(run_copy: Path) -> None:
    """A mistyped setting is refused with what was meant, and the run stays as it is."""
    before = contents(run_copy)
    outcome = camox("resume", run_copy, "--set", "train.epoch=9")

    assert outcome.exit_code == 2
    assert "did you mean train.epochs?" in outcome.stderr
    assert contents(run_copy) == before


def test_dry_run(run_copy: Path) -> None:
    """A dry run tells checkpoint, folder, next step and changes, and writes nothing."""
    cut_back(run_copy)
    paths = [run_copy, *run_copy.iterdir()]
    before = [path.stat().st_mtime_ns for path in paths]
    outcome = camox("resume", run_copy, "--dry-run", "--num-workers", 1, "--set", "train.stage2_batch_size=2")
    measured = camox("resume", run_copy, "--dry-run", "--batch-size", "auto")

    assert outcome.exit_code == 0, outcome.output
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert [run_copy, *run_copy.iterdir()] == paths
    assert "last.pth: 1 epoch complete, 6 images into epoch 2" in outcome.stdout
    assert "epoch 2 of 2, stage 2" in outcome.stdout
    assert "train.stage2_batch_size 3 -> 2" in outcome.stdout
    assert "data.num_workers 0 -> 1: does not affect the result" in outcome.stdout
    assert "global batch size 2\n                 = 2 per process x 1 process x 1 accumulation step\n" in outcome.stdout
    assert measured.exit_code == 2
    assert "--batch-size auto has to run training steps" in measured.stderr


def test_dry_run_of_a_complete_run(plain_run: RunFolder, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing is left to train is said.

    The run keeps the absolute path of its images; a relative one that leads there is no change.
    """
    monkeypatch.chdir(tiny_data.parent)
    outcome = camox("resume", plain_run.path, "--dry-run", "--dataset-path", tiny_data.name)

    assert outcome.exit_code == 0, outcome.output
    assert "training is complete (2 epochs): the best weights would be scored again" in outcome.stdout
    assert "Changes          none\n" in outcome.stdout


def test_folder_of_another_run(plain_run: RunFolder, tmp_path: Path) -> None:
    """It is refused with the command to go on there, by a dry run as well."""
    (tmp_path / "last.pth").touch()
    for more in ([], ["--dry-run"]):
        outcome = camox("resume", plain_run.path, "--checkpoint-dir", tmp_path, *more)
        assert outcome.exit_code == 2
        assert f"camox resume {tmp_path}" in outcome.stderr


def test_weights_without_settings(tmp_path: Path) -> None:
    """A file with weights alone cannot say how to go on; the command that can is named."""
    torch.save({"moe_layers.0.gate.weight": torch.ones(2, 2)}, tmp_path / "weights.pth")
    outcome = camox("resume", tmp_path / "weights.pth")

    assert outcome.exit_code == 4
    assert "contains weights but no settings" in outcome.stderr
    assert f"camox train --resume-from {tmp_path / 'weights.pth'}" in outcome.stderr


def test_two_at_once(run_copy: Path) -> None:
    """A run that another process has in hand is refused."""
    before = contents(run_copy)
    with RunFolder(run_copy).locked():
        outcome = camox("resume", run_copy)

    assert outcome.exit_code == 2
    assert "another process is using the run folder" in outcome.stderr
    assert contents(run_copy) == before


def test_other_images(run_copy: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Images that are not those of the run are refused, also by a dry run."""
    shutil.copytree(tiny_data, tmp_path / "data")
    for folder in ("Imgs", "GT"):
        next((tmp_path / "data" / "TrainDataset" / folder).glob("*-00.png")).unlink()
    for more in ([], ["--dry-run"]):
        outcome = camox("resume", run_copy, "--epochs", 3, "--dataset-path", tmp_path / "data", *more)
        assert outcome.exit_code == 4
        assert "was trained on different images" in outcome.stderr


@needs_originals
def test_from_the_original_program(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file gives settings, weights and average, and epoch 18 (counted from 0) is next; what it lacks is said."""
    path = COMPAT / "camoxpert_xxs_7experts_module_prefix.pth"
    monkeypatch.chdir(tmp_path)
    begun: list[Run] = []

    def train_epochs(run: Run) -> Stop:
        begun.append(run)
        return Stop("stopped by this test", 0)

    monkeypatch.setattr(train_module, "train_epochs", train_epochs)
    common = ["resume", path, "--dataset-path", tiny_data, "--device", "cpu", "--num-workers", 0]
    dry = camox(*common, "--dry-run")
    outcome = camox(*common, "--checkpoint-dir", "run", "--set", "data.img_size=64")

    assert dry.exit_code == 0, dry.output
    assert "18 epochs complete" in dry.stdout
    new = "optimizer, gradient scaler, position within the epoch and history"
    assert f"contains only weights; the {new} start from scratch" in dry.stdout
    assert "global batch size 16\n                 = 16 per process x 1 process x 1 accumulation step\n" in dry.stdout
    assert outcome.exit_code == 0, outcome.output
    assert "contains only weights; the optimizer, gradient scaler" in outcome.stderr
    assert "in epoch 19 of 140, 0 images into it" in " ".join(outcome.stderr.split())
    (run,) = begun
    assert run.state.ema is not None
    weights = read_checkpoint(path)
    name = next(name for name, _ in run.state.network.named_parameters() if name.startswith("moe_layers"))
    expected = [weights["model_state_dict"][f"module.{name}"], weights["ema_state_dict"][name]]
    for network, value in zip((run.state.network, run.state.ema.network), expected, strict=True):
        assert torch.equal(network.state_dict()[name], value)


def test_other_images_begin_a_new_run(run_copy: Path, tiny_data: Path, tmp_path: Path) -> None:
    """From best weights a dry run says so; into the old run's folder it does not go."""
    shutil.copytree(tiny_data, tmp_path / "data")
    for folder in ("Imgs", "GT"):
        next((tmp_path / "data" / "TrainDataset" / folder).glob("*-00.png")).unlink()
    command = ["resume", run_copy / "best_model.pth", "--dataset-path", tmp_path / "data", "--dry-run"]
    refused, dry = camox(*command), camox(*command, "--checkpoint-dir", tmp_path / "new")

    assert refused.exit_code == 2
    assert "--checkpoint-dir" in refused.stderr
    assert dry.exit_code == 0, dry.output
    assert "a new run from these weights, because the images differ: epoch 1 of 2, stage 1" in dry.stdout


def test_fewer_epochs_than_are_complete(run_copy: Path) -> None:
    """A dry run refuses them as well."""
    settings = ["train.epochs=1", "train.stage1_epochs=1", "train.warmup_epochs=0"]
    outcome = camox("resume", run_copy, "--dry-run", *(part for each in settings for part in ("--set", each)))

    assert outcome.exit_code == 2
    assert "has 2 epochs complete, but these settings ask for 1" in outcome.stderr


def test_a_power_cut(run_copy: Path) -> None:
    """Of what lies beside a checkpoint nothing has to be whole: a run goes on, and writes it anew."""
    log = run_copy / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], b"[1]\n", b'{"event": "step", "epoch": "x"}\n', *lines[1:], b"\xff\0\0\0"]))
    for name in ("history.json", "strategy.json", "env.json", "results.json"):
        (run_copy / name).write_bytes(b"\0" * 200)
    (run_copy / "config.yaml").write_bytes(b"\xff\xfe")
    outcome = camox("resume", run_copy)

    assert outcome.exit_code == 0, outcome.output
    assert [json.loads(line) for line in log.read_bytes().splitlines()[:-1]] == [json.loads(line) for line in lines]
    assert len(json.loads((run_copy / "history.json").read_text())) == 2
    assert "validation" in json.loads((run_copy / "results.json").read_text())


def test_an_extended_run_has_no_results_yet(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of the shorter run do not stand for the longer one that is under way."""
    monkeypatch.setattr(train_module, "train_epochs", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
    outcome = camox("resume", run_copy, "--epochs", 5)

    assert outcome.exit_code == 130
    assert f"camox resume {run_copy}" in outcome.stderr
    assert not (run_copy / "results.json").exists()
    assert not (run_copy / "per_image.csv").exists()


@needs_originals
def test_dry_run_without_stage_1(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without stage 1 a checkpoint of its middle goes on with stage 2's first epoch, and the dry run says so."""
    monkeypatch.chdir(tmp_path)
    source = COMPAT / "camoxpert_xxs_7experts.pth"
    outcome = camox("resume", source, "--dataset-path", tiny_data, "--set", "train.skip_stage1=true", "--dry-run")

    assert "epoch 31 of 140, stage 2, learning rate" in outcome.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_folders(tmp_path: Path) -> None:
    """A folder that may not be looked into is named in one sentence, without a traceback."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0)
    try:
        outcome = camox("resume", folder)
    finally:
        folder.chmod(0o755)

    assert outcome.exit_code == 2
    assert "Permission denied" in outcome.stderr
