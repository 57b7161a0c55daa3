"""The end of a run: score the best weights on the test sets and write the results."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from camoxpert_cli import atomic, console
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import network_of
from camoxpert_cli.config.parse import NO_TTA
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.errors import DataError
from camoxpert_cli.evaluation.output import per_image_csv
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet
from camoxpert_cli.evaluation.score import Scoring
from camoxpert_cli.evaluation.test_sets import scoring_workers, show_image
from camoxpert_cli.metrics.image_scores import score_image
from camoxpert_cli.model.camoxpert import CamoXpert

VALIDATION = "validation"


def close_run(run: Run) -> dict[str, Any] | Stop:
    """Score the best weights by every metric and write the results; return them, or why scoring stopped early."""
    evaluation = score_best(run)
    if isinstance(evaluation, Stop):
        return evaluation
    progress = run.state.progress
    scored = {each.name: each.to_json() for each in evaluation.sets}
    results: dict[str, Any] = {
        **evaluation.about,
        "validation": scored.pop(VALIDATION),
        "tests": scored,
        "baselines": run.data.baselines,
        "epochs": progress.epoch,
        "early_stop": run.early_stop,
        "seconds": round(progress.seconds, 1),
        "target_iou": run.config.run.target_iou,
        "seconds_to_target": progress.target_seconds,
    }
    if run.world.is_main:
        write_pages(run, evaluation)
    run.reporter.summarize(results)
    run.folder.write_results(results)  # last: with them, the run is complete
    return results


def score_best(run: Run) -> Evaluation | Stop:
    """Score `best_model.pth` on the held-out images and on each test set, with its EMA weights if it has any.

    A test set with a broken image is skipped with a warning: hours of training must not end without results.
    """
    best = run.folder.best
    content = run.world.broadcast(read_checkpoint(best) if run.world.is_main else {})
    network = network_of(content, best).to(run.device)
    pairs: dict[str, Sequence[Pair]] = {VALIDATION: run.data.validation, **run.data.tests}
    sets = []
    for name in pairs:
        try:
            scored = _score(run, network, name, pairs[name])
        except DataError as error:
            if name == VALIDATION:
                raise
            console.warn(f"test set {name} was skipped: {error.message}")
            continue
        if isinstance(scored, Stop):
            return scored
        sets.append(scored)
    epoch = run.state.progress.best_epoch
    about = {"checkpoint": best.name, "epoch": epoch}
    show = partial(show_image, network, pairs, run.config.data.scored_size, run.device, run.dtype, NO_TTA)
    which = f"epoch {epoch}" if epoch else "the weights it started with"
    return Evaluation(f"{run.folder.path.name}, {which}", about, sets, show)


def _score(run: Run, network: CamoXpert, name: str, pairs: Sequence[Pair]) -> ScoredSet | Stop:
    scoring = Scoring(
        network,
        run.feed.validation if name == VALIDATION else run.feed.test(pairs),
        run.device,
        run.dtype,
        run.world,
        job=lambda _: score_image,
        workers=scoring_workers(run.world),
    )
    with console.progress(f"Scoring {name}", len(pairs)) as advance:
        stop = run.clock.score(scoring, advance)
    if stop is not None:
        return stop
    return ScoredSet(name, [pair.name for pair in pairs], scoring.scores)


def write_pages(run: Run, evaluation: Evaluation) -> None:
    """Write per_image.csv and, on request, report.html and curves.png. A full disk loses these files, not the run."""
    folder, history = run.folder, run.state.progress.history
    try:
        atomic.write_text(folder.per_image, per_image_csv(evaluation.sets))
        if run.config.run.report:
            # Importing the plotting code takes a second.
            from camoxpert_cli.evaluation.report import MEASURE_WORDS, write_evaluation_report
            from camoxpert_cli.report.curves import write_training_curves

            write_evaluation_report(folder.report, evaluation, configuration=to_mapping(run.config), history=history)
            write_training_curves(folder.curves, history, MEASURE_WORDS)
    except OSError as error:
        console.warn(f"{error.filename} cannot be written: {error.strerror}; the scores are in {folder.results}")
