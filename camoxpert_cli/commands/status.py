from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.options import AsJson, Quiet

if TYPE_CHECKING:
    from camoxpert_cli.status.run_status import Position, RunStatus


def status(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run folder, a folder that contains one, or a checkpoint of a run.")
    ],
    unfinished_exit_code: Annotated[
        int,
        typer.Option(
            "--unfinished-exit-code", metavar="N", min=0, max=255, help="Exit code if the run is not complete."
        ),
    ] = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show how far a run is, and whether it is saved.

    Reads the run folder and changes nothing, also while the run goes on. Verifies every checkpoint. The remaining time
    is estimated from the epochs so far.

    \b
    Examples:
      camox status runs/first
      camox status runs/first --json
      camox status runs/first --unfinished-exit-code 85
    """
    from camoxpert_cli.status.find_run import find_run
    from camoxpert_cli.status.run_status import read_status

    found = read_status(find_run(run))
    if as_json:
        console.result(json.dumps(found.to_json(), indent=2))
    else:
        for title, text in _lines(found, time.time()):
            console.result(f"{title:<17}{text}")
    if not found.complete:
        raise typer.Exit(unfinished_exit_code)


def _lines(run: RunStatus, now: float) -> list[tuple[str, str]]:
    from camoxpert_cli.config.parse import format_duration
    from camoxpert_cli.engine.throughput import roughly

    def ago(then: float) -> str:
        return f"{roughly(max(0.0, now - then))} ago"

    lines = [("Run folder", str(run.folder.path)), ("Status", _state(run)), ("Position", _position(run))]
    if run.last_activity is not None:
        lines.append(("Last activity", ago(run.last_activity)))
    if run.best_iou is not None:
        where = f"epoch {run.best_epoch}" if run.best_epoch else "the weights it started with"
        lines.append(("Best", f"validation IoU {run.best_iou:.4f}, {where}"))
    lines.append(("Training time", format_duration(run.seconds)))
    if not run.complete:
        left = run.remaining
        text = (
            "not known before an epoch is complete"
            if left is None
            else f"{'>' if left.is_lower_bound else ''}{roughly(left.seconds)}"
        )
        lines.append(("Remaining", text))
        limits = {"time limit": run.time_limit, "session limit": run.session_limit}
        if set_limits := [f"{name} {limit}" for name, limit in limits.items() if limit is not None]:
            lines.append(("Limits", ", ".join(set_limits)))
        lines.append(("Saved", _saved(run)))
    for name, each in run.checkpoints.items():
        state = {True: "intact", False: "damaged", None: "not verified"}[each.intact]
        reason = f" ({each.problem})" if each.problem else ""
        lines.append((name, f"{console.byte_size(each.size)}, {ago(each.modified)}, {state}{reason}"))
    return [*lines, ("Next", run.next or _without_command(run))]


def _state(run: RunStatus) -> str:
    if run.complete:
        return "complete" if run.early_stop is None else f"complete: {run.early_stop}"
    where = {True: "running", False: "not running on this machine", None: ""}[run.running]
    trained = run.early_stop is not None or (run.epochs is not None and run.position[0] >= run.epochs)
    return ", ".join(filter(None, ["unfinished", where, "trained, but not scored" if trained else ""]))


def _position(run: RunStatus) -> str:
    epoch, samples = run.position
    if run.epochs is not None and run.early_stop is not None:
        return f"{epoch} of {console.counted(run.epochs, 'epoch')} complete"
    if run.epochs is not None and epoch >= run.epochs:
        return f"{console.counted(epoch, 'epoch')} complete"
    total = "" if run.epochs is None else f" of {run.epochs}"
    stage = "" if run.stage is None else f", stage {run.stage}"
    images = f"{samples} of {run.images}" if run.images else str(samples)
    return f"epoch {epoch + 1}{total}{stage}, {images} images into it"


def _saved(run: RunStatus) -> str:
    if run.checkpoint is None:
        return "nothing from which the run can be resumed" if run.checkpoints else "nothing yet"
    if run.saved >= run.position:
        return f"{run.checkpoint}, up to this position"
    return f"{run.checkpoint}, {_place(run.saved)}; resuming from it repeats {_lost(run)}"


def _without_command(run: RunStatus) -> str:
    if run.complete:
        return "nothing: the best weights are no longer here"
    return "start a new run in another folder" if run.checkpoints else "start it again, as it was started"


def _place(position: Position) -> str:
    return f"{position[1]} images into epoch {position[0] + 1}"


def _lost(run: RunStatus) -> str:
    epochs, samples = (now - then for now, then in zip(run.position, run.saved, strict=True))
    if epochs == 0 or run.images is not None:
        return console.counted(epochs * (run.images or 0) + samples, "image")
    return console.counted(epochs, "epoch")
