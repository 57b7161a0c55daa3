"""The end of a run: the best weights are scored on the test sets, and the user reads what came out."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.config.durations import format_duration
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_pair
from camoxpert_cli.engine.checkpoint import read_checkpoint
from camoxpert_cli.engine.evaluate import Scores, evaluate
from camoxpert_cli.engine.load import network_of
from camoxpert_cli.engine.run import Run
from camoxpert_cli.errors import DataError
from camoxpert_cli.metrics.baselines import (
    all_foreground_iou,
    colour_threshold_iou,
    local_variance_iou,
    orientation_energy_iou,
)

BASELINES = {
    "all foreground": all_foreground_iou,
    "best colour threshold": colour_threshold_iou,
    "best local variance": local_variance_iou,
    "best orientation energy": orientation_energy_iou,
}


def close_run(run: Run, as_json: bool = False) -> None:
    """Write results.json and print the summary, or both together as JSON."""
    progress = run.progress
    results: dict[str, Any] = {
        "checkpoint": run.folder.best.name,
        "epoch": progress.best_epoch,
        "validation": {"pictures": len(run.data.validation), **_best_validation(run)},
        "tests": {name: asdict(scores) for name, scores in score_tests(run).items()},
        "baselines": score_baselines(run.data.validation) if run.data.generated else {},
        "seconds": round(progress.seconds, 1),
        "target_iou": run.config.run.target_iou,
        "seconds_to_target": progress.target_seconds,
    }
    run.folder.write_results(results)
    if as_json:
        console.result(json.dumps({"complete": True, "run_folder": str(run.folder.path), **results}, indent=2))
    else:
        _print_summary(run, results)


def score_tests(run: Run) -> dict[str, Scores]:
    """The scores of `best_model.pth` on each test set, by its average where it has one.

    A set with a broken picture is named and left out: hours of training must not end without their results.
    """
    if not run.data.tests:
        return {}
    content = run.world.from_main(read_checkpoint(run.folder.best) if run.world.is_main else {})
    network = network_of(content, run.folder.best).to(run.device)
    scores = {}
    for name, pairs in run.data.tests.items():
        try:
            with console.progress(f"Test set {name}", len(pairs)) as advance:
                scores[name] = evaluate(
                    network, run.scoring_batches(pairs), run.device, run.dtype, run.or_stop(advance), run.world
                )
        except DataError as error:
            console.warn(f"test set {name} is not scored: {error.message}")
    return scores


def score_baselines(pairs: list[Pair]) -> dict[str, float]:
    """Mean IoU on the validation pictures of methods that learn nothing."""
    pictures = [(image, mask * 255) for image, mask in (read_pair(pair.image, pair.mask) for pair in pairs)]
    return {name: baseline(pictures) for name, baseline in BASELINES.items()}


def _best_validation(run: Run) -> dict[str, float]:
    row = next(row for row in run.progress.history if row["epoch"] == run.progress.best_epoch)
    return {name: row[name] for name in ("iou", "dice", "mae")}


def _print_summary(run: Run, results: dict[str, Any]) -> None:
    best, progress, target = run.folder.best, run.progress, run.config.run.target_iou
    console.say()
    rows = [["validation", *_cells(results["validation"])]]
    rows += [[f"test {name}", *_cells(scores)] for name, scores in results["tests"].items()]
    rows += [
        [f"  {name}", str(len(run.data.validation)), f"{iou:.4f}", "", ""] for name, iou in results["baselines"].items()
    ]
    console.result(console.table(["", "pictures", "IoU", "Dice", "MAE"], rows))
    console.say()
    console.say(f"Best weights     {best}, epoch {progress.best_epoch} of {progress.epoch}")
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
    return [str(scores["pictures"]), *(f"{scores[name]:.4f}" for name in ("iou", "dice", "mae"))]
