"""The end of a run: the best weights are scored on the test sets, and the user reads what came out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

from camoxpert_cli import atomic, console
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import network_of
from camoxpert_cli.config.parse import NO_TTA, format_duration
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_pair
from camoxpert_cli.engine.run import Run
from camoxpert_cli.errors import DataError
from camoxpert_cli.evaluation.output import per_image_csv
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet
from camoxpert_cli.evaluation.score import score_pictures
from camoxpert_cli.evaluation.test_sets import scoring_workers, show_picture
from camoxpert_cli.metrics.baselines import (
    all_foreground_iou,
    colour_threshold_iou,
    local_variance_iou,
    orientation_energy_iou,
)
from camoxpert_cli.metrics.image_scores import score_picture
from camoxpert_cli.metrics.measures import SUMMARY
from camoxpert_cli.model.camoxpert import CamoXpert

VALIDATION = "validation"
BASELINES = {
    "all foreground": all_foreground_iou,
    "best colour threshold": colour_threshold_iou,
    "best local variance": local_variance_iou,
    "best orientation energy": orientation_energy_iou,
}
_SHOWN = {each.heading: each.name for each in SUMMARY}


def close_run(run: Run, as_json: bool = False) -> None:
    """Score the best weights by every measure, write down what came out, and print the summary, or all as JSON."""
    progress, folder = run.progress, run.folder
    evaluation = score_best(run)
    scored = {each.name: each.to_json() for each in evaluation.sets}
    results: dict[str, Any] = {
        **evaluation.about,
        "validation": scored.pop(VALIDATION),
        "tests": scored,
        "baselines": score_baselines(run.data.validation) if run.data.generated else {},
        "seconds": round(progress.seconds, 1),
        "target_iou": run.config.run.target_iou,
        "seconds_to_target": progress.target_seconds,
    }
    folder.write_results(results)
    if run.world.is_main:
        write_pages(run, evaluation)
    if as_json:
        console.result(json.dumps({"complete": True, "run_folder": str(folder.path), **results}, indent=2))
    else:
        _print_summary(run, results)


def score_best(run: Run) -> Evaluation:
    """`best_model.pth` on the held-out pictures and on each test set, by its average where it has one.

    A test set with a broken picture is named and left out: hours of training must not end without their results.
    """
    best = run.folder.best
    content = run.world.from_main(read_checkpoint(best) if run.world.is_main else {})
    network = network_of(content, best).to(run.device)
    pairs: dict[str, Sequence[Pair]] = {VALIDATION: run.data.validation, **run.data.tests}
    sets = []
    for name in pairs:
        try:
            sets.append(_score(run, network, name, pairs[name]))
        except DataError as error:
            if name == VALIDATION:
                raise
            console.warn(f"test set {name} is not scored: {error.message}")
    about = {"checkpoint": best.name, "epoch": run.progress.best_epoch}
    show = partial(show_picture, network, pairs, run.config.data.img_size, run.device, run.dtype, NO_TTA)
    return Evaluation(f"{run.folder.path.name}, epoch {run.progress.best_epoch}", about, sets, show)


def _score(run: Run, network: CamoXpert, name: str, pairs: Sequence[Pair]) -> ScoredSet:
    batches = run.scoring_batches(pairs, run.cache if name == VALIDATION else None)
    with console.progress(f"Scoring {name}", len(pairs)) as advance:
        scores = score_pictures(
            network,
            batches,
            run.device,
            run.dtype,
            run.or_stop(advance),
            run.world,
            job=lambda _: score_picture,
            workers=scoring_workers(run.world),
        )
    return ScoredSet(name, [pair.name for pair in pairs], scores)


def write_pages(run: Run, evaluation: Evaluation) -> None:
    """per_image.csv and, where it is asked for, report.html and curves.png. A full disk costs them, not the run."""
    folder, history = run.folder, run.progress.history
    try:
        atomic.write_text(folder.per_image, per_image_csv(evaluation.sets))
        if run.config.run.report:
            # Loads what draws charts, which takes a second.
            from camoxpert_cli.evaluation.report import MEASURE_WORDS, write_evaluation_report
            from camoxpert_cli.report.curves import write_training_curves

            write_evaluation_report(folder.report, evaluation, configuration=to_mapping(run.config), history=history)
            write_training_curves(folder.curves, history, MEASURE_WORDS)
    except OSError as error:
        console.warn(f"{error.filename} cannot be written: {error.strerror}; the scores are in {folder.results}")


def score_baselines(pairs: list[Pair]) -> dict[str, float]:
    """Mean IoU on the validation pictures of methods that learn nothing."""
    pictures = [(image, mask * 255) for image, mask in (read_pair(pair.image, pair.mask) for pair in pairs)]
    return {name: baseline(pictures) for name, baseline in BASELINES.items()}


def _print_summary(run: Run, results: dict[str, Any]) -> None:
    best, progress, target = run.folder.best, run.progress, run.config.run.target_iou
    console.say()
    rows = [["validation", *_cells(results["validation"])]]
    rows += [[f"test {name}", *_cells(scores)] for name, scores in results["tests"].items()]
    rows += [
        [f"  {name}", str(len(run.data.validation)), f"{iou:.4f}"] + [""] * (len(_SHOWN) - 1)
        for name, iou in results["baselines"].items()
    ]
    console.result(console.table(["", "pictures", *_SHOWN], rows))
    console.say()
    console.say(f"Best weights     {best}, epoch {progress.best_epoch} of {progress.epoch}")
    if run.config.run.report:
        console.say(f"Report           {run.folder.report}")
    speed = len(progress.history) * len(run.data.train) / progress.seconds
    console.say(f"Training time    {format_duration(progress.seconds)}, {speed:.1f} img/s with validation and saving")
    if target is not None:
        passed = progress.target_seconds
        when = "not reached" if passed is None else f"passed after {format_duration(passed)}"
        console.say(f"Target           validation IoU {target:g}: {when}")
    console.say(f"Next             camox predict {shlex.quote(str(best))} PICTURE... --out maps")
    console.say(f"                 {run.folder.resume_command} --epochs {2 * run.config.train.epochs}")
    if run.data.generated:
        console.say("                 camox train --dataset-path YOUR_DATA")


def _cells(scores: dict[str, Any]) -> list[str]:
    return [str(scores["pictures"]), *(f"{scores[name]:.4f}" for name in _SHOWN.values())]
