"""Saves that are written while training continues: what is in them, and how a run ends with one in flight."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.checkpoints.format import CheckpointContent, CheckpointNotWritten, read_checkpoint, write_checkpoint
from camoxpert_cli.engine import saving
from camoxpert_cli.engine.run import Run, prepare
from camoxpert_cli.engine.state_copy import NoMemoryForCopy, on_host
from camoxpert_cli.engine.step import LossValues
from camoxpert_cli.engine.train import carry_out, close_epoch, train_epoch
from camoxpert_cli.engine.writing import Best
from camoxpert_cli.errors import Interrupted, TrainingError
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.parallel.world import World
from tests.helpers.compare import differences
from tests.helpers.steered_runs import Disk, make_idle, run_in_hand, update
from tests.helpers.thread_ranks import in_threads
from tests.helpers.tiny_data import tiny_plan

SETTINGS: dict[str, Any] = {"epochs": 4, "stage1_epochs": 4, "num_experts": 2, "save_every": None}
TIMEOUT = 60


class SlowDisk(Disk):
    """A disk on which a write takes until it is `released`, or `on_start` is over."""

    def __init__(self, on_start: Callable[[], object] = lambda: None, **options: Any) -> None:
        super().__init__(**options)
        self.started, self.released = threading.Event(), threading.Event()
        self.events: list[str] = []
        self._on_start = on_start

    def __call__(self, path: Path, content: CheckpointContent, keep_as: Path | None) -> None:
        self.events.append(f"begin {path.name}")
        self.started.set()
        self._on_start()
        assert self.released.wait(TIMEOUT)
        super().__call__(path, content, keep_as)
        self.events.append(f"end {path.name}")

    def release_in(self, seconds: float) -> None:
        threading.Timer(seconds, self.released.set).start()


def is_writing() -> bool:
    """Whether a thread of a saver lives; other tests may have left threads of other kinds."""
    return any(thread.name == "camox-background" for thread in threading.enumerate())


@pytest.fixture
def run(tiny_data: Path, tmp_path: Path) -> Iterator[Run]:
    made = run_in_hand(tiny_data, tmp_path / "run", **SETTINGS)
    yield made
    assert not is_writing(), "a save is still being written"


def close(run: Run, *ious: float) -> None:
    for iou in ious:
        close_epoch(run, run.phases[0], Scores({"iou": iou, "dice": 0.0, "mae": 1.0}))


def test_training_continues_beside_it(run: Run) -> None:
    """Steps are made while a save is written, and what is written is the state of its moment, to the last bit."""
    train_epoch(run, run.phases[0], 0)
    disk = run.saver.write = SlowDisk()
    run.state.progress.samples = 0
    run.saver.save_behind()
    expected = on_host(run.saver._save(None).content)
    train_epoch(run, run.phases[0], 0)
    is_written = bool(disk.written)
    disk.released.set()
    run.saver.wait()
    ((_, saved),) = disk.written

    assert not is_written
    assert differences(saved.to_dict(), expected.to_dict()) == []
    assert differences(expected.network, run.state.network.state_dict()) != []
    assert saved.training is not None
    assert saved.training.optimizer["state"]


def test_two_at_once(run: Run) -> None:
    """A second save waits until the first is written; each has the state of its own moment."""
    disk = run.saver.write = SlowDisk()
    run.saver.save_behind()
    run.state.progress.samples = 4
    disk.release_in(0.1)
    run.saver.save_behind()
    run.saver.wait()
    places = [content.training.progress.samples for _, content in disk.written if content.training is not None]

    assert disk.events == ["begin last.pth", "end last.pth"] * 2
    assert places == [0, 4]


def test_best_weights_that_cannot_be_written(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """No last.pth calls an epoch the best whose weights could not be kept, and later ones compare with the former."""
    disk = run.saver.write = Disk(lambda name, count: name == "best_model.pth" and count == 2)
    close(run, 0.1, 0.3, 0.2, 0.2)
    run.saver.settle()
    best = [
        (content.training.progress.best_epoch, content.training.progress.best_iou)
        for _, content in disk.written
        if content.training is not None
    ]

    assert best == [(1, 0.1), (1, 0.1), (3, 0.2), (3, 0.2)]
    assert [content.epoch for name, content in disk.written if name == "best_model.pth"] == [1, 3]
    assert capsys.readouterr().err.count("the previous best weights are kept") == 1


def test_ranks_agree_on_the_best(tiny_data: Path, tmp_path: Path) -> None:
    """The rank that writes tells the others that the best weights could not be written."""

    runs = [run_in_hand(tiny_data, tmp_path / f"run{rank}", **SETTINGS) for rank in range(2)]

    def work(world: World) -> tuple[float, int]:
        run = runs[world.rank]
        run.world = run.saver._world = world
        run.saver.write = Disk(lambda name, count: name == "best_model.pth" and count == 2)
        close(run, 0.1, 0.3)
        run.saver.settle()
        return run.state.progress.best_iou, run.state.progress.best_epoch

    assert in_threads(2, work) == [(0.1, 1), (0.1, 1)]


def test_the_outcome_is_told_after_the_next_step(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Who could free some space hears of a full disk while there is time, not only at the next save."""
    make_idle(run)
    run.saver.write = Disk(lambda name, count: name == "last.pth")
    run.saver.save_behind()
    deadline = time.monotonic() + TIMEOUT
    while is_writing() and time.monotonic() < deadline:
        time.sleep(0.01)
    before = capsys.readouterr().err
    train_epoch(run, run.phases[0], 0)

    assert before == ""
    assert "training continues, and the next save tries again" in capsys.readouterr().err
    assert run.saver.unsaved is not None


