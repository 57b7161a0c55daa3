"""What a command that is run again finds in its folder: nothing, its own run, the end of it, or another run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.checkpoints.format import (
    FORMAT,
    VERSION,
    Checkpoint,
    Progress,
    StartContent,
    TrainingContent,
    write_verified,
)
from camoxpert_cli.checkpoints.newest import find_checkpoint
from camoxpert_cli.config.resolve import Resolved, to_mapping
from camoxpert_cli.config.schema import SETTINGS
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.engine.run import _start_of
from camoxpert_cli.errors import UsageError
from camoxpert_cli.launch import autobatch
from camoxpert_cli.launch.continuing import Found, find_run, why_continue
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.checkpoints import stub_content
from tests.helpers.thread_ranks import in_threads
from tests.helpers.tiny_data import tiny_run

REASON = "--continue"
EPOCHS = 3


def command(folder: Path, **settings: Any) -> Resolved:
    """A run of three epochs with global batch sizes of 4 and 2 images, in `folder`."""
    chosen = {"epochs": EPOCHS, "batch_size": 4, "stage2_batch_size": 2, **settings}
    return tiny_run(Path("/images"), folder, **chosen)


def save(
    folder: Path,
    resolved: Resolved,
    *,
    epoch: int = 1,
    samples: int = 4,
    best_epoch: int = 0,
    results: bool = False,
) -> Plan:
    """What a run that was started by that command leaves after `epoch` epochs and `samples` images; its plan."""
    for name in ("last.pth", "results.json"):
        (folder / name).unlink(missing_ok=True)
    plan = decide(resolved)
    folder.mkdir(exist_ok=True)
    training = TrainingContent(
        Progress(
            epoch=epoch,
            samples=samples,
            best_iou=0.5 if best_epoch else -1.0,
            best_epoch=best_epoch,
            history=[{"epoch": 1, "seconds": 2.5, "iou": 0.5}],
        ),
        4,
        "digest",
        {"state": {}, "param_groups": []},
        {},
        0,
    )
    content = {
        **{"format": FORMAT, "version": VERSION, **stub_content()},
        **{"epoch": epoch, "config": to_mapping(plan.config), "training": training.to_dict()},
        "start": asdict(_start_of(plan, None)),
    }
    write_verified(folder / "last.pth", content)
    if results:
        (folder / "results.json").write_text(json.dumps({"validation": {}, "tests": {}, "epoch": 1}))
    return plan


def find(resolved: Resolved, folder: Path) -> Found:
    return find_run(resolved, RunFolder(folder), World(), REASON)


def continuing(resolved: Resolved) -> Resolved:
    """With what says that the run may be killed at any moment, and has to save before its first step."""
    return replace(resolved, config=replace(resolved.config, run=replace(resolved.config.run, continue_=True)))


def batches(found: Found) -> tuple[int, int, int, int | str | None]:
    config = found.resolved.config
    return config.train.batch_size, config.stage2_batch_size, config.train.accumulation_steps, config.run.gpus


def test_nothing_there(tmp_path: Path) -> None:
    """The run starts, also in a folder of one that was killed before it saved anything."""
    resolved = command(tmp_path)
    (tmp_path / "config.yaml").touch()

    assert find(resolved, tmp_path / "missing") == find(resolved, tmp_path) == Found(continuing(resolved))


def test_not_asked(tmp_path: Path) -> None:
    """Without a reason to continue, what the folder contains is not even looked at."""
    save(tmp_path, command(tmp_path))
    resolved = command(tmp_path)

    assert find_run(resolved, RunFolder(tmp_path), World(), None) == Found(resolved)


def test_the_same_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It resumes from the newest checkpoint with the settings of the run, and says so."""
    resolved = command(tmp_path)
    plan = save(tmp_path, resolved)
    found = find(resolved, tmp_path)

    assert found.checkpoint is not None
    assert found.checkpoint.path == tmp_path / "last.pth"
    assert found.outcome is None
    assert found.resolved.config == continuing(replace(resolved, config=plan.config)).config
    assert f"Continuing the run in {tmp_path} (--continue)" in " ".join(capsys.readouterr().err.split())


