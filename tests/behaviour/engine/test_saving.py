"""What a run keeps of itself, and what it does where the disk is full."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import pytest

from camoxpert_cli.checkpoints.format import (
    CheckpointContent,
    CheckpointNotWritten,
    checkpoint_bytes,
    read_checkpoint,
)
from camoxpert_cli.checkpoints.newest import find_checkpoint
from camoxpert_cli.commands.training_outcome import print_outcome
from camoxpert_cli.config.parse import Interval
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.step import LossValues
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.engine.train import carry_out, close_epoch, end_early, train_epoch
from camoxpert_cli.engine.writing import Best
from camoxpert_cli.errors import Interrupted, TrainingError
from camoxpert_cli.launch.resume import settings_to_go_on
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.run_files import read_json
from tests.helpers.steered_runs import Disk, make_idle, run_in_hand, update
from tests.helpers.tiny_data import tiny_plan

SETTINGS: dict[str, Any] = {"epochs": 4, "stage1_epochs": 4, "num_experts": 1}


def close_epochs(run: Run, *ious: float) -> None:
    """As if so many epochs had been trained and scored so."""
    for iou in ious:
        close_epoch(run, run.phases[0], Scores({"iou": iou, "dice": 0.0, "mae": 1.0}))
        run.saver.wait()


def test_full_for_a_while(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training goes on where the disk is full, and the next save that succeeds has everything."""
    run = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    disk = run.saver.write = Disk(lambda name, count: name == "last.pth" and count in (1, 2))
    close_epochs(run, 0.1, 0.1)
    unsaved, current = run.saver.unsaved, run.saver.is_up_to_date
    close_epochs(run, 0.1)
    said = capsys.readouterr().err
    last = [content for name, content in disk.written if name == "last.pth"]

    assert said.count("No space left on device; training continues, and the next save tries again") == 2
    assert unsaved is not None
    assert not current
    assert [content.epoch for content in last] == [3]
    assert run.saver.unsaved is None
    assert run.saver.is_up_to_date
    assert len(read_json(run.folder.history)) == 3


