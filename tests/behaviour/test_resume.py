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
from camoxpert_cli.checkpoints.format import read_checkpoint, write_checkpoint
from camoxpert_cli.checkpoints.newest import find_checkpoint
from camoxpert_cli.engine import saving as saving_module
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.train import train
from camoxpert_cli.errors import CheckpointError, ConfigError, UsageError
from camoxpert_cli.launch.resume import settings_to_go_on
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.checkpoints import write_content
from tests.helpers.places import COMPAT
from tests.helpers.tiny_data import tiny_plan

SETTINGS: dict[str, Any] = {"epochs": 3, "stage1_epochs": 1, "batch_size": 4, "stage2_batch_size": 2, "save_every": "1"}


@pytest.fixture(scope="module")
def finished(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of three epochs. Read it, but change nothing in it."""
    return train(tiny_plan(tiny_data, tmp_path_factory.mktemp("finished") / "run", **SETTINGS)).folder.path


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy to work on."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def camox(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def cut_back(folder: Path) -> None:
    """Have the run stand where its last but one save left it."""
    (folder / "previous.pth").replace(folder / "last.pth")


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_one_before_is_kept(finished: Path) -> None:
    """Beside last.pth lies the save before it, an optimizer step or an epoch earlier."""
    last, previous = (read_checkpoint(finished / name)["training"]["progress"] for name in ("last.pth", "previous.pth"))

    assert (last["epoch"], last["samples"]) == (3, 0)
    assert (previous["epoch"], previous["samples"]) == (2, 8)


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_synchronised_batch_norm_on_the_cpu(run_folder: Path, arguments: list[str]) -> None:
    """A run of several GPUs that synchronised it is refused there, and goes on by what the message says to type."""
    for name in ("last.pth", "previous.pth"):
        content = read_checkpoint(run_folder / name)
        content["config"]["train"]["sync_batchnorm"] = True
        write_content(run_folder / name, content)
    cut_back(run_folder)
    refused = camox("resume", run_folder, *arguments)
    goes_on = camox("resume", run_folder, *arguments, "--set", "train.sync_batchnorm=off")

    assert refused.exit_code == 2
    assert "--set train.sync_batchnorm=off" in " ".join(refused.stderr.split())
    assert goes_on.exit_code == 0, goes_on.output


def test_newest_first(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """last.pth is taken where it is whole, and then nothing is said."""
    assert find_checkpoint(run_folder).path == run_folder / "last.pth"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("broken", "taken"),
    [(["last.pth"], "previous.pth"), (["last.pth", "previous.pth"], "best_model.pth")],
)
def test_damaged_ones_are_passed_over(
    run_folder: Path, broken: list[str], taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged checkpoint is named, and the one before it taken."""
    for name in broken:
        flip(run_folder / name)
    checkpoint = find_checkpoint(run_folder)
    said = capsys.readouterr().err

    assert checkpoint.path == run_folder / taken
    assert all(f"{run_folder / name} is damaged" in said for name in broken)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["folder", "file", "another spelling"])
