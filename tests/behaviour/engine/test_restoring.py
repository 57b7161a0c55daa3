"""How a run goes on from a checkpoint. `tests/slow/test_restoring.py` cuts it everywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from camoxpert_cli.checkpoints.format import Checkpoint, CheckpointContent, read_checkpoint, write_checkpoint
from camoxpert_cli.engine import build
from camoxpert_cli.engine.restoring import copy_best
from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.train import begin, close_epoch, train, train_epochs
from camoxpert_cli.errors import CheckpointError, UsageError
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.checkpoints import write_content
from tests.helpers.compare import differences
from tests.helpers.cut_runs import SETTINGS, differing, history
from tests.helpers.networks import small_network
from tests.helpers.steered_runs import Disk
from tests.helpers.tiny_data import tiny_plan

# Of `plain_run`: an epoch of stage 1 and one of stage 2.
STEPS = 2 + 3


# An epoch of stage 1 and two phases of one epoch each, two steps an epoch.
SHORT: dict[str, Any] = {**SETTINGS, "epochs": 3, "stage1_epochs": 1, "scheduler": "cosine_restart"}
# Where a run is cut, by complete epochs and images of the next one: within the first epoch, with the backbone at rest,
# within a later one, and where more of the backbone begins to train.
PLACES = [(0, 4), (1, 6), (2, 0)]


class Uncut(NamedTuple):
    """The folder of a run at its end, and copies of it as it was at `PLACES`."""

    folder: Path
    copies: dict[tuple[int, int], Path]


def write_at(run: Run, places: list[tuple[int, int]], then: Callable[[tuple[int, int]], object]) -> None:
    """Have last.pth written at some places and at the end only, which saves a second, and do something after that."""

    def write(path: Path, content: CheckpointContent, keep_as: Path | None) -> None:
        place = (run.state.progress.epoch, run.state.progress.samples)
        if path == run.folder.best or place in [*places, (3, 0)]:
            write_checkpoint(path, content, None)
        if path == run.folder.last and place in places:
            then(place)

    run.saver.write = write


@pytest.fixture(scope="module")
def uncut(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Uncut:
    """A run that was never cut, with what a cut one would have left."""
    folder = tmp_path_factory.mktemp("uncut")
    run, _ = prepare(tiny_plan(tiny_data, folder / "run", **SHORT))
    copies = {place: folder / str(number) for number, place in enumerate(PLACES)}
    write_at(run, PLACES, lambda place: shutil.copytree(run.folder.path, copies[place]))
    begin(run, run.config, None)
    assert train_epochs(run) is None
    return Uncut(run.folder.path, copies)


@pytest.mark.parametrize("place", PLACES)
def test_cut_and_uncut_runs_end_alike(uncut: Uncut, tiny_data: Path, tmp_path: Path, place: tuple[int, int]) -> None:
    """A run that was cut ends with the bits of the uncut one: weights, average, moments, history and log."""
    folder = tmp_path / "run"
    shutil.copytree(uncut.copies[place], folder)
    run, checkpoint = prepare(tiny_plan(tiny_data, folder, resume_from=str(folder / "last.pth"), **SHORT))
    write_at(run, [], lambda place: None)
    begin(run, run.config, checkpoint)
    assert train_epochs(run) is None

    assert differing(folder, uncut.folder) == []


class Content(dict[str, Any]):
    """What a checkpoint holds, without all its numbers where a test that fails tells its arguments."""

    def __repr__(self) -> str:
        return f"Content({', '.join(self)})"


@pytest.fixture(scope="module")
def saved(plain_run: RunFolder) -> Checkpoint:
    """What `plain_run` has left, in memory. Change nothing in it."""
    return Checkpoint(plain_run.last, Content(read_checkpoint(plain_run.last)))


def with_training(saved: Checkpoint, path: Path, **fields: Any) -> Checkpoint:
    """The same at another place, with other training state."""
    return Checkpoint(path, Content(saved.content, training={**saved.content["training"], **fields}))


def restored(data: Path, folder: Path, checkpoint: Checkpoint, **settings: Any) -> Run:
    """A run that stands where `checkpoint` was saved."""
    run, _ = prepare(tiny_plan(data, folder, **settings), checkpoint)
    begin(run, run.config, checkpoint)
    return run


def with_best(saved: Checkpoint, folder: Path, **scores: Any) -> Checkpoint:
    """The last of a longer run than `plain_run`, beside a best_model.pth that has such `scores`.

    Its best epoch was the first, with an IoU of 2.
    """
    folder.mkdir()
    progress = {**saved.content["training"]["progress"], "best_epoch": 1, "best_iou": 2.0}
    small = {name: saved.content[name] for name in ("backbone", "num_experts", "epoch", "config", "versions")}
    weights = dict.fromkeys(saved.content["network"], torch.zeros(1))
    write_content(folder / "best_model.pth", {**small, "network": weights, "scores": scores})
    checkpoint = with_training(saved, folder / "last.pth", progress=progress)
    checkpoint.path.touch()
    return checkpoint


def test_all_that_is_saved_comes_back(saved: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    """What a run that goes on would save at once is what it goes on from: weights, average, moments, position."""
    run = restored(tiny_data, tmp_path / "run", saved, epochs=3)
    disk = run.saver.write = Disk()
    run.saver.save_last()
    own = disk.written[0][1].to_dict()

    assert differences(own, saved.content, {"config", "versions", "checksum", "start"}) == []
    assert own["training"]["ema_updates"] == STEPS
    assert own["training"]["backbone_stages"] == 4


def test_weights_that_a_checkpoint_replaces_are_not_fetched(
    saved: Checkpoint, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on where the pretrained weights it began with cannot be had any more."""
    monkeypatch.delattr(build, "create_pretrained_backbone")
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run", pretrained=True), saved)

    assert run.state.network.keep_backbone_statistics
    assert differences(run.state.network.state_dict(), saved.content["network"]) == []