def test_full_to_the_end(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the last save fails, results are written, last.pth is the last that was, and the end is an error."""
    plan = tiny_plan(tiny_data, tmp_path / "run", **{**SETTINGS, "epochs": 2, "stage1_epochs": 2})
    run, _ = prepare(plan)
    make_idle(run)
    run.saver.write = Disk(lambda name, count: name == "last.pth" and count > 1, keeps=True)
    outcome = carry_out(run, plan, None)
    with pytest.raises(CheckpointNotWritten, match="No space left on device") as caught:
        print_outcome(outcome)

    assert caught.value.exit_code == 4
    assert "test TINY" in capsys.readouterr().out  # the scores are told all the same
    assert Outcome.from_mapping(json.loads(json.dumps(outcome.to_mapping()))).unsaved == outcome.unsaved
    assert run.folder.results.exists()
    assert read_checkpoint(run.folder.last)["epoch"] == 1


def test_best_weights_that_cannot_be_written(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An epoch whose weights could not be kept is not called the best: the file and the summary agree."""
    run = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    disk = run.saver.write = Disk(lambda name, count: name == "best_model.pth" and count == 2)
    close_epochs(run, 0.1, 0.3, 0.2, 0.2)
    best = [content for name, content in disk.written if name == "best_model.pth"][-1]

    assert "training continues, and the previous best weights are kept" in capsys.readouterr().err
    assert best.scores is not None
    assert (best.epoch, best.scores["iou"]) == (3, 0.2)
    assert run.state.progress.best_epoch == 3


def test_no_weights_at_all(tiny_data: Path, tmp_path: Path) -> None:
    """A run none of whose weights could be kept ends with that, not in the middle of its summary."""
    plan = tiny_plan(tiny_data, tmp_path / "run", **{**SETTINGS, "epochs": 1, "stage1_epochs": 1})
    run, _ = prepare(plan)
    make_idle(run)
    run.saver.write = Disk(lambda name, count: True)
    with pytest.raises(TrainingError, match="no weights could be saved") as caught:
        carry_out(run, plan, None)

    assert caught.value.exit_code == 6


def test_too_little_space_is_told_before_training(
    plain_run: RunFolder, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that cannot hold three checkpoints is refused before the first step."""
    asked: list[int] = []

    def refuse(self: RunFolder, size: int) -> None:
        asked.append(size)
        raise TrainingError("too little")

    monkeypatch.setattr(RunFolder, "require_space", refuse)
    with pytest.raises(TrainingError, match="too little"):
        prepare(tiny_plan(tiny_data, tmp_path / "run"))

    # The estimate leaves out what is small: names, settings, history.
    assert plain_run.last.stat().st_size == pytest.approx(asked[0] / 3, rel=0.1)


def test_scores_belong_to_the_weights(tiny_data: Path, tmp_path: Path) -> None:
    """A checkpoint from the middle of an epoch has no scores: those of the epoch before are of other weights."""
    run = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    disk = run.saver.write = Disk()
    close_epochs(run, 0.5)
    run.state.progress.samples = 4
    run.saver.save_last()
    scores = [(name, content.scores) for name, content in disk.written]

    row = read_json(run.folder.history)[0]
    assert scores == [("best_model.pth", row), ("last.pth", row), ("last.pth", None)]


def test_a_stop_within_an_epoch_is_saved_once(tiny_data: Path, tmp_path: Path) -> None:
    """The last.pth from the end of the epoch before lacks what came since; one of this moment is enough."""
    run = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    disk = run.saver.write = Disk()
    close_epochs(run, 0.5)
    run.state.progress.samples = 4
    for _ in range(2):
        end_early(run, Stop("stopped by the time limit of 1h", 0))
    places = [content.training.progress.samples for _, content in disk.written if content.training is not None]

    assert places == [0, 4]


def test_room_is_made_on_a_full_disk_only(tiny_data: Path, tmp_path: Path) -> None:
    """Where something else than space is missing, previous.pth stays: it may be all that is whole."""
    run = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    run.saver.write = Disk(lambda name, count: True)
    run.folder.last.touch()
    run.folder.previous.touch()
    run.saver.save_last()

    assert run.saver.unsaved is not None
    assert run.folder.previous.exists()


def test_how_often_it_saves(tiny_data: Path, tmp_path: Path) -> None:
    """Within an epoch after every so many steps of it, or seconds, as the settings say."""
    run = run_in_hand(tiny_data, tmp_path / "run", batch_size=2, accumulation_steps=2, **SETTINGS)
    run.data.train[:] = (run.data.train * 2)[:12]
    make_idle(run)
    positions: list[int] = []

    def write(path: Path, content: CheckpointContent, keep_as: Path | None) -> None:
        assert content.training is not None
        positions.append(content.training.progress.samples)

    run.saver.write = write
    found = []
    for save_every in (Interval(steps=1), Interval(steps=2), Interval(seconds=60), Interval(seconds=0), None):
        run.save_every = save_every
        run.state.progress.samples = 0
        positions.clear()
        train_epoch(run, run.phases[0], 0)
        run.saver.wait()
        found.append([*positions])

    assert found == [[4, 8, 12], [8], [], [4, 8, 12], []]


def test_the_file_before_is_kept(tiny_data: Path, tmp_path: Path) -> None:
    """The first save of a session keeps nothing: that file may be damaged. Each later one keeps what it replaces."""
    run = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    kept: list[Path | None] = []
    run.saver.write = lambda path, content, keep_as: kept.append(keep_as)
    for _ in range(2):
        run.saver.save_last()
    run.saver.save_behind(Best(-1.0, 0))
    run.saver.wait()

    assert kept == [None, run.folder.previous, None, run.folder.previous]


def test_reserve_knows_how_long_saving_takes(tiny_data: Path, tmp_path: Path) -> None:
    """What the clock keeps for the end is what saves took, no longer an estimate."""
    run = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    run.saver.write = Disk()
    estimated = run.clock.reserve.to_save
    run.saver.save_last()

    size = checkpoint_bytes(run.state.network, True)
    assert estimated == pytest.approx(1.2 * 2 * size / 50e6)
    assert run.clock.reserve.saving > 0
    assert run.clock.reserve.to_save == 1.2 * 2 * run.clock.reserve.saving


@pytest.mark.parametrize("what", ["moved", "removed"])
def test_a_run_folder_that_goes(tiny_data: Path, tmp_path: Path, what: str) -> None:
    """The run ends in one sentence, and what can go on is where the folder was."""
    run = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    close_epochs(run, 0.5)
    if what == "moved":
        run.folder.path.rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(run.folder.path)
    with pytest.raises(TrainingError, match="no longer exists: it was moved or deleted; the current state") as caught:
        close_epochs(run, 0.4)

    assert run.folder.resume_command in caught.value.hint
    assert read_checkpoint(run.folder.last)["epoch"] == 2
    assert settings_to_go_on(find_checkpoint(run.folder.path), {}, []).config.run.checkpoint_dir == str(run.folder.path)
    if what == "moved":
        assert read_checkpoint(tmp_path / "elsewhere" / "last.pth")["epoch"] == 1


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_disk_that_does_not_answer_for_a_while(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The folder is there, and nobody can look: training goes on, as where the disk is full."""
    run = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    run.saver.write = Disk(lambda name, count: count == 1)
    stat = Path.stat

    def fail(self: Path, **arguments: Any) -> Any:
        if self == run.folder.path:
            raise OSError(number, os.strerror(number))
        return stat(self, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", fail)
        run.saver.save_last()
    assert run.saver.unsaved is not None
    run.saver.save_last()
    assert run.saver.unsaved is None


@pytest.mark.parametrize("kind", ["unmounted", "full"])
def test_a_run_folder_that_goes_with_its_disk(tiny_data: Path, tmp_path: Path, kind: str) -> None:
    """No folder is made above it, for that would be on another disk; nothing is promised that was not saved."""
    run = run_in_hand(tiny_data, tmp_path / "disk" / "run", **SETTINGS)
    shutil.rmtree(tmp_path / "disk" if kind == "unmounted" else run.folder.path)
    if kind == "full":
        run.saver.write = Disk(lambda name, count: True)
    with pytest.raises(TrainingError, match="and nothing can be saved there") as caught:
        close_epochs(run, 0.5)

    assert str(run.folder.path) not in caught.value.hint
    assert (tmp_path / "disk").exists() == (kind == "full")


@pytest.mark.parametrize("is_saved", [False, True])
def test_what_can_go_on_is_named_where_there_is_something(tiny_data: Path, tmp_path: Path, is_saved: bool) -> None:
    """An end without a save names no command that would go on."""
    plan = tiny_plan(tiny_data, tmp_path / "run", **SETTINGS)
    run, _ = prepare(plan)
    enter_phase(run, run.phases[0])
    if is_saved:
        run.saver.save_last()

    def end(*arguments: object) -> NoReturn:
        raise KeyboardInterrupt

    run.clock.stop_before_step = end  # type: ignore[method-assign]
    with pytest.raises(Interrupted) as caught:
        carry_out(run, plan, None)

    assert caught.value.hint == (run.folder.resume_command if is_saved else "")
    outcome = Outcome(run.folder, run.config, 0, 0, 0.0, False, stop=Stop("stopped by this test", 0))
    with redirect_stdout(io.StringIO()) as printed:
        print_outcome(outcome, as_json=True)
        print_outcome(outcome)
    assert (run.folder.resume_command in printed.getvalue()) == is_saved
    assert json.loads(printed.getvalue().partition("Resume with")[0])["next"] == (caught.value.hint or None)


@pytest.mark.parametrize("is_saved", [False, True])
def test_a_loss_that_is_no_number(tiny_data: Path, tmp_path: Path, is_saved: bool) -> None:
    run = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    if is_saved:
        run.saver.save_last()
    with pytest.raises(TrainingError, match="the loss became nan") as caught:
        update(run, 0.1, LossValues(*[float("nan")] * len(LossValues._fields)), 0)

    in_fp32, _, slower = caught.value.hint.partition("; or lower the learning rate, for example ")
    if is_saved:
        command, _, assignment = in_fp32.partition(" --set ")
        assert command == run.folder.resume_command
        given = resolve(None, {}, [assignment, slower.removeprefix("--set ")]).config.train
    else:
        assert in_fp32 == "start again with --precision fp32"
        assert slower == "--lr 0.0005"
        given = resolve(None, {"train.precision": "fp32", "train.lr": "0.0005"}).config.train
    assert (given.precision, given.lr) == ("fp32", run.config.train.lr / 2)
