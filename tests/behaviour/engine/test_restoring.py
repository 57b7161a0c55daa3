from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.engine import run as run_module
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.run import Run, prepare
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.engine.train import train
from camoxpert_cli.errors import CheckpointError, UsageError
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.checkpoints import write_content
from tests.helpers.compare import differences
from tests.helpers.cut_runs import CIRCUMSTANCES, SETTINGS, differing, history
from tests.helpers.tiny_data import tiny_plan

# Python 3.12 warns of any fork while threads run; workers use none of the parent's.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


class Cut(Exception):
    """Stands for whatever ends a process."""


def cut_after(monkeypatch: pytest.MonkeyPatch, steps: int, before_validation: bool = False) -> None:
    """End training after so many optimizer steps: when the next one begins, or before the epoch is validated."""
    original, validate = train_module.optimizer_step, train_module.validate
    done = 0

    def limited(*arguments: Any) -> float | None:
        nonlocal done
        if done == steps:
            raise Cut
        done += 1
        return original(*arguments)

    def limited_validate(run: Run) -> Scores | Stop:
        if done == steps and before_validation:
            raise Cut
        return validate(run)

    monkeypatch.setattr(train_module, "optimizer_step", limited)
    monkeypatch.setattr(train_module, "validate", limited_validate)


@pytest.fixture(scope="module")
def uncut(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_plan(tiny_data, tmp_path_factory.mktemp("uncut") / "run", **SETTINGS)).folder.path


# Where a run is cut: after so many optimizer steps, saving after each or at ends of epochs only, and whether between
# the epoch's last step and its validation.
CUTS: dict[str, tuple[int, str | None, bool]] = {
    "within the first epoch": (1, "1", False),
    "end of an epoch": (2, None, False),
    "within a group of accumulated batches": (3, "1", False),
    "stage boundary": (4, None, False),
    "within stage 2": (5, "1", False),
    "unfreezing": (6, None, False),
    "before validation": (6, "1", True),
    "within the last epoch": (7, "1", False),
}
SCHEDULERS = ["cosine", "onecycle", "cosine_restart", "none"]


@pytest.fixture(scope="module")
def uncut_runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """The uncut run with a scheduler, with or without an EMA of the weights; each is trained once."""

    @functools.cache
    def train_once(scheduler: str, use_ema: bool) -> Path:
        settings = {**SETTINGS, "scheduler": scheduler, "use_ema": use_ema}
        return train(tiny_plan(tiny_data, tmp_path_factory.mktemp("uncut") / "run", **settings)).folder.path

    return train_once


def cut_and_compare(data: Path, folder: Path, uncut: Path, cut: str, **settings: Any) -> None:
    """Cut a run, go on, and find no bit of the end that differs from the uncut run's."""
    steps, save_every, before_validation = CUTS[cut]
    settings = {**SETTINGS, **settings, "save_every": save_every}
    with pytest.MonkeyPatch.context() as patch:
        cut_after(patch, steps, before_validation)
        with pytest.raises(Cut):
            train(tiny_plan(data, folder, **settings))
    train(tiny_plan(data, folder, resume_from=str(folder / "last.pth"), **settings))

    assert differing(folder, uncut) == []
    results = [json.loads((each / "results.json").read_text(encoding="utf-8")) for each in (folder, uncut)]
    assert differences(results[0], results[1], CIRCUMSTANCES) == []


def some_cuts() -> list[tuple[str, str, bool, int]]:
    """Two cuts of one uncut run; slow tests have every combination."""
    return [
        ("within the first epoch", "cosine_restart", True, 2),
        ("unfreezing", "cosine_restart", True, 0),
    ]