def test_scale_goes_on(saved: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    """The gradient scale that float16 found, and how long it has held, survive the cut."""
    scaler = {**GradScaler("cpu", init_scale=16.0).state_dict(), "_growth_tracker": 5}
    checkpoint = with_training(saved, saved.path, scaler=scaler)
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run", epochs=3), checkpoint)
    run.state.scaler = GradScaler("cpu", init_scale=64.0)
    begin(run, run.config, checkpoint)

    assert run.state.scaler.get_scale() == 16.0
    assert run.state.scaler.state_dict()["_growth_tracker"] == 5


def test_changed_rates_and_decay_count_from_here_on(saved: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    """Weight decay and the backbone's part of the rate are those asked for now, with the moments of before."""
    asked = {"weight_decay": 0.25, "backbone_lr_factor": 0.5, "epochs": 3}
    run = restored(tiny_data, tmp_path / "run", saved, **asked)
    assert run.state.optimizer is not None

    assert [group["weight_decay"] for group in run.state.optimizer.param_groups] == [0.25, 0.25]
    assert [group["lr_factor"] for group in run.state.optimizer.param_groups] == [1.0, 0.5]
    assert {int(state["step"]) for state in run.state.optimizer.state.values()} == {3, STEPS}


def test_a_longer_run_freezes_nothing_again(saved: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    """Extended, a run's plan would unfreeze later; what trains already goes on training, to the end."""
    run = restored(tiny_data, tmp_path / "run", saved, epochs=9)
    coming = [phase for phase in run.phases if phase.end > 2]

    assert [(phase.first, phase.end, phase.backbone_stages) for phase in coming] == [(1, 9, 4)]


def test_what_resuming_tells(
    plain_run: RunFolder, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resuming a run that is complete says from where, trains nothing, and writes the same results.

    Where it went on stands between the steps in metrics.jsonl.
    """
    folder = tmp_path / "run"
    shutil.copytree(plain_run.path, folder)
    (folder / "results.json").unlink()
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    train(tiny_plan(tiny_data, folder, resume_from=str(folder / "last.pth")))
    after = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    added = json.loads(after[-1])

    assert after[:-1] == lines
    assert (added["event"], added["epoch"], added["samples"]) == ("resume", 2, 0)
    assert f"Resuming from {folder / 'last.pth'}: 2 epochs complete" in capsys.readouterr().err
    assert (folder / "results.json").read_bytes() == plain_run.results.read_bytes()
    assert (folder / "last.pth").read_bytes() == plain_run.last.read_bytes()


@pytest.mark.parametrize("name", ["precision", "number format"])
def test_another_precision_is_reported(
    saved: Checkpoint, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Results will differ by rounding, also from a checkpoint of camox 0.1, which has another name for it."""
    computed_with = {"device": "CPU, threads 0", name: "bfloat16"}
    checkpoint = with_training(saved, tmp_path / "last.pth", computed_with=computed_with)
    restored(tiny_data, tmp_path / "run", checkpoint, epochs=3)
    said = capsys.readouterr().err

    assert "The device was CPU, threads 0 and is now CPU, threads " in said
    assert "The precision was bfloat16 and is now float32: results will differ by rounding\n" in said


def test_another_execution_is_reported_once_it_is_known(
    saved: Checkpoint, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run that was compiled: at once if this one is not, later if it may be; an older checkpoint was not."""
    checkpoint = with_training(saved, tmp_path / "last.pth", computed_with={"execution": "compiled"})
    said = "The execution was compiled and is now eager: results will differ by rounding\n"
    restored(tiny_data, tmp_path / "off", checkpoint, epochs=3)
    assert said in capsys.readouterr().err
    run = restored(tiny_data, tmp_path / "on", checkpoint, epochs=3, compile="on")
    assert said not in capsys.readouterr().err
    assert run.compiling.before == "compiled"
    older = with_training(saved, tmp_path / "last.pth", computed_with={})
    assert restored(tiny_data, tmp_path / "older", older, epochs=3, compile="on").compiling.before == "eager"


@pytest.mark.parametrize("name", ["last.pth", "previous.pth"])
def test_only_a_last_file_that_was_read_is_trusted(
    saved: Checkpoint, tiny_data: Path, tmp_path: Path, name: str
) -> None:
    """Going on from previous.pth, a run must not put a last.pth that may be damaged in its place."""
    folder = tmp_path / "run"
    folder.mkdir()
    for each in ("last.pth", "previous.pth"):
        (folder / each).touch()
    checkpoint = Checkpoint(folder / name, saved.content)
    run = restored(tiny_data, folder, checkpoint, epochs=3, resume_from=str(checkpoint.path))

    assert run.saver.trusts_last == (name == "last.pth")


def test_best_weights_move_to_another_folder(saved: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    """Resumed into a new folder, a run has its best weights there, though no later epoch is better."""
    source = with_best(saved, tmp_path / "source", epoch=1, iou=2.0)
    run = restored(tiny_data, tmp_path / "run", source, epochs=3)
    copy_best(run, source.path)
    disk = run.saver.write = Disk()
    close_epoch(run, run.phases[-1], Scores({"iou": 0.9, "dice": 0.0, "mae": 1.0}))

    assert run.folder.best.read_bytes() == (source.path.parent / "best_model.pth").read_bytes()
    assert [name for name, _ in disk.written] == ["last.pth"]
    assert (run.state.progress.best_epoch, run.state.progress.best_iou) == (1, 2.0)
    assert [row["epoch"] for row in history(run.folder.path)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("epoch", "iou", "beside"), [(1, 1.5, True), (1, 1.5, False), (2, 2.0, True)], ids=["new", "same", "later"]
)
def test_best_weights_of_another_run(
    saved: Checkpoint,
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    epoch: int,
    iou: float,
    beside: bool,
) -> None:
    """best_model.pth of another epoch, or of the same one in another run, is not taken for the best of this run.

    Neither where it lies in the run folder, nor where it would be copied from beside the checkpoint.
    """
    source = with_best(saved, tmp_path / "source", epoch=epoch, iou=iou)
    folder = tmp_path / "run" if beside else source.path.parent
    run = restored(tiny_data, folder, source, epochs=3, resume_from=str(source.path))

    assert (run.state.progress.best_epoch, run.state.progress.best_iou) == (0, -1.0)
    assert "this run's best weights, of epoch 1; the best weights are chosen only from" in capsys.readouterr().err
    assert run.folder.best.exists() != beside


def test_best_weights_that_are_nowhere(
    saved: Checkpoint, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where last.pth comes alone, the best is sought among the epochs to come, and that is said."""
    source = with_best(saved, tmp_path / "source", epoch=1, iou=2.0)
    (source.path.parent / "best_model.pth").unlink()
    run = restored(tiny_data, tmp_path / "run", source, epochs=3)
    disk = run.saver.write = Disk()
    close_epoch(run, run.phases[-1], Scores({"iou": 0.0, "dice": 0.0, "mae": 1.0}))

    assert [(name, content.epoch) for name, content in disk.written] == [("best_model.pth", 3), ("last.pth", 3)]
    assert run.state.progress.best_epoch == 3
    assert (
        f"file not found: {source.path.parent / 'best_model.pth'}; the best weights are chosen"
        in capsys.readouterr().err
    )


def test_nothing_left_to_do(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """A checkpoint with all the epochs asked for and without the best weights beside it is refused, exit code 2."""
    shutil.copy(plain_run.last, tmp_path / "last.pth")
    with pytest.raises(UsageError, match="has 2 epochs complete") as caught:
        train(tiny_plan(tiny_data, tmp_path / "run", resume_from=str(tmp_path / "last.pth")))

    assert caught.value.exit_code == 2
    assert "--epochs" in caught.value.hint


def test_other_settings(plain_run: RunFolder, tiny_data: Path, tmp_path: Path) -> None:
    """Training state of other parameters is refused with exit code 4, and the run folder keeps what it had."""
    folder = tmp_path / "run"
    shutil.copytree(plain_run.path, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match="does not fit these settings") as caught:
        train(tiny_plan(tiny_data, folder, resume_from=str(folder / "last.pth"), deep_supervision=False))

    assert caught.value.exit_code == 4
    assert caught.value.hint == (
        f"camox resume {folder / 'last.pth'}, which uses the settings in the checkpoint; "
        f"if that fails too: camox resume {folder / 'previous.pth'}"
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_network(saved: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    """A checkpoint of another network is refused before the run folder is made."""
    with pytest.raises(CheckpointError, match="does not match test_resnet with 3 experts"):
        prepare(tiny_plan(tiny_data, tmp_path / "run", num_experts=3), saved)

    assert not (tmp_path / "run").exists()


def test_from_best_model(
    saved: Checkpoint, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """best_model.pth gives weights, EMA and epoch; what starts anew is said, and no worse epoch replaces it."""
    content = {**saved.content, "scores": saved.content["history"][-1]}
    del content["training"]
    source = tmp_path / "source" / "best_model.pth"
    source.parent.mkdir()
    write_content(source, content)
    run = restored(tiny_data, tmp_path / "run", Checkpoint(source, content), epochs=3)
    said = capsys.readouterr().err
    progress, ema = run.state.progress, run.state.ema
    assert ema is not None

    assert f"Resuming from {source}: 2 epochs complete" in said
    assert "contains only weights; the optimizer, gradient scaler, position" in said
    # An average that began its ramp anew would forget what it holds.
    assert (progress.epoch, progress.samples, progress.best_epoch, ema.updates) == (2, 0, 2, STEPS)
    assert differences(dict(ema.network.state_dict()), dict(content["ema"])) == []
    assert differences(dict(run.state.network.state_dict()), dict(content["network"])) == []

    enter_phase(run, run.phases[-1])
    copy_best(run, source)
    disk = run.saver.write = Disk()
    close_epoch(run, run.phases[-1], Scores({"iou": content["scores"]["iou"], "dice": 0.0, "mae": 1.0}))
    assert run.folder.best.read_bytes() == source.read_bytes()
    assert [name for name, _ in disk.written] == ["last.pth"]
    assert run.state.optimizer is not None
    assert not run.state.optimizer.state
    assert [row["epoch"] for row in history(run.folder.path)] == [1, 2, 3]
    assert progress.best_epoch == 2


def test_from_the_original_program(
    saved: Checkpoint, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of the original program, which counts epochs from 0, goes on with the epoch after the one it names.

    Its average has parameters only, so BatchNorm's statistics are those of the network.
    """
    content = saved.content
    network = small_network("test_resnet", 2)
    parameters = {name for name, _ in network.named_parameters()}
    original = {
        "epoch": 2,
        "model_state_dict": {f"module.{name}": value for name, value in content["network"].items()},
        "ema_state_dict": {name: value for name, value in content["ema"].items() if name in parameters},
        "args": {"backbone": "test_resnet", "num_experts": 2, "img_size": 64},
        "best_iou": np.float64(0.71),
    }
    path = tmp_path / "original.pth"
    torch.save(original, path)
    run = restored(tiny_data, tmp_path / "run", Checkpoint(path, read_checkpoint(path)), epochs=4)
    said = capsys.readouterr().err
    assert run.state.ema is not None

    assert run.state.progress.epoch == 3
    assert run.state.progress.best_epoch == 0
    assert f"Resuming from {path}: 3 epochs complete" in said
    assert "contains only weights; the optimizer, gradient scaler, position" in said
    expected = {name: content["ema" if name in parameters else "network"][name] for name in content["ema"]}
    assert differences(dict(run.state.ema.network.state_dict()), expected) == []
    assert differences(dict(run.state.network.state_dict()), dict(content["network"])) == []


def test_skip_stage1_from_weights(saved: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    """Weights of an early epoch, resumed without stage 1, begin with stage 2's first epoch."""
    content = {**saved.content, "epoch": 1, "scores": None}
    del content["training"]
    settings = {"skip_stage1": True, "epochs": 4, "stage1_epochs": 2}
    run = restored(tiny_data, tmp_path / "run", Checkpoint(saved.path, content), **settings)

    assert run.state.progress.epoch == 2
    assert [phase for phase in run.phases if phase.stage.number == 1] == []


@pytest.fixture(scope="module")
def other_data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data set with a training image less."""
    root = tmp_path_factory.mktemp("other") / "data"
    shutil.copytree(tiny_data, root)
    for kind in ("Imgs", "GT"):
        (root / "TrainDataset" / kind / "train-00.png").unlink()
    return root


def best_of(saved: Checkpoint, folder: Path, **more: Any) -> Checkpoint:
    """A best_model.pth with the weights, scores and images of `saved`."""
    content = {**saved.content, "scores": saved.content["history"][-1], **more}
    del content["training"]
    folder.mkdir(exist_ok=True)
    write_content(folder / "best_model.pth", content)
    return Checkpoint(folder / "best_model.pth", Content(content))


def test_weights_with_other_images_begin_a_new_run(
    saved: Checkpoint, other_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its epochs and its best are its own: what the old network scored elsewhere is nothing to it."""
    source = best_of(saved, tmp_path / "source")
    run = restored(other_data, tmp_path / "run", source, epochs=1, stage1_epochs=1, warmup_epochs=0)
    progress = run.state.progress

    assert (progress.epoch, progress.best_epoch, progress.best_iou, progress.history) == (0, 0, -1.0, [])
    assert not run.folder.best.exists()
    assert differences(run.state.network.state_dict(), saved.content["network"]) == []
    assert "starting a new run from its weights" in " ".join(capsys.readouterr().err.split())
    disk = run.saver.write = Disk()
    enter_phase(run, run.phases[0])
    close_epoch(run, run.phases[0], Scores({"iou": 0.01, "dice": 0.0, "mae": 1.0}))
    assert [(name, content.epoch) for name, content in disk.written] == [("best_model.pth", 1), ("last.pth", 1)]


def test_a_new_run_does_not_take_the_old_ones_folder(saved: Checkpoint, other_data: Path, tmp_path: Path) -> None:
    source = best_of(saved, tmp_path / "source")
    before = source.path.read_bytes()
    with pytest.raises(UsageError, match="contains the old one") as caught:
        prepare(tiny_plan(other_data, source.path.parent, resume_from=str(source.path)), source)

    assert "--checkpoint-dir" in caught.value.hint
    assert source.path.read_bytes() == before


def test_moved_images_are_the_same(saved: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    """A data set at another place goes on, with its best."""
    shutil.copytree(tiny_data, tmp_path / "moved")
    run = restored(tmp_path / "moved", tmp_path / "run", best_of(saved, tmp_path / "source"), epochs=3)

    assert (run.state.progress.epoch, run.state.progress.best_epoch) == (2, 2)


@pytest.mark.parametrize("change", [{"val_fraction": 0.5}, {"seed": 7}])
def test_images_held_out_otherwise(saved: Checkpoint, tiny_data: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    """Of the same data set, others are held out: scores do not compare."""
    run = restored(tiny_data, tmp_path / "run", best_of(saved, tmp_path / "source"), **change)

    assert (run.state.progress.epoch, run.state.progress.best_epoch) == (0, 0)


def test_position_and_optimizer_belong_to_images(saved: Checkpoint, other_data: Path, tmp_path: Path) -> None:
    """last.pth goes on with its own images alone; what starts anew with others is said where it is there."""
    checkpoint = Checkpoint(tmp_path / "last.pth", saved.content)
    with pytest.raises(CheckpointError, match="was trained on different images") as caught:
        prepare(tiny_plan(other_data, tmp_path / "run"), checkpoint)
    assert "camox train" not in caught.value.hint

    best_of(saved, tmp_path)
    with pytest.raises(CheckpointError, match="was trained on different images") as caught:
        prepare(tiny_plan(other_data, tmp_path / "run"), checkpoint)
    assert (
        f"to start a new run from its weights: camox train --resume-from {tmp_path / 'best_model.pth'}"
        in caught.value.hint
    )


def test_held_out_images_alone_are_others(saved: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    """An image more to hold out, and the same to train on: the best so far was chosen by others."""
    own = saved.content["images"].split()[0]
    checkpoint = Checkpoint(saved.path, Content(saved.content, images=f"{own} others"))
    with pytest.raises(CheckpointError, match="selected its best weights on different images"):
        prepare(tiny_plan(tiny_data, tmp_path / "run"), checkpoint)


def test_scores_at_another_size_do_not_count(
    saved: Checkpoint, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the side that the network sees is changed on the way, the best is sought anew."""
    source = with_best(saved, tmp_path / "source", epoch=1, iou=2.0)
    run = restored(tiny_data, tmp_path / "run", source, img_size=96, epochs=3)

    assert (run.state.progress.epoch, run.state.progress.best_epoch) == (2, 0)
    said = capsys.readouterr().err
    assert "were measured at 64 x 64 pixels, but this run scores at 96 x 96; the best weights are chosen" in said
    assert "chosen only from the epochs that follow" in said


def test_scores_of_unknown_images_do_not_count(
    saved: Checkpoint, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that does not say which images its scores are of goes on, and its best counts nothing."""
    run = restored(tiny_data, tmp_path / "run", best_of(saved, tmp_path / "source", images=None), epochs=3)

    assert (run.state.progress.epoch, run.state.progress.best_epoch) == (2, 0)
    assert "does not record which validation images its scores were measured on" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize("name", ["last.pth", "best_model.pth"])
def test_fewer_epochs_than_there_are(saved: Checkpoint, tiny_data: Path, tmp_path: Path, name: str) -> None:
    """Asking for less than is done gives no old network for a new one: refused, exit code 2, and nothing is written."""
    source = best_of(saved, tmp_path / "source") if name == "best_model.pth" else saved
    with pytest.raises(UsageError, match="has 2 epochs complete, but these settings ask for 1") as caught:
        restored(tiny_data, tmp_path / "run", source, epochs=1, stage1_epochs=1, warmup_epochs=0)

    assert caught.value.exit_code == 2
    assert list((tmp_path / "run").iterdir()) == []


def test_a_complete_run_says_so(
    plain_run: RunFolder, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is scored again; in a new folder it is saved too, so that it can be made longer from there."""
    folder = tmp_path / "run"
    train(tiny_plan(tiny_data, folder, resume_from=str(plain_run.last)))

    assert "Training is complete (2 epochs): scoring the best weights again" in capsys.readouterr().err
    assert (folder / "results.json").read_bytes() == plain_run.results.read_bytes()
    assert (
        differences(read_checkpoint(folder / "last.pth"), saved_content(plain_run), {"config", "checksum", "start"})
        == []
    )


def saved_content(run: RunFolder) -> dict[str, Any]:
    return read_checkpoint(run.last)


@pytest.mark.parametrize("best_epoch", [0, 1])
def test_best_weights_of_another_program(saved: Checkpoint, tiny_data: Path, tmp_path: Path, best_epoch: int) -> None:
    """best_model.pth in the run folder is written over only where camox wrote it."""
    best = tmp_path / "best_model.pth"
    torch.save({f"module.{name}": value for name, value in saved.content["network"].items()}, best)
    before = best.read_bytes()
    progress = {**saved.content["training"]["progress"], "best_epoch": best_epoch}
    checkpoint = with_training(saved, tmp_path / "last.pth", progress=progress)
    checkpoint.path.touch()
    with pytest.raises(UsageError, match="was written by another program"):
        restored(tiny_data, tmp_path, checkpoint, epochs=3, resume_from=str(checkpoint.path))

    assert best.read_bytes() == before


def test_the_log_of_an_early_end_is_none_of_a_run_from_elsewhere(
    saved: Checkpoint, tiny_data: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.log("step", epoch=1, samples=4)
    restored(tiny_data, folder.path, saved, epochs=3)

    assert [json.loads(line)["event"] for line in folder.metrics.read_text().splitlines()] == ["resume"]
