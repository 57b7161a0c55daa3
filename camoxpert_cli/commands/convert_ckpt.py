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
    source: Annotated[Path, typer.Argument(metavar="IN", help="Checkpoint of camox or of another program.")],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", parser=file_path, help="File to write; .safetensors holds the network alone."),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Put module. before the network's keys.")] = False,
    weights: Annotated[
        Weights, typer.Option(metavar="model|ema", help="Which weights become the network's.")
    ] = "model",
    keep: Annotated[
        Literal["all", "weights"],
        typer.Option(metavar="all|weights", help="Keep all that IN holds, or leave out what only training needs."),
    ] = "all",
    to: Annotated[
        Literal["same", "camoxpert"],
        typer.Option(metavar="same|camoxpert", help="Whose format: that of IN, or the original program's."),
    ] = "same",
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace IN.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, compare with the network, and write nothing.")
    ] = False,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Write it also where it could not be loaded, as with NaN among the weights.")
    ] = False,
    entry: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which network of IN, where it holds several.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a checkpoint fit: change the prefixes of its keys.

    Takes away, or adds, what DataParallel, compile and others put there. Finds the network by its own names, whatever
    IN keeps it in and whatever comes before the names: IN may be of camox, the original program, Lightning,
    accelerate, timm, or a bare state dict. What it writes can be loaded, or it writes nothing.

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
    ema = f", {done.ema_tensors} of their average" if done.ema_tensors else ""
    where = f" in {done.network}" if done.network else ""
    lines = [f"{done.source}: {done.program}, {done.tensors} tensors{where}{ema}"]
    lines.append(f"Keys: {done.removed_prefix!r} removed" if done.removed_prefix else "Keys: no prefix to remove")
    if done.added_prefix:
        lines[-1] += f", {done.added_prefix!r} added"
    if done.dropped:
        lines.append(f"Left out: {', '.join(done.dropped)}")
    if done.tied:
        lines.append(f"Tied: {done.tied} tensors share their memory with another one")
    if done.differences is not None:
        network = f"{done.backbone} with {done.num_experts} experts"
        rows = done.differences
        lines.append(f"Network: {network}, {f'{len(rows)} tensors differ' if rows else 'every tensor fits'}")
        if rows:
            lines.append(console.table(["tensor", "in the file", "in the network"], rows[:_MOST_SHOWN]))
        if len(rows) > _MOST_SHOWN:
            lines.append(f"and {len(rows) - _MOST_SHOWN} more")
    elif not done.written:
        lines.append("Network: the file does not say which one it is, and fits none that is known")
    lines.append(f"{'Written' if done.written else 'Would be written'}: {done.target}")
    return "\n".join(lines)