def test_an_error_of_ours_ends_the_run(tiny_data: Path, tmp_path: Path) -> None:
    """An error that no disk can have is raised in the run, with the traceback of the thread that wrote."""
    plan = tiny_plan(tiny_data, tmp_path / "run", **SETTINGS)
    run, _ = prepare(plan)
    make_idle(run)

    def write_badly(path: Path, content: CheckpointContent, keep_as: Path | None) -> None:
        raise ZeroDivisionError("ours")

    run.saver.write = write_badly
    with pytest.raises(ZeroDivisionError, match="ours") as caught:
        carry_out(run, plan, None)

    assert "write_badly" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert run.state.progress.epoch == 1  # it had begun the next


def test_an_error_waits_for_the_save(tiny_data: Path, tmp_path: Path) -> None:
    """A run that fails beside a save ends once that is written: whoever resumes it finds the newest state whole."""
    plan = tiny_plan(tiny_data, tmp_path / "run", **SETTINGS)
    run, _ = prepare(plan)
    make_idle(run)
    disk = run.saver.write = SlowDisk(keeps=True)

    def fail() -> None:
        if run.state.progress.epoch:
            disk.release_in(0.1)
            raise TrainingError("beside the save")

    run.world.__dict__["require_all"] = fail
    with pytest.raises(TrainingError, match="beside the save"):
        carry_out(run, plan, None)

    assert read_checkpoint(run.folder.last)["epoch"] == 1
    assert disk.events[-1] == "end last.pth"