def test_settings_of_the_machine_come_from_the_command(tmp_path: Path) -> None:
    """Where the images are, how they are read and what limits the session: this machine may be another one."""
    save(tmp_path, command(tmp_path, time_limit="1h"))
    config = find(command(tmp_path, num_workers=3, time_limit="2h", save_every="7"), tmp_path).resolved.config

    assert (config.data.num_workers, config.run.time_limit, config.run.save_every) == (3, "2h", "7")


def test_settings_that_were_fitted_are_kept(tmp_path: Path) -> None:
    """Smaller batches and activation checkpointing after a lack of memory, and epochs added by hand."""
    resolved = command(tmp_path)
    plan = save(tmp_path, resolved)
    content = torch.load(tmp_path / "last.pth", weights_only=True)
    content["config"]["train"] |= {"batch_size": 2, "stage2_batch_size": 1, "accumulation_steps": 2, "epochs": 9}
    content["config"]["model"]["gradient_checkpointing"] = True
    write_verified(tmp_path / "last.pth", content)
    found = find(resolved, tmp_path)

    assert batches(found) == (2, 1, 2, None)
    assert found.resolved.config.train.epochs == 9
    assert found.resolved.config.model.gradient_checkpointing
    assert not plan.config.model.gradient_checkpointing


@pytest.mark.parametrize(
    ("gpus", "expected"), [(1, (4, 2, 1, 1)), (2, (2, 1, 1, 2)), (None, (4, 2, 1, None))], ids=["1", "2", "not given"]
)
def test_another_number_of_processes(tmp_path: Path, gpus: int | None, expected: tuple[int, ...]) -> None:
    """Batches per process change with it, so that the images per optimizer step do not."""
    save(tmp_path, command(tmp_path))

    assert batches(find(command(tmp_path, **({} if gpus is None else {"gpus": gpus})), tmp_path)) == expected


def test_back_on_the_first_number_of_processes(tmp_path: Path) -> None:
    """The run has its first batch sizes again, whatever it was continued with in between."""
    resolved = command(tmp_path, gpus=2)  # 4 per process: 8 images per step
    first = save(tmp_path, resolved).config
    content = torch.load(tmp_path / "last.pth", weights_only=True)
    config = find(command(tmp_path, gpus=1), tmp_path).resolved.config
    content["config"] = to_mapping(config)
    write_verified(tmp_path / "last.pth", content)

    assert (config.train.batch_size, config.train.accumulation_steps) == (4, 2)
    assert find(resolved, tmp_path).resolved.config == continuing(replace(resolved, config=first)).config