@pytest.mark.parametrize(("cut", "scheduler", "use_ema", "num_workers"), some_cuts())
def test_settings_do_not_matter(
    tiny_data: Path,
    tmp_path: Path,
    uncut_runs: Callable[[str, bool], Path],
    cut: str,
    scheduler: str,
    use_ema: bool,
    num_workers: int,
) -> None:
    """Cut anywhere and resumed, a run ends with the bits of the uncut one, whatever its settings."""
    uncut = uncut_runs(scheduler, use_ema)
    cut_and_compare(
        tiny_data, tmp_path / "run", uncut, cut, scheduler=scheduler, use_ema=use_ema, num_workers=num_workers
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("use_ema", [True, False])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("cut", CUTS)
def test_every_combination(
    tiny_data: Path,
    tmp_path: Path,
    uncut_runs: Callable[[str, bool], Path],
    cut: str,
    scheduler: str,
    use_ema: bool,
    num_workers: int,
) -> None:
    """The full product of the above."""
    uncut = uncut_runs(scheduler, use_ema)
    cut_and_compare(
        tiny_data, tmp_path / "run", uncut, cut, scheduler=scheduler, use_ema=use_ema, num_workers=num_workers
    )


def test_scale_goes_on(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient scale that float16 found, and how long it has held, survive the cut."""
    monkeypatch.setattr(run_module, "build_scaler", lambda dtype, device: GradScaler("cpu", init_scale=64.0))
    with pytest.MonkeyPatch.context() as patch:
        cut_after(patch, 3)
        with pytest.raises(Cut):
            train(tiny_plan(tiny_data, tmp_path / "run"))
    last = tmp_path / "run" / "last.pth"
    content = read_checkpoint(last)
    content["training"]["scaler"].update(scale=16.0)
    write_content(last, content)
    train(tiny_plan(tiny_data, tmp_path / "run", resume_from=str(last)))
    scaler = read_checkpoint(last)["training"]["scaler"]

    assert (scaler["scale"], scaler["_growth_tracker"]) == (16.0, 5)


def test_what_resuming_tells(uncut: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that goes on says from where, and writes it between the steps in metrics.jsonl."""
    folder = tmp_path / "run"
    shutil.copytree(uncut, folder)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    train(tiny_plan(tiny_data, folder, resume_from=str(folder / "last.pth"), **SETTINGS))
    after = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    added = json.loads(after[-1])

    assert after[:-1] == lines
    assert (added["event"], added["epoch"], added["samples"]) == ("resume", 4, 0)
    assert f"Going on from {folder / 'last.pth'}: 4 epochs are complete" in capsys.readouterr().err


def test_finished_run_is_scored_again(uncut: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Resuming a run that is complete trains nothing and writes the same results."""
    folder = tmp_path / "run"
    shutil.copytree(uncut, folder)
    (folder / "results.json").unlink()
    train(tiny_plan(tiny_data, folder, resume_from=str(folder / "last.pth"), **SETTINGS))

    assert (folder / "results.json").read_bytes() == (uncut / "results.json").read_bytes()
    assert (folder / "last.pth").read_bytes() == (uncut / "last.pth").read_bytes()


def at_phase_boundary(uncut: Path) -> dict[str, Any]:
    """What last.pth would be in the middle of `uncut`: the weights do not matter here."""
    content = read_checkpoint(uncut / "last.pth")
    content["training"]["progress"].update(epoch=3, best_epoch=1, best_iou=2.0)
    return content


@pytest.mark.slow
def test_best_weights_move_to_another_folder(uncut: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Resumed into a new folder, a run has its best weights there, though no later epoch is better."""
    source = tmp_path / "source"
    source.mkdir()
    best = read_checkpoint(uncut / "best_model.pth")
    write_content(source / "best_model.pth", {**best, "scores": {**best["scores"], "epoch": 1, "iou": 2.0}})
    write_content(source / "last.pth", at_phase_boundary(uncut))
    folder = train(tiny_plan(tiny_data, tmp_path / "run", resume_from=str(source / "last.pth"), **SETTINGS)).folder

    assert folder.best.read_bytes() == (source / "best_model.pth").read_bytes()
    assert json.loads(folder.results.read_text(encoding="utf-8"))["epoch"] == 1
    assert json.loads(folder.history.read_text(encoding="utf-8"))[0]["epoch"] == 1


@pytest.mark.slow
def test_best_weights_that_are_nowhere(
    uncut: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where last.pth comes alone, the best is sought among the epochs to come, and that is said."""
    write_content(tmp_path / "last.pth", at_phase_boundary(uncut))
    folder = train(tiny_plan(tiny_data, tmp_path / "run", resume_from=str(tmp_path / "last.pth"), **SETTINGS)).folder

    assert read_checkpoint(folder.best)["epoch"] == 4
    assert json.loads(folder.results.read_text(encoding="utf-8"))["epoch"] == 4
    assert f"there is no file {tmp_path / 'best_model.pth'}: only epochs from here" in capsys.readouterr().err


def test_nothing_left_to_do(uncut: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A checkpoint with all the epochs asked for and without the best weights beside it is refused, exit code 2."""
    shutil.copy(uncut / "last.pth", tmp_path / "last.pth")
    with pytest.raises(UsageError, match="has 4 complete epochs") as caught:
        train(tiny_plan(tiny_data, tmp_path / "run", resume_from=str(tmp_path / "last.pth"), **SETTINGS))

    assert caught.value.exit_code == 2
    assert "--epochs" in caught.value.hint


def test_other_settings(uncut: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Training state of other parameters is refused with exit code 4, and the run folder keeps what it had."""
    folder = tmp_path / "run"
    shutil.copytree(uncut, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    settings = {**SETTINGS, "deep_supervision": False}
    with pytest.raises(CheckpointError, match="does not fit these settings") as caught:
        train(tiny_plan(tiny_data, folder, resume_from=str(folder / "last.pth"), **settings))

    assert caught.value.exit_code == 4
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_another_network(uncut: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A checkpoint of another network is refused before the run folder is made."""
    settings = {**SETTINGS, "num_experts": 2}
    with pytest.raises(CheckpointError, match="does not fit test_resnet with 2 experts"):
        train(tiny_plan(tiny_data, tmp_path / "run", resume_from=str(uncut / "last.pth"), **settings))

    assert not (tmp_path / "run").exists()


def watch(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, Any]]]:
    """The epoch number of each step (from 0) and the run's state before it."""
    seen: list[tuple[int, dict[str, Any]]] = []
    original = train_module.optimizer_step

    def watched(run: Run, rate: float, losses: Any, epoch: int) -> float | None:
        assert run.state.ema is not None
        assert run.state.optimizer is not None
        ema = {name: value.clone() for name, value in run.state.ema.network.state_dict().items()}
        parameters = {name: value.detach().clone() for name, value in run.state.network.named_parameters()}
        moments = len(run.state.optimizer.state)
        state = {"average": ema, "parameters": parameters, "updates": run.state.ema.updates, "moments": moments}
        seen.append((epoch, state))
        return original(run, rate, losses, epoch)

    monkeypatch.setattr(train_module, "optimizer_step", watched)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True])
def test_from_best_model(
    uncut: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    elsewhere: bool,
) -> None:
    """best_model.pth gives weights, EMA and epoch; what starts anew is said, and no worse epoch replaces it."""
    source, folder = tmp_path / "run", tmp_path / ("other" if elsewhere else "run")
    source.mkdir()
    content = read_checkpoint(uncut / "last.pth")
    content["epoch"], content["history"] = 3, content["history"][:3]
    content["scores"] = content["history"][-1]
    del content["training"]
    write_content(source / "best_model.pth", content)
    seen = watch(monkeypatch)
    monkeypatch.setattr(
        train_module, "validate", lambda run: Scores({"iou": content["scores"]["iou"] - 0.1, "dice": 0.0, "mae": 1.0})
    )
    train(tiny_plan(tiny_data, folder, resume_from=str(source / "best_model.pth"), **SETTINGS))
    said = capsys.readouterr().err
    first = seen[0][1]

    assert {epoch for epoch, _ in seen} == {3}
    assert f"Going on from {source / 'best_model.pth'}: 3 epochs are complete" in said
    assert "what is not in it starts anew: optimizer, gradient scale, position" in said
    assert differences(first["average"], content["ema"]) == []
    assert differences(first["parameters"], {name: content["network"][name] for name in first["parameters"]}) == []
    # Two steps in each of three epochs: an average that began its ramp anew would forget what it holds.
    assert (first["updates"], first["moments"]) == (6, 0)
    assert differences(read_checkpoint(folder / "best_model.pth"), content) == []
    assert [row["epoch"] for row in history(folder)] == [1, 2, 3, 4]
    assert json.loads((folder / "results.json").read_text(encoding="utf-8"))["epoch"] == 3


def test_from_the_original_program(
    uncut: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A checkpoint of the original program, which counts epochs from 0, goes on with the epoch after the one it names.

    Its average has parameters only, so BatchNorm's statistics are those of the network.
    """
    run = prepare(tiny_plan(tiny_data, tmp_path / "unused", **SETTINGS))[0]
    parameters = {name for name, _ in run.state.network.named_parameters()}
    content = read_checkpoint(uncut / "last.pth")
    original = {
        "epoch": 2,
        "model_state_dict": {f"module.{name}": value for name, value in content["network"].items()},
        "ema_state_dict": {name: value for name, value in content["ema"].items() if name in parameters},
        "args": {"backbone": "test_resnet", "num_experts": 3, "img_size": 64},
        "best_iou": np.float64(0.71),
    }
    torch.save(original, tmp_path / "original.pth")
    seen = watch(monkeypatch)
    folder = train(
        tiny_plan(tiny_data, tmp_path / "run", resume_from=str(tmp_path / "original.pth"), **SETTINGS)
    ).folder
    said = capsys.readouterr().err
    first = seen[0][1]

    assert {epoch for epoch, _ in seen} == {3}
    assert f"Going on from {tmp_path / 'original.pth'}: 3 epochs are complete" in said
    assert "what is not in it starts anew: optimizer, gradient scale, position" in said
    expected = {name: content["ema" if name in parameters else "network"][name] for name in content["ema"]}
    assert differences(first["average"], expected) == []
    assert differences(first["parameters"], {name: content["network"][name] for name in parameters}) == []
    assert [row["epoch"] for row in history(folder.path)] == [4]
    assert read_checkpoint(folder.best)["epoch"] == 4


@pytest.mark.slow
def test_skip_stage1_from_weights(uncut: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Weights of an early epoch, resumed without stage 1, begin with stage 2's first epoch."""
    content = read_checkpoint(uncut / "last.pth")
    del content["training"]
    write_content(tmp_path / "weights.pth", {**content, "epoch": 1, "scores": None})
    settings = {**SETTINGS, "skip_stage1": True, "resume_from": str(tmp_path / "weights.pth")}
    folder: RunFolder = train(tiny_plan(tiny_data, tmp_path / "run", **settings)).folder

    assert [(row["epoch"], row["stage"]) for row in history(folder.path)] == [(3, 2), (4, 2)]


def test_scores_belong_to_the_weights(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint from the middle of an epoch has no scores: those of the epoch before are of other weights."""
    cut_after(monkeypatch, 3)
    with pytest.raises(Cut):
        train(tiny_plan(tiny_data, tmp_path / "run", save_every="1"))

    assert read_checkpoint(tmp_path / "run" / "last.pth")["scores"] is None
    assert read_checkpoint(tmp_path / "run" / "best_model.pth")["scores"] == history(tmp_path / "run")[0]
