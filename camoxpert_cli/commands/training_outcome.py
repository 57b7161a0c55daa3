"""Output at the end of a run: results on stdout, the rest on stderr."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import typer

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import CheckpointNotWritten
from camoxpert_cli.config.parse import format_duration
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.launch.unfinished import code_of
from camoxpert_cli.metrics.false_alarms import FalseAlarms, describe
from camoxpert_cli.metrics.measures import SUMMARY

_SHOWN = {each.heading: each.name for each in SUMMARY}


def finish(outcome: Outcome, *, as_json: bool) -> None:
    """Print the outcome and end the command.

    If a time limit stopped the run early, exits with `run.unfinished_exit_code` if given. Raises as `print_outcome`.
    """
    print_outcome(outcome, as_json=as_json)
    if outcome.stop is not None and (code := code_of(outcome.config)) is not None:
        raise typer.Exit(code)


def print_outcome(outcome: Outcome, *, as_json: bool = False) -> None:
    """Print the scores and what to type next, or everything as JSON.

    Raises CheckpointNotWritten if the last save failed. It takes precedence over NotTold, which is raised if results
    cannot be printed.
    """
    try:
        _print_results(outcome, as_json=as_json)
    finally:
        if outcome.unsaved is not None:
            raise CheckpointNotWritten(*outcome.unsaved)


def _print_results(outcome: Outcome, *, as_json: bool) -> None:
    if outcome.stop is not None:
        command = outcome.folder.resume_command if outcome.folder.holds_checkpoint else None
        if as_json:
            left = {"complete": False, "run_folder": str(outcome.folder.path), "reason": outcome.stop.reason}
            next_step = {"epochs": outcome.epochs, "next": command}
            console.result(json.dumps({**left, **next_step}, indent=2))
        elif command is not None:
            console.result(f"Resume with: {command}")
    elif outcome.results is not None:
        if as_json:
            content = {"complete": True, "run_folder": str(outcome.folder.path), **outcome.results}
            console.result(json.dumps(content, indent=2))
        else:
            _print_summary(outcome, outcome.results)


def _print_summary(outcome: Outcome, results: Mapping[str, Any]) -> None:
    config, folder = outcome.config, outcome.folder
    console.say()
    rows = [["validation", *_cells(results["validation"])]]
    rows += [[f"test {name}", *_cells(scores)] for name, scores in results["tests"].items()]
    rows += [
        [f"  {name}", str(results["validation"]["images"]), f"{iou:.4f}"] + [""] * (len(_SHOWN) - 1)
        for name, iou in results["baselines"].items()
    ]
    console.result(console.table(["", "images", *_SHOWN], rows))
    for name, scores in {"validation": results["validation"], **results["tests"]}.items():
        if (without := scores.get("without_object")) is not None:
            console.result(f"{name}: {describe(FalseAlarms.from_json(without))}")
    console.say()
    if folder.best.exists():
        epoch = results["epoch"]
        where = f"epoch {epoch} of {outcome.epochs}" if epoch else "those it started with: no epoch was better"
        console.say(f"Best weights     {folder.best}, {where}")
    early_stop = results.get("early_stop")
    if early_stop is not None:
        console.say(f"Early stop       {early_stop}")
    if folder.report.exists():
        console.say(f"Report           {folder.report}")
    target, speed = results["target_iou"], ""
    if outcome.images:  # unknown if the run was complete before
        speed = f", {outcome.images / outcome.seconds:.1f} img/s including validation and saving"
    console.say(f"Training time    {format_duration(outcome.seconds)}{speed}")
    if target is not None:
        passed = results["seconds_to_target"]
        when = "not reached" if passed is None else f"reached after {format_duration(passed)}"
        console.say(f"Target           validation IoU {target:g}: {when}")
    longer = f"--epochs {2 * config.train.epochs}"
    if early_stop is not None and config.train.patience is not None:
        longer = f"--patience {2 * config.train.patience}"
    commands = [
        *([folder.predict_command] if folder.best.exists() else []),
        *([f"{folder.resume_command} {longer}"] if folder.holds_checkpoint else []),
        *(["camox train --dataset-path YOUR_DATA"] if outcome.generated else []),
    ]
    for number, command in enumerate(commands):
        console.say(f"{'' if number else 'Next':<17}{command}")


def _cells(scores: Mapping[str, Any]) -> list[str]:
    return [str(scores["images"]), *(f"{scores[name]:.4f}" if name in scores else "" for name in _SHOWN.values())]