def test_a_damaged_one_never_takes_the_good_ones_place(
    run_folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Going on from previous.pth, no save makes the damaged file the one before; the end is that of the run whole."""
    flip(run_folder / "last.pth")
    monkeypatch.chdir(run_folder.parent)
    source = {"folder": run_folder, "file": run_folder / "previous.pth", "another spelling": run_folder}[how]
    folder = ["--checkpoint-dir", run_folder.name] if how == "another spelling" else []
    before = (run_folder / "previous.pth").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(saving_module, "write_checkpoint", watching(before, run_folder))
        outcome = camox("resume", source, *folder)

    assert outcome.exit_code == 0, outcome.output
    for name in ("last.pth", "previous.pth"):
        read_checkpoint(run_folder / name)
    network, expected = (read_checkpoint(folder / "last.pth")["network"] for folder in (run_folder, finished))
    assert all(torch.equal(network[name], value) for name, value in expected.items())


def watching(previous: bytes, folder: Path) -> Any:
    """A `write_checkpoint` after whose first call `previous.pth` must still be what it was."""
    calls = []

    def write(path: Path, content: Any, keep_as: Path | None = None) -> None:
        write_checkpoint(path, content, keep_as)
        if path.name == "last.pth":
            calls.append(path)
            assert len(calls) > 1 or (folder / "previous.pth").read_bytes() == previous

    return write


def test_all_damaged(run_folder: Path) -> None:
    """Where no checkpoint can be read, all are named, exit code 4."""
    for name in ("last.pth", "previous.pth", "best_model.pth"):
        flip(run_folder / name)
    outcome = camox("resume", run_folder)

    assert outcome.exit_code == 4
    assert "can be read: last.pth, previous.pth, best_model.pth" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_damaged_file_given_by_name(run_folder: Path) -> None:
    """Asked for one file, camox does not take another one unasked, but says how."""
    flip(run_folder / "last.pth")
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        find_checkpoint(run_folder / "last.pth")

    assert f"camox resume {run_folder} takes the newest" in caught.value.hint


def test_runs_below(run_folder: Path, tmp_path: Path) -> None:
    """A notebook's input holds a run somewhere below: a single one is found, several are listed."""
    found = find_checkpoint(tmp_path)
    shutil.copytree(run_folder, tmp_path / "other" / "run2")
    with pytest.raises(CheckpointError, match="holds 2 runs") as caught:
        find_checkpoint(tmp_path)

    assert found.path == run_folder / "last.pth"
    assert "camox resume" in caught.value.hint


def test_nothing_there(run_folder: Path, tmp_path: Path) -> None:
    """A missing folder, one mistyped and an empty one end with a sentence and exit code 4."""
    (tmp_path / "empty").mkdir()
    missing, mistyped = camox("resume", tmp_path / "zzz" / "zzz"), camox("resume", tmp_path / "rum")
    empty = camox("resume", tmp_path / "empty")

    assert (missing.exit_code, mistyped.exit_code, empty.exit_code) == (4, 4, 4)
    assert f"did you mean {run_folder}?" in mistyped.stderr
    assert "holds no checkpoint (last.pth, previous.pth, best_model.pth)" in empty.stderr


def test_settings_come_from_the_checkpoint(run_folder: Path) -> None:
    """Nothing given, nothing changes; the folder is the run's own."""
    resolved = settings_to_go_on(find_checkpoint(run_folder), {}, [])

    assert (resolved.config.train.epochs, resolved.config.train.stage2_batch_size) == (3, 2)
    assert resolved.config.run.checkpoint_dir == str(run_folder)


def test_batch_size_keeps_the_steps(run_folder: Path) -> None:
    """`--batch-size` is one GPU's: accumulation makes up for it, in both stages."""
    train_config = settings_to_go_on(find_checkpoint(run_folder), {"train.batch_size": "2"}, []).config.train
    with pytest.raises(ConfigError, match="cannot be kept with 3 per GPU"):
        settings_to_go_on(find_checkpoint(run_folder), {"train.batch_size": "3"}, [])

    assert (train_config.batch_size, train_config.stage2_batch_size, train_config.accumulation_steps) == (2, 1, 2)


def test_auto_keeps_the_steps(run_folder: Path) -> None:
    """The saved numbers say how many images a step has until memory was measured, which a dry run does not do."""
    found = settings_to_go_on(find_checkpoint(run_folder), {"train.batch_size": "auto"}, [])
    without = settings_to_go_on(find_checkpoint(run_folder), {}, [])
    dry = camox("resume", run_folder, "--batch-size", "auto", "--dry-run")

    assert found.auto == {"train.batch_size"}
    assert found.config == without.config
    assert dry.exit_code == 2
    assert "--batch-size auto trains for some steps" in dry.stderr


def test_assigned_batch_size_is_another_run(run_folder: Path) -> None:
    """With `--set` a batch size is taken as it is."""
    config = settings_to_go_on(find_checkpoint(run_folder), {}, ["train.batch_size=3"]).config

    assert (config.train.batch_size, config.train.accumulation_steps) == (3, 1)


def test_fewer_epochs(run_folder: Path) -> None:
    """`--epochs` extends; ending earlier changes the schedule and takes `--set`."""
    with pytest.raises(UsageError, match="it can be extended only") as caught:
        settings_to_go_on(find_checkpoint(run_folder), {"train.epochs": "2"}, [])

    assert "--set train.epochs=2" in caught.value.hint
    assert settings_to_go_on(find_checkpoint(run_folder), {}, ["train.epochs=2"]).config.train.epochs == 2


def test_extended(run_folder: Path) -> None:
    """More epochs go on where the last ended, with what had been unfrozen, and say what that means."""
    outcome = camox("resume", run_folder, "--epochs", 5)
    rows = json.loads((run_folder / "history.json").read_text())

    assert outcome.exit_code == 0, outcome.output
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert "changed train.epochs 3 -> 5: the learning rate of the stage is spread over more" in outcome.stderr
    assert "Epoch 4: stage 2, backbone: the last 4 of its 4 stages train" in outcome.stderr


def test_what_changes_is_said(run_folder: Path) -> None:
    """Each change is told with what it means; what breaks exactness is a warning."""
    cut_back(run_folder)
    outcome = camox("resume", run_folder, "--num-workers", 1, "--set", "train.lr=0.002", "--batch-size", 2)

    assert outcome.exit_code == 0, outcome.output
    assert "Warning: changed train.lr 0.001 -> 0.002: from here on the run is another one" in outcome.stderr
    assert "changed train.batch_size 4 -> 2: the same pictures a step in the same order" in outcome.stderr
    assert "changed data.num_workers 0 -> 1: the result stays what it would have been" in outcome.stderr


def test_unknown_setting(run_folder: Path) -> None:
    """A mistyped setting is refused with what was meant, and the run stays as it is."""
    before = {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()}
    outcome = camox("resume", run_folder, "--set", "train.epoch=9")

    assert outcome.exit_code == 2
    assert "did you mean train.epochs?" in outcome.stderr
    assert {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()} == before


def test_dry_run(run_folder: Path) -> None:
    """A dry run tells checkpoint, folder, next step and changes, and writes nothing."""
    cut_back(run_folder)
    paths = [run_folder, *run_folder.iterdir()]
    before = [path.stat().st_mtime_ns for path in paths]
    outcome = camox("resume", run_folder, "--dry-run", "--batch-size", 2)

    assert outcome.exit_code == 0, outcome.output
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert [run_folder, *run_folder.iterdir()] == paths
    assert "last.pth: 2 epochs are complete, 8 pictures into the next" in outcome.stdout
    assert "epoch 3" in outcome.stdout
    assert "train.accumulation_steps 1 -> 2" in outcome.stdout
    assert "1 per GPU x 1 GPU x 2 accumulation = 2 global" in outcome.stdout


def test_the_same_folder_is_no_change(run_folder: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run keeps the absolute path of its images; a relative one that leads there is no other."""
    monkeypatch.chdir(tiny_data.parent)
    outcome = camox("resume", run_folder, "--dry-run", "--dataset-path", tiny_data.name)

    assert outcome.exit_code == 0, outcome.output
    assert "Changes          none\n" in outcome.stdout


def test_dry_run_of_a_complete_run(run_folder: Path) -> None:
    """That nothing is left to train is said."""
    outcome = camox("resume", run_folder, "--dry-run")

    assert "all 3 epochs are complete: the best weights would be scored" in outcome.stdout


def test_read_only_folder(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a read-only mount the run goes on in a new folder, best weights included; the source stays as it is."""
    cut_back(run_folder)
    before = {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()}
    monkeypatch.setattr(RunFolder, "is_writable", lambda self: False)
    monkeypatch.chdir(tmp_path)
    outcome = camox("resume", run_folder)
    (new,) = (tmp_path / "runs").iterdir()

    assert outcome.exit_code == 0, outcome.output
    assert {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()} == before
    assert new.name.startswith("run-")
    assert read_checkpoint(new / "last.pth")["epoch"] == 3
    assert (new / "best_model.pth").exists()
    assert [row["epoch"] for row in json.loads((new / "history.json").read_text())] == [1, 2, 3]


def test_another_folder(run_folder: Path, tmp_path: Path) -> None:
    """`--checkpoint-dir` says where to go on; one that holds another run is refused with the command to go on there."""
    cut_back(run_folder)
    first = camox("resume", run_folder, "--checkpoint-dir", tmp_path / "new")
    again = camox("resume", run_folder, "--checkpoint-dir", tmp_path / "new")

    assert first.exit_code == 0, first.output
    assert again.exit_code == 2
    assert f"camox resume {tmp_path / 'new'}" in again.stderr


def test_weights_without_settings(finished: Path, tmp_path: Path) -> None:
    """A file with weights alone cannot say how to go on; the command that can is named."""
    torch.save(read_checkpoint(finished / "last.pth")["network"], tmp_path / "weights.pth")
    outcome = camox("resume", tmp_path / "weights.pth")

    assert outcome.exit_code == 4
    assert "holds weights and no settings" in outcome.stderr
    assert f"camox train --resume-from {tmp_path / 'weights.pth'}" in outcome.stderr


def test_two_at_once(run_folder: Path) -> None:
    """A run that another process has in hand is refused."""
    with RunFolder(run_folder).locked():
        outcome = camox("resume", run_folder)

    assert outcome.exit_code == 2
    assert "another process is at work in the run folder" in outcome.stderr


def test_other_images(run_folder: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Images that are not those of the run are refused, also by a dry run."""
    cut_back(run_folder)
    shutil.copytree(tiny_data, tmp_path / "data")
    for folder in ("Imgs", "GT"):
        next((tmp_path / "data" / "TrainDataset" / folder).glob("*-00.png")).unlink()
    for more in ([], ["--dry-run"]):
        outcome = camox("resume", run_folder, "--dataset-path", tmp_path / "data", *more)
        assert outcome.exit_code == 4
        assert "was trained on other pictures" in outcome.stderr


def test_moved_data(run_folder: Path, tiny_data: Path, tmp_path: Path) -> None:
    """The same images at another path are the same images."""
    cut_back(run_folder)
    shutil.copytree(tiny_data, tmp_path / "moved")
    outcome = camox("resume", run_folder, "--dataset-path", tmp_path / "moved")

    assert outcome.exit_code == 0, outcome.output


def test_a_later_format(run_folder: Path) -> None:
    """A checkpoint of a later camox is refused with what to do."""
    content = read_checkpoint(run_folder / "last.pth")
    torch.save({**content, "version": 2}, run_folder / "last.pth")
    with pytest.raises(CheckpointError, match="is of version 2, and this camox reads up to 1"):
        find_checkpoint(run_folder / "last.pth")


@pytest.mark.skipif(not COMPAT.is_dir(), reason="the checkpoints of the original program are not beside the repository")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("camoxpert_xxs_7experts.pth", marks=pytest.mark.slow),
        "camoxpert_xxs_7experts_module_prefix.pth",
    ],
)
def test_from_the_original_program(name: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file gives settings, weights and average, and epoch 18 (counted from 0) is next; what it lacks is said."""
    monkeypatch.chdir(tmp_path)
    common = ["resume", COMPAT / name, "--dataset-path", tiny_data, "--device", "cpu", "--num-workers", 0]
    dry = camox(*common, "--dry-run")
    short = ["train.epochs=19", "train.stage1_epochs=19", "train.warmup_epochs=0", "data.img_size=64"]
    outcome = camox(*common, "--checkpoint-dir", "run", *(each for text in short for each in ("--set", text)))

    assert dry.exit_code == 0, dry.output
    assert "18 epochs are complete" in dry.stdout
    assert "not held, so new: optimizer, gradient scale, position within the epoch and history" in dry.stdout
    assert "16 per GPU x 1 GPU x 1 accumulation = 16 global" in dry.stdout
    assert outcome.exit_code == 0, outcome.output
    assert "what is not in it starts anew: optimizer, gradient scale" in outcome.stderr
    assert [row["epoch"] for row in json.loads(Path("run/history.json").read_text())] == [19]


@pytest.mark.slow
def test_best_weights_that_are_damaged(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged best_model.pth is named, and the best is sought among the epochs to come."""
    content = read_checkpoint(run_folder / "last.pth")
    content["training"]["progress"].update(epoch=2, samples=0, history=content["training"]["progress"]["history"][:2])
    write_content(run_folder / "last.pth", content)
    flip(run_folder / "best_model.pth")
    outcome = camox("resume", run_folder)

    assert outcome.exit_code == 0, outcome.output
    assert "only epochs from here on count as the best" in outcome.stderr
    assert read_checkpoint(run_folder / "best_model.pth")["epoch"] == 3


@pytest.mark.slow
def test_best_weights_of_what_is_done_again(run_folder: Path) -> None:
    """Gone back before the epoch of best_model.pth, a run does not take it for an earlier epoch's."""
    content = read_checkpoint(run_folder / "last.pth")
    progress = content["training"]["progress"]
    rows = progress["history"][:2]
    best = max(rows, key=lambda row: row["iou"])
    progress.update(epoch=2, samples=0, history=rows, best_epoch=best["epoch"], best_iou=best["iou"])
    write_content(run_folder / "last.pth", content)
    later = read_checkpoint(run_folder / "best_model.pth")
    later["scores"] = {**later["scores"], "epoch": 3, "iou": 0.9}
    write_content(run_folder / "best_model.pth", later)
    outcome = camox("resume", run_folder)
    results = json.loads((run_folder / "results.json").read_text())
    kept = read_checkpoint(run_folder / "best_model.pth")["scores"]

    assert outcome.exit_code == 0, outcome.output
    assert "holds other weights than the best of this run" in outcome.stderr
    assert (kept["epoch"], kept["iou"]) == (results["epoch"], results["validation"]["iou"])


@pytest.mark.slow
def test_history_of_the_best_weights(run_folder: Path) -> None:
    """Gone on from best_model.pth, the epochs before it stay in the history."""
    content = read_checkpoint(run_folder / "last.pth")
    del content["training"]
    content["scores"] = content["history"][-1]
    write_content(run_folder / "best_model.pth", content)
    for name in ("last.pth", "previous.pth"):
        (run_folder / name).unlink()
    outcome = camox("resume", run_folder, "--epochs", 4)

    assert outcome.exit_code == 0, outcome.output
    assert [row["epoch"] for row in json.loads((run_folder / "history.json").read_text())] == [1, 2, 3, 4]


def test_an_extended_run_has_no_results_yet(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of the shorter run do not stand for the longer one that is under way."""
    monkeypatch.setattr(train_module, "train_epochs", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
    outcome = camox("resume", run_folder, "--epochs", 5)

    assert outcome.exit_code == 130
    assert f"camox resume {run_folder}" in outcome.stderr
    assert not (run_folder / "results.json").exists()


@pytest.mark.slow
def test_relative_paths_lead_home(
    run_folder: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set given by a relative path is found from another folder too."""
    monkeypatch.chdir(tiny_data.parent)
    train(tiny_plan(Path(tiny_data.name), tmp_path / "relative", epochs=1))
    monkeypatch.chdir(tmp_path)
    outcome = camox("resume", tmp_path / "relative", "--epochs", 2)

    assert outcome.exit_code == 0, outcome.output


def test_assignments_count_as_flags(run_folder: Path, tmp_path: Path) -> None:
    """A folder given by `--set` is taken, and an assigned number of accumulation steps is not changed again."""
    checkpoint = find_checkpoint(run_folder)
    moved = settings_to_go_on(checkpoint, {}, [f"run.checkpoint_dir={tmp_path / 'new'}"]).config
    kept = settings_to_go_on(checkpoint, {"train.batch_size": "2"}, ["train.accumulation_steps=1"]).config.train

    assert moved.run.checkpoint_dir == str(tmp_path / "new")
    assert (kept.batch_size, kept.accumulation_steps) == (2, 1)


def test_dry_run_says_what_the_real_one_would(run_folder: Path, finished: Path, tmp_path: Path) -> None:
    """A folder that holds another run is refused by both."""
    for more in ([], ["--dry-run"]):
        assert camox("resume", run_folder, "--checkpoint-dir", finished, *more).exit_code == 2


@pytest.mark.skipif(not COMPAT.is_dir(), reason="the checkpoints of the original program are not beside the repository")
def test_dry_run_without_stage_1(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without stage 1 a checkpoint of its middle goes on with stage 2's first epoch, and the dry run says so."""
    monkeypatch.chdir(tmp_path)
    source = COMPAT / "camoxpert_xxs_7experts.pth"
    outcome = camox("resume", source, "--dataset-path", tiny_data, "--set", "train.skip_stage1=true", "--dry-run")

    assert "epoch 31 of 140, stage 2, learning rate" in outcome.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_folders(run_folder: Path) -> None:
    """A folder that may not be looked into is named in one sentence, without a traceback."""
    run_folder.chmod(0)
    try:
        outcome = camox("resume", run_folder)
    finally:
        run_folder.chmod(0o755)

    assert outcome.exit_code == 2
    assert "Permission denied" in outcome.stderr
