from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.imports import without_collecting
from camoxpert_cli.commands.options import AsJson, Quiet, with_settings
from camoxpert_cli.errors import UsageError

# Safe to change on resume, so available without --set: where the run continues, and for how long.
_FLAGS = (
    "run.checkpoint_dir",
    "run.device",
    "run.gpus",
    "run.devices",
    "run.strategy",
    "run.max_restarts",
    "train.batch_size",
    "train.stage2_batch_size",
    "train.epochs",
    "train.patience",
    "data.dataset_path",
    "data.images",
    "data.masks",
    "data.val_images",
    "data.val_masks",
    "data.negatives",
    "data.cache",
    "data.num_workers",
    "run.save_every",
    "run.time_limit",
    "run.session_limit",
    "run.unfinished_exit_code",
    "run.target_iou",
    "run.tracker",
    "run.tensorboard",
)


# What they mean here is not what they mean for train.
_HELPS = {
    "run.checkpoint_dir": "Folder to continue in; RUN itself if not given, or a new folder under runs if RUN is "
    "read-only.",
    "run.gpus": "Number of GPUs (with --device cpu: of processes).",
    "train.batch_size": "Per-GPU batch size; auto picks the largest that fits. Gradient accumulation keeps the run's "
    "global batch size.",
    "train.stage2_batch_size": "The same for stage 2.",
}


@with_settings(_FLAGS, helps=_HELPS, defaults=False)
def resume(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run folder, a folder that contains one, or a checkpoint of a run.")
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.NAME=VALUE", help="Change any other setting; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would happen, and write nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **flags: Any,
) -> None:
    """Resume a run exactly where it was saved.

    Uses the newest intact checkpoint in the folder, and all its settings except those given here. On the same
    machine, a resumed and an uninterrupted run are bitwise identical in two cases: on a CPU with one thread, and on
    GPUs if the run was started with --deterministic. Otherwise, they differ as much as two runs of the same command
    do. If the folder is read-only, as under /kaggle/input, the run continues in a new one.

    \b
    Examples:
      camox resume runs/first
      camox resume runs/first --dry-run
      camox resume runs/first --epochs 200
      camox resume /kaggle/input/NOTEBOOK --session-limit 12h
      camox resume runs/first --gpus 1 --batch-size 8
    """
    if dry_run and as_json:
        raise UsageError("--json prints training results, but --dry-run has none", "use only one of them")

    if dry_run:
        from camoxpert_cli.launch.resume import rehearse

        console.result("\n".join(rehearse(run, flags, assignments or [])))
        return

    from camoxpert_cli.launch.unfinished import code_typed, interrupted_with

    with interrupted_with(code_typed(flags)):  # importing torch and reading the checkpoint take seconds
        with without_collecting():
            from camoxpert_cli.commands.training_outcome import finish
            from camoxpert_cli.launch.resume import resume as go_on

        outcome = go_on(run, flags, assignments or [])
    finish(outcome, as_json=as_json)
