"""Measure how fast a run trains, validates, saves and ends, by doing a little of each with its own images."""

from __future__ import annotations

import itertools
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.engine.closing import close_run
from camoxpert_cli.engine.fit import Pace
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.saving import Saver
from camoxpert_cli.engine.stages import Kind, Phase
from camoxpert_cli.engine.state import set_trained
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.engine.training_steps import TrainedStep, training_steps
from camoxpert_cli.engine.validation import validate
from camoxpert_cli.engine.writing import Best
from camoxpert_cli.errors import TrainingError
from camoxpert_cli.evaluation.score import Scoring
from camoxpert_cli.evaluation.test_sets import scoring_workers
from camoxpert_cli.metrics.image_scores import Scores, score_image
from camoxpert_cli.run_folder import RunFolder

# Steps of a phase that do not count, because kernels are chosen and memory is allocated, and that count at least.
_WARM_UP, _LEAST_STEPS = 2, 2
# A set of at most so many images is scored as a whole, a larger one in part.
_ALL, _FEW = 64, 16
# The speed of scoring a larger set is measured over this many rounds of batches, after one that does not count.
_ROUNDS = 2
_FOLDER = ".camox-fit-"  # and a random ending


def measure(run: Run, phases: Sequence[Phase], seconds: float) -> Pace | Stop:
    """Measure the pace of a run in `phases`, `seconds` each, and return it, or why the run was stopped meanwhile.

    It trains at its lowest learning rate, which costs the same and cannot diverge. What it learns and writes, to a
    hidden folder that is removed, is of no use: the run itself has to be `renewed`. Time limits are ignored. Every rank
    must call this; the measurements of rank 0 count.
    """
    run.clock.stopping.deadline = Deadline()
    train = run.config.train
    run.config = replace(run.config, train=replace(train, lr=train.min_lr, stage2_lr=train.min_lr))
    per_image: dict[Kind, float] = {}
    for phase in phases:
        measured = _measure_training(run, phase, seconds)
        if isinstance(measured, Stop):
            return measured
        per_image[phase.kind] = measured
    started = run.clock.now()
    scores = validate(run)
    if isinstance(scores, Stop):
        return scores
    validation = run.clock.now() - started
    with _in_hidden_folder(run):
        pause, saving = _measure_saving(run, scores)
        closing = _measure_closing(run)
    if isinstance(closing, Stop):
        return closing
    # The save of the last epoch has to be complete before its weights are scored.
    return run.world.broadcast(Pace(per_image, validation + pause, saving - pause + closing))


def _measure_training(run: Run, phase: Phase, seconds: float) -> float | Stop:
    """Seconds per image in a phase, measured for that many seconds."""
    set_trained(run.state, run.strategy, run.config, phase.backbone_stages)
    run.phase = phase
    run.state.network.train()
    started = stepped = run.clock.now()
    images = 0
    for number, step in enumerate(_steps(run, phase)):
        if (stop := run.clock.stop_before_step()) is not None:
            return stop
        now, before = run.clock.now(), stepped
        stepped = now
        if number < _WARM_UP:
            started = now
            continue
        run.clock.reserve.note_step(now - before, step.images)
        images += step.images
        passed = now - started
        if run.world.broadcast(number + 1 >= _WARM_UP + _LEAST_STEPS and passed >= seconds):
            break
    return passed / images


def _steps(run: Run, phase: Phase) -> Iterator[TrainedStep]:
    """Optimizer steps of a phase, in as many epochs as are wanted."""
    for epoch in itertools.count(phase.first):
        run.state.progress.samples = 0
        batches, sizes = run.feed.training(phase.stage, epoch, 0)
        yield from training_steps(run, phase.stage, epoch, zip(sizes, batches, strict=True))


@contextmanager
def _in_hidden_folder(run: Run) -> Iterator[None]:
    """Let the run write to a folder within its own; one that a killed process has left is removed as well."""
    own = run.folder
    if own.writes:
        for left in own.path.glob(f"{_FOLDER}*"):
            shutil.rmtree(left, ignore_errors=True)
    hidden = own.path / f"{_FOLDER}{secrets.token_hex(6)}"
    run.folder = RunFolder(run.world.broadcast(hidden), writes=own.writes)
    try:
        run.folder.create()
        yield
    finally:
        if own.writes:
            shutil.rmtree(run.folder.path, ignore_errors=True)
        run.folder = own


def _measure_saving(run: Run, scores: Scores) -> tuple[float, float]:
    """Seconds to save both checkpoints of an epoch with these scores: those for which training waits, and all."""
    progress, write = run.state.progress, run.saver.write
    run.saver = Saver(
        run.folder, run.config, run.data, run.state, run.world, run.clock.reserve, run.device, run.dtype, run.clock.now
    )
    run.saver.write = write
    progress.epoch, progress.samples, progress.best_epoch = 1, 0, 1
    progress.history = [{"epoch": 1, "stage": 1, "train_loss": 0.0, **scores.measures, "lr": 0.0, "seconds": 0.0}]
    started = run.clock.now()
    with run.saver.finishing():
        run.saver.save_behind(Best(-1.0, 0))
        pause = run.clock.now() - started
    run.saver.settle()
    if not run.world.broadcast(progress.best_epoch == 1 and run.saver.unsaved is None):
        raise TrainingError(f"no checkpoint can be saved in {run.folder.path.parent}", "free some space")
    return pause, run.clock.now() - started


def _measure_closing(run: Run) -> float | Stop:
    """Seconds for the end of the run: measured with a part of large sets, and for the rest by their speed."""
    if run.config.run.report:
        # The first import takes a second, and is not repeated at the end.
        import camoxpert_cli.evaluation.report
        import camoxpert_cli.report.curves  # noqa: F401
    data, feed, rest = run.data, run.feed, 0.0
    for pairs in (data.validation, *data.tests.values()):
        if len(pairs) > len(_part(run, pairs)):
            speed = _measure_scoring(run, pairs)
            if isinstance(speed, Stop):
                return speed
            rest += speed * (len(pairs) - len(_part(run, pairs)))
    few = data
    if rest:
        tests = {name: tuple(_part(run, pairs)) for name, pairs in data.tests.items()}
        few = replace(data, validation=list(_part(run, data.validation)), tests=tests)
    _ = few.baselines  # computed once
    run.data, run.feed = few, feed.of(few)
    started = run.clock.now()
    results = close_run(run)
    passed = run.clock.now() - started
    run.data, run.feed = data, feed
    return results if isinstance(results, Stop) else passed + rest


def _measure_scoring(run: Run, pairs: Sequence[Pair]) -> float | Stop:
    """Seconds per image to compute all metrics, over all ranks, once loaders and kernels are warm."""
    pairs = pairs[: (1 + _ROUNDS) * _per_round(run)]
    scoring = Scoring(
        run.state.scored_network.eval(),
        run.feed.test(pairs),
        run.device,
        run.dtype,
        run.world,
        job=lambda _: score_image,
        workers=scoring_workers(run.world),
    )
    started: list[float] = []
    stop = run.clock.score(scoring, lambda *_: started.append(run.clock.now()))
    return stop or (run.clock.now() - started[0]) / (len(pairs) - _per_round(run))


def _part(run: Run, pairs: Sequence[Pair]) -> Sequence[Pair]:
    """The images of a set that are scored: all of them unless there is more than one round of others."""
    return pairs if len(pairs) <= max(_ALL, _ROUNDS * _per_round(run)) else pairs[:_FEW]


def _per_round(run: Run) -> int:
    """Images that all ranks together score at a time."""
    return run.config.train.batch_size * run.world.size