def test_a_number_that_does_not_divide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest global batch sizes are used and named; the next number that divides has the first ones again."""
    save(tmp_path, command(tmp_path, gpus=2))
    found = find(command(tmp_path, gpus=3), tmp_path)
    content = torch.load(tmp_path / "last.pth", weights_only=True)
    content["config"] = to_mapping(found.resolved.config)
    write_verified(tmp_path / "last.pth", content)
    words = " ".join(capsys.readouterr().err.split())

    assert found.resolved.config.global_batches == (9, 3)
    kept = "the global batch sizes 8 and 4 (stages 1 and 2) cannot be kept on 3 processes"
    assert f"{kept}: continuing with 9 and 3" in words
    assert find(command(tmp_path, gpus=1), tmp_path).resolved.config.global_batches == (8, 4)


def test_another_run(tmp_path: Path) -> None:
    """Each setting that changes the result is named with both values, and how to continue that run."""
    save(tmp_path, command(tmp_path))
    with pytest.raises(UsageError) as caught:
        find(command(tmp_path, lr=0.5, epochs=7, batch_size=2), tmp_path)

    for words in (
        "train.epochs is 3 there and 7 in this command",
        "train.batch_size is 4 there and 2 in this command",
        "train.lr is 0.001 there and 0.5 in this command",
    ):
        assert words in caught.value.message
    assert f"camox resume {tmp_path}" in caught.value.hint


def test_another_fit(tmp_path: Path) -> None:
    """A run that was fitted to another time is another run, and the same command finds the numbers it chose."""

    def fitted(time: str | None) -> Resolved:
        resolved = command(tmp_path)
        return replace(resolved, config=replace(resolved.config, train=replace(resolved.config.train, fit=time)))

    save(tmp_path, fitted("9h"))
    path, content = find_checkpoint(tmp_path)
    content["config"]["train"]["epochs"] = 7  # as chosen
    write_verified(path, content)

    assert find(fitted("9h"), tmp_path).resolved.config.train.epochs == 7
    for other, words in (("5h", "train.fit is 9h there and 5h in this"), (None, "is 9h there and not set in this")):
        with pytest.raises(UsageError, match=words):
            find(fitted(other), tmp_path)


def test_another_start(tmp_path: Path) -> None:
    """A run that began with other weights is another run; the path may be given in another way."""
    weights = tmp_path / "weights.pth"
    weights.touch()
    save(tmp_path / "run", command(tmp_path / "run", resume_from=str(weights)))

    found = find(command(tmp_path / "run", resume_from=str(weights)), tmp_path / "run")
    assert found.checkpoint is not None
    with pytest.raises(UsageError, match=f"it began with {weights}, this command with none"):
        find(command(tmp_path / "run"), tmp_path / "run")
    save(tmp_path / "other", command(tmp_path / "other"))
    with pytest.raises(UsageError, match=f"it began with no checkpoint, this command with {weights}"):
        find(command(tmp_path / "other", init_from=str(weights)), tmp_path / "other")


def test_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    """Its checkpoints do not say how it was started: the settings that it was trained with must be the same."""
    save(tmp_path, command(tmp_path))
    content = torch.load(tmp_path / "last.pth", weights_only=True)
    del content["start"]
    write_verified(tmp_path / "last.pth", content)

    assert find(command(tmp_path), tmp_path).checkpoint is not None
    with pytest.raises(UsageError, match=r"train\.seed is 42 there and 7 in this command"):
        find(command(tmp_path, seed=7), tmp_path)


def test_a_complete_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its results are those of results.json; without that file or an epoch, it is not complete."""
    resolved = command(tmp_path)
    save(tmp_path, resolved, epoch=EPOCHS, samples=0, results=True)
    outcome = find(resolved, tmp_path).outcome
    assert outcome is not None
    assert outcome.results == {"validation": {}, "tests": {}, "epoch": 1}
    assert (outcome.epochs, outcome.seconds) == (EPOCHS, 2.5)
    assert f"The run in {tmp_path} is complete" in " ".join(capsys.readouterr().err.split())

    (tmp_path / "results.json").write_text('{"validation": ')
    assert find(resolved, tmp_path).outcome is None
    save(tmp_path, resolved, epoch=EPOCHS - 1, results=True)
    assert find(resolved, tmp_path).outcome is None


def test_an_early_stop(tmp_path: Path) -> None:
    """A run whose patience has ended is complete after fewer epochs; one with patience left is not."""
    resolved = command(tmp_path, patience=1, stage1_epochs=0, progressive_unfreeze=False)
    save(tmp_path, resolved, epoch=2, samples=0, best_epoch=2, results=True)
    assert find(resolved, tmp_path).outcome is None

    save(tmp_path, resolved, epoch=2, samples=0, best_epoch=1, results=True)
    (tmp_path / "results.json").write_text(json.dumps({"validation": {}, "tests": {}, "epoch": 1, "epochs": 2}))
    outcome = find(resolved, tmp_path).outcome
    assert outcome is not None
    assert outcome.epochs == 2


def test_ranks(tmp_path: Path) -> None:
    """Rank 0 decides for all; one that was started without the scheduler's variables learns it from there."""
    resolved = command(tmp_path)
    save(tmp_path, resolved)

    def find_here(world: World) -> Found:
        return find_run(resolved, RunFolder(tmp_path), world, "restarted" if world.is_main else None)

    found = in_threads(2, find_here)
    assert [None if each.checkpoint is None else each.checkpoint.path for each in found] == [tmp_path / "last.pth"] * 2

    save(tmp_path, resolved, epoch=EPOCHS, samples=0, results=True)
    first, second = (each.outcome for each in in_threads(2, find_here))
    assert first is not None
    assert second is not None
    assert (first.results is None, second.results is None) == (False, True)


def test_ranks_are_refused_together(tmp_path: Path) -> None:
    """What rank 0 finds wrong, every rank raises: none waits for another in vain."""
    save(tmp_path, command(tmp_path))
    resolved = command(tmp_path, lr=0.5)

    def refused(world: World) -> str:
        with pytest.raises(UsageError) as caught:
            find_run(resolved, RunFolder(tmp_path), world, REASON)
        return caught.value.message

    first, second = in_threads(2, refused)
    assert first == second
    assert "train.lr" in first


