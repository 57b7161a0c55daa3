from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from camoxpert_cli import console
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
    "data.dataset_path",
    "data.images",
    "data.masks",
    "data.val_images",
    "data.val_masks",
    "data.cache",
    "data.num_workers",
    "run.save_every",
    "run.time_limit",
    "run.session_limit",
    "run.target_iou",
    "run.tensorboard",
)


@with_settings(_FLAGS)
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or a checkpoint of a run.")],
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

    Uses the newest undamaged checkpoint in the folder, and all settings from it. On the same machine, the result is
    that of an uninterrupted run: bitwise identical on a CPU, and on GPUs if the run was started with --deterministic;
    otherwise it differs as much as two runs of the same command. A batch size given here is per GPU: gradient
    accumulation keeps the global batch size the same. If the folder is read-only, as under /kaggle/input, the run
    continues in a new one.

    \b
    Examples:
      camox resume runs/first
      camox resume runs/first --dry-run
      camox resume runs/first --epochs 200
      camox resume /kaggle/input/my-first-session --session-limit 12h
      camox resume runs/first --gpus 1 --batch-size 8
    """
    if dry_run and as_json:
        raise UsageError("--json prints training results, but --dry-run has none", "use only one of them")

    from camoxpert_cli.commands.training_outcome import print_outcome
    from camoxpert_cli.launch.resume import rehearse
    from camoxpert_cli.launch.resume import resume as go_on

    if dry_run:
        console.result("\n".join(rehearse(run, flags, assignments or [])))
    else:
        print_outcome(go_on(run, flags, assignments or []), as_json=as_json)
