from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.options import AsJson, file_path
from camoxpert_cli.config.eval_options import Weights

if TYPE_CHECKING:
    from camoxpert_cli.checkpoints.convert import Conversion

_MOST_SHOWN = 20


def convert_ckpt(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Checkpoint from camox or another program.")],
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            parser=file_path,
            help="File to write, required unless --in-place is given; .safetensors contains the network only.",
        ),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Add the prefix 'module.' to the network's keys.")] = False,
    weights: Annotated[
        Weights, typer.Option(metavar="model|ema", help="Which weights to store as the network: raw (model) or EMA.")
    ] = "model",
    keep: Annotated[
        Literal["all", "weights"],
        typer.Option(
            metavar="all|weights",
            help="With all, also keep the training state, such as optimizer state and epoch; with weights, drop it.",
        ),
    ] = "all",
    to: Annotated[
        Literal["same", "camoxpert"],
        typer.Option(metavar="same|camoxpert", help="Output format: that of IN, or of the original CamoXpert."),
    ] = "same",
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace IN.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if camox wrote it.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be written and which tensors do not match the network, and write nothing.",
        ),
    ] = False,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Write OUT even if it could not be loaded, for example with NaN weights.")
    ] = False,
    entry: Annotated[str | None, typer.Option(metavar="NAME", help="Network to use if IN contains several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint to other key prefixes or formats.

    Removes the key prefixes of DataParallel, torch.compile and others, or adds 'module.'. Finds the network by its key
    names, wherever it is stored in IN and whatever the prefix: IN may come from camox, the original CamoXpert,
    Lightning, accelerate or timm, or be a plain state dict. Nothing is written unless the result can be loaded.

    \b
    Examples:
      camox convert-ckpt in.pth out.pth
      camox convert-ckpt in.pth out.pth --add
      camox convert-ckpt runs/first/last.pth weights.safetensors --weights ema
      camox convert-ckpt runs/first/best_model.pth original.pth --to camoxpert
      camox convert-ckpt in.pth out.pth --dry-run
      camox convert-ckpt in.pth out.pth --entry student
    """
    from camoxpert_cli.checkpoints.convert import convert_checkpoint

    done = convert_checkpoint(
        source,
        target,
        add=add,
        weights=weights,
        keep=keep,
        to=to,
        in_place=in_place,
        overwrite=overwrite,
        dry_run=dry_run,
        as_is=as_is,
        entry=entry,
    )
    console.result(json.dumps(asdict(done), indent=2) if as_json else _format_conversion(done))


def _format_conversion(done: Conversion) -> str:
    ema = f", {console.counted(done.ema_tensors, 'EMA tensor')}" if done.ema_tensors else ""
    where = f" in {done.network}" if done.network else ""
    lines = [f"{done.source}: {done.program}, {console.counted(done.tensors, 'tensor')}{where}{ema}"]
    lines.append(f"Keys: {done.removed_prefix!r} removed" if done.removed_prefix else "Keys: no prefix to remove")
    if done.added_prefix:
        lines[-1] += f", {done.added_prefix!r} added"
    if done.dropped:
        lines.append(f"Dropped: {', '.join(done.dropped)}")
    if done.tied:
        lines.append(f"Tied: {console.counted(done.tied, 'tensor shares', 'tensors share')} memory with another tensor")
    if done.differences is not None:
        network = f"{done.backbone} with {console.counted(done.num_experts or 0, 'expert')}"
        rows = done.differences
        match = console.counted(len(rows), "tensor differs", "tensors differ") if rows else "all tensors match"
        lines.append(f"Network: {network}, {match}")
        if rows:
            lines.append(console.table(["tensor", "in the file", "in the network"], rows[:_MOST_SHOWN]))
        if len(rows) > _MOST_SHOWN:
            lines.append(f"and {len(rows) - _MOST_SHOWN} more")
    elif not done.written:
        lines.append("Network: not stored in the file, and no known network matches")
    lines.append(f"{'Written' if done.written else 'Would be written'}: {done.target}")
    return "\n".join(lines)