def test_ranks_that_read_different_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run folder that machines do not share: all say so, and nothing is trained."""
    resolved = command(tmp_path)
    save(tmp_path, resolved)
    other = tmp_path / "other"
    save(other, command(other), samples=2)
    content = torch.load(other / "last.pth", weights_only=True)
    monkeypatch.setattr("camoxpert_cli.launch.continuing.read_checkpoint", lambda path: content)

    def refused(world: World) -> str:
        with pytest.raises(UsageError) as caught:
            find_run(resolved, RunFolder(tmp_path), world, REASON)
        return caught.value.message

    first, second = in_threads(2, refused)
    assert first == second
    assert "rank 1 does not read the same" in first
    assert "epoch 2 after 2 images, expected epoch 2 after 4 images" in first


def test_when_it_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a scheduler runs the command, unless that is turned off; without a name for the folder it only warns."""
    for name in ("TORCHELASTIC_MAX_RESTARTS", "SLURM_JOB_ID", "SKYPILOT_TASK_ID", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    assert why_continue(command(tmp_path)) is None
    assert why_continue(command(tmp_path, **{"continue": True})) == REASON
    assert capsys.readouterr().err == ""

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    unnamed = command(tmp_path)
    unnamed = replace(unnamed, config=replace(unnamed.config, run=replace(unnamed.config.run, checkpoint_dir=None)))
    assert why_continue(command(tmp_path)) == "SLURM_JOB_ID is set"
    assert why_continue(command(tmp_path, **{"continue": False})) is None
    assert why_continue(unnamed) is None
    assert "without --checkpoint-dir" in " ".join(capsys.readouterr().err.split())


def test_it_needs_a_folder(tmp_path: Path) -> None:
    """`--continue` without a folder could never find the run again."""
    resolved = command(tmp_path, **{"continue": True})
    unnamed = replace(resolved, config=replace(resolved.config, run=replace(resolved.config.run, checkpoint_dir=None)))
    with pytest.raises(UsageError, match="--continue needs a run folder") as caught:
        why_continue(unnamed)

    assert "--checkpoint-dir" in caught.value.hint


def test_what_a_checkpoint_says_of_the_start(tmp_path: Path) -> None:
    """It survives a resume; a run that is started anew from a checkpoint has its own."""
    plan = save(tmp_path, command(tmp_path))
    found = find(command(tmp_path), tmp_path)
    checkpoint = found.checkpoint
    assert isinstance(checkpoint, Checkpoint)
    resumed = replace(plan, as_given=None, config=replace(plan.config, train=replace(plan.config.train, epochs=99)))
    again = replace(plan, as_given={"train": {"epochs": 5}})

    assert _start_of(resumed, checkpoint) == checkpoint.start == _start_of(plan, None)
    assert _start_of(again, checkpoint) == StartContent({"train": {"epochs": 5}}, to_mapping(plan.config))
    assert decide(found.resolved, checkpoint).as_given is None
    assert decide(found.resolved, checkpoint).config.run.continue_ is None


def test_every_setting_of_the_machine_is_known() -> None:
    """Neither a batch size nor the name of the folder is among what a command may change."""
    from camoxpert_cli.config.diff import _NO_EFFECT, _ROUNDING

    assert {"train.batch_size", "train.epochs", "run.checkpoint_dir"} & (_NO_EFFECT | _ROUNDING) == set()
    assert SETTINGS.keys() >= (_NO_EFFECT | _ROUNDING)


def test_all_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--gpus all` asks for as many as there are, now as when the run was started."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(autobatch, "is_measured", lambda device: False)
    save(tmp_path, command(tmp_path, gpus="all", device="cuda"))

    assert find(command(tmp_path, gpus="all", device="cuda"), tmp_path).checkpoint is not None
    assert find(command(tmp_path, device="cpu"), tmp_path).checkpoint is not None
    with pytest.raises(UsageError, match=r"train\.batch_size is 4 there and 3 in this command"):
        find(command(tmp_path, gpus="all", device="cuda", batch_size=3), tmp_path)


def test_less_memory(tmp_path: Path) -> None:
    """Smaller batches per GPU with as many accumulation steps more, and activation checkpointing, are taken over."""
    save(tmp_path, command(tmp_path))
    smaller = {"batch_size": 2, "stage2_batch_size": 1, "accumulation_steps": 2, "gradient_checkpointing": True}
    found = find(command(tmp_path, **smaller), tmp_path)

    assert batches(found) == (2, 1, 2, None)
    assert found.resolved.config.model.gradient_checkpointing


def test_a_run_that_was_extended(tmp_path: Path) -> None:
    """The command that started it continues it, and so does the one that asks for what it is now."""
    save(tmp_path, command(tmp_path))
    content = torch.load(tmp_path / "last.pth", weights_only=True)
    content["config"]["train"]["epochs"] = 9
    write_verified(tmp_path / "last.pth", content)

    for epochs in (EPOCHS, 9):
        assert find(command(tmp_path, epochs=epochs), tmp_path).resolved.config.train.epochs == 9
    with pytest.raises(UsageError, match=r"train\.epochs is 3 there and 8 in this command"):
        find(command(tmp_path, epochs=8), tmp_path)


def test_other_backbone_weights(tmp_path: Path) -> None:
    """A file of another name makes another run; the same file may be in another folder of another machine."""
    first, copy, other = tmp_path / "a" / "w.pth", tmp_path / "b" / "w.pth", tmp_path / "b" / "v.pth"
    folder = tmp_path / "run"
    save(folder, command(folder, backbone_weights=str(first), pretrained=True))

    assert find(command(folder, backbone_weights=str(copy), pretrained=True), folder).checkpoint is not None
    with pytest.raises(UsageError, match=r"model\.backbone_weights is .*w\.pth there and .*v\.pth in this command"):
        find(command(folder, backbone_weights=str(other), pretrained=True), folder)


def test_a_complete_run_with_other_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked at if their path is another one; those of the run need not even be there any more."""
    save(tmp_path, command(tmp_path), epoch=EPOCHS, samples=0, results=True)
    looked: list[str] = []
    monkeypatch.setattr(
        "camoxpert_cli.launch.continuing.open_data", lambda data, *rest: looked.extend(data.dataset_path)
    )
    monkeypatch.setattr("camoxpert_cli.launch.continuing.check_images", lambda *arguments: True)
    assert find(command(tmp_path), tmp_path).outcome is not None
    assert looked == []

    assert find(command(tmp_path, dataset_path=["/elsewhere"]), tmp_path).outcome is not None
    assert looked == ["/elsewhere"]


def test_a_complete_run_without_gpus(tmp_path: Path) -> None:
    """Its results are there on a machine that could not train it."""
    resolved = command(tmp_path)
    save(tmp_path, resolved, epoch=EPOCHS, samples=0, results=True)

    assert find(command(tmp_path, device="cuda", gpus=4), tmp_path).outcome is not None


def test_a_complete_run_of_which_the_best_weights_are_left(tmp_path: Path) -> None:
    """It is complete, and not continued from its best epoch; with an older checkpoint beside it, it is not."""
    resolved = command(tmp_path)
    save(tmp_path, resolved, results=True)
    (tmp_path / "last.pth").rename(tmp_path / "best_model.pth")
    assert find(resolved, tmp_path).outcome is not None

    (tmp_path / "best_model.pth").rename(tmp_path / "previous.pth")
    assert find(resolved, tmp_path).outcome is None


def test_a_checkpoint_in_the_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that says from where to resume does so in a job of a scheduler, too."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    last, elsewhere = tmp_path / "last.pth", tmp_path / "other" / "last.pth"

    assert why_continue(command(tmp_path, resume_from=str(last))) is None
    assert why_continue(command(tmp_path, resume_from=str(last), **{"continue": True})) == REASON
    assert why_continue(command(tmp_path, resume_from=str(elsewhere))) == "SLURM_JOB_ID is set"


def test_one_warning_of_a_missing_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the first process that torchrun started."""
    resolved = command(tmp_path)
    unnamed = replace(resolved, config=replace(resolved.config, run=replace(resolved.config.run, checkpoint_dir=None)))
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_MAX_RESTARTS": "3", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)

    assert why_continue(unnamed) is None
    assert capsys.readouterr().err == ""


def test_it_saves_first(tmp_path: Path) -> None:
    """A run that may be killed at any moment; others save when it is due."""
    found = find(command(tmp_path / "a"), tmp_path / "a")

    assert decide(found.resolved).saves_first
    assert not decide(command(tmp_path / "b")).saves_first