def test_a_second_signal_ends_it(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped immediately, a run leaves its save: the file before is whole, and nothing half-written is left."""
    plan = tiny_plan(tiny_data, tmp_path / "run", **SETTINGS)
    run, _ = prepare(plan)
    make_idle(run)
    halves: list[Path] = []

    def write_forever(path: Path, content: CheckpointContent, keep_as: Path | None) -> None:
        with monkeypatch.context() as patch:
            if content.epoch == 2:
                patch.setattr(torch, "save", save_forever)
            write_checkpoint(path, content, keep_as)

    def save_forever(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        halves.append(path)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.001)

    def insist() -> None:
        if halves:
            raise KeyboardInterrupt

    run.saver.write = write_forever
    stop_before_step = run.clock.stop_before_step

    def stop_soon() -> Any:
        while run.state.progress.epoch == 2 and not halves:
            time.sleep(0.001)
        insist()
        return stop_before_step()

    run.clock.stop_before_step = stop_soon  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="stopped immediately"):
        carry_out(run, plan, None)

    assert len(halves) == 1
    assert not halves[0].exists()
    assert not is_writing()
    assert read_checkpoint(run.folder.last)["epoch"] == 1
    assert list(run.folder.path.glob(".*")) == []
    assert capsys.readouterr().err.count("Exception") == 0


def test_the_copy_is_freed(run: Run) -> None:
    """Once it is written, memory holds no second state, even before anybody asks how it went."""
    copies: list[weakref.ref[torch.Tensor]] = []

    def write(path: Path, content: CheckpointContent, keep_as: Path | None) -> None:
        copies.extend(weakref.ref(tensor) for tensor in content.network.values())

    run.saver.write = write
    run.saver.save_behind()
    deadline = time.monotonic() + TIMEOUT
    while is_writing() and time.monotonic() < deadline:
        time.sleep(0.01)
    gc.collect()

    assert copies
    assert [each() for each in copies if each() is not None] == []
    run.saver.wait()


def test_no_memory_for_a_copy(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Then training waits for the save, which is told once, and nothing is lost."""
    threads: list[threading.Thread] = []
    disk = Disk()

    def write(path: Path, content: CheckpointContent, keep_as: Path | None) -> None:
        threads.append(threading.current_thread())
        disk(path, content, keep_as)

    def fail(content: CheckpointContent) -> CheckpointContent:
        raise NoMemoryForCopy

    monkeypatch.setattr(saving, "on_host", fail)
    run.saver.write = write
    for _ in range(2):
        run.saver.save_behind(Best(-1.0, 0))

    assert [name for name, _ in disk.written] == ["best_model.pth", "last.pth"] * 2
    assert set(threads) == {threading.main_thread()}
    assert run.saver.is_up_to_date
    assert capsys.readouterr().err.count("training waits while it is saved") == 1


def test_too_large_to_copy(run: Run) -> None:
    """What torch's allocator refuses is recognized; no other error is taken for it."""
    content = run.saver._save(None).content
    content.network["huge"] = torch.zeros(1).expand(2**50)
    with pytest.raises(NoMemoryForCopy):
        on_host(content)
    content.network["huge"] = torch.zeros(1, device="meta")
    with pytest.raises(NotImplementedError):
        on_host(content)


def test_time_is_reserved_for_it(run: Run) -> None:
    """What is being written has to be ready before the last save can be: so long the run has to stop earlier."""
    disk = run.saver.write = SlowDisk()
    reserve = run.clock.reserve
    estimated = reserve.estimated_saving
    run.saver.save_behind(Best(-1.0, 0))
    beside = reserve.to_save
    disk.released.set()
    run.saver.wait()

    assert beside == pytest.approx(1.2 * 4 * estimated)
    assert reserve.pause > 0
    assert reserve.to_save == pytest.approx(1.2 * 2 * reserve.saving)


def test_a_fork_waits_for_it(run: Run) -> None:
    """A loader worker that starts meanwhile does not keep a file open whose space may be needed."""
    disk = run.saver.write = SlowDisk()
    run.saver.save_behind()
    disk.release_in(0.1)
    worker = multiprocessing.get_context("fork").Process(target=int)
    worker.start()
    events = [*disk.events]
    worker.join()
    run.saver.wait()

    assert events == ["begin last.pth", "end last.pth"]


def test_a_fork_waits_no_longer_than_the_user(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the wait of a fork, without a traceback that nobody could catch."""
    disk = run.saver.write = SlowDisk()
    run.saver.save_behind()
    worker = multiprocessing.get_context("fork").Process(target=int)

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        worker.start()
    worker.join()
    events = [*disk.events]
    disk.released.set()
    run.saver.wait()

    assert events in ([], ["begin last.pth"])
    assert disk.events == ["begin last.pth", "end last.pth"]


def test_a_position_that_is_being_written_is_saved_once(run: Run) -> None:
    """A stop while the last save is written waits for it and needs no other; one that failed is repeated."""
    disk = run.saver.write = SlowDisk(is_full=lambda name, count: count == 2)
    disk.released.set()
    run.saver.save_behind()
    run.saver.ensure_saved()
    once = len(disk.events)
    run.state.progress.samples = 4
    run.saver.save_behind()
    run.saver.ensure_saved()

    assert once == 2
    assert disk.events[2:] == ["begin last.pth", "begin last.pth", "end last.pth"]
    assert isinstance(run.saver.unsaved, CheckpointNotWritten | None)
    assert run.saver.is_up_to_date


def test_a_loss_that_is_no_number_beside_it(run: Run) -> None:
    """The error names the command that resumes from the save that is being written."""
    disk = run.saver.write = SlowDisk(keeps=True)
    run.saver.save_behind()
    disk.release_in(0.1)
    with pytest.raises(TrainingError, match="the last good weights are in") as caught:
        update(run, 0.1, LossValues(*[float("nan")] * len(LossValues._fields)), 0)

    assert run.folder.resume_command in caught.value.hint
