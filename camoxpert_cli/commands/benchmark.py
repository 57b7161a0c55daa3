from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from camoxpert_cli import atomic, console
from camoxpert_cli.benchmark.options import check_counts, check_out, check_strategies
from camoxpert_cli.commands.options import AsJson, Quiet, file_path, with_settings
from camoxpert_cli.config.schema import MOST_COUNTED, SETTINGS
from camoxpert_cli.errors import UsageError

# Settings that affect how long an epoch takes; the source of weights and the learning rates do not.
_FLAGS = [
    *(key for key in SETTINGS if key.startswith(("model.", "data.")) and key != "model.backbone_weights"),
    *(f"train.{name}" for name in ("epochs", "stage1_epochs", "batch_size", "stage2_batch_size", "accumulation_steps")),
    *(f"train.{name}" for name in ("skip_stage1", "use_ema", "sync_batchnorm", "precision", "deterministic")),
    "run.device",
]
_FLAGS.remove("data.generated_images")

# What they mean here is not what they mean for train.
_HELPS = {
    "model.pretrained": "Treat the backbone as pretrained: its BatchNorm statistics stay fixed. Its weights are random "
    "in any case.",
    "train.epochs": "Total number of epochs of a full training run, to estimate its hours.",
    "train.stage1_epochs": "How many of these belong to stage 1, in which the backbone is frozen.",
    "train.batch_size": "Per-GPU batch size.",
}


@with_settings(_FLAGS, helps=_HELPS, autos=False)
def benchmark(
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Preset to measure: its name, or a .yaml file.")
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            metavar="N,N", help="GPU counts to compare (processes with --device cpu); 1 and all GPUs if not given."
        ),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="dp,ddp", help="Strategies for several GPUs; both if not given.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_COUNTED, metavar="N", help="Optimizer steps per repeat; a few seconds' worth if not given."
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, max=MOST_COUNTED, metavar="N", help="Number of repeats per measurement.")
    ] = 3,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=file_path, help="Also write the tables to a Markdown file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier table at --out.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **flags: Any,
) -> None:
    """Measure minutes per epoch on one or more GPUs.

    Also reports what limits the speed. Each measurement trains for some steps in separate processes, with the settings
    and data that train would use, from random weights; nothing is kept or downloaded. Without data, images of COD10K's
    size are generated. If one measurement fails, the others continue.

    \b
    Examples:
      camox benchmark --preset kaggle-2xT4 --gpus 1,2
      camox benchmark --preset kaggle-2xT4 --gpus 1,2 --strategy ddp \\
          --dataset-path DATA --out speed.md
      camox benchmark --device cpu --gpus 1,2 --backbone edgenext_xx_small \\
          --img-size 128
    """
    counts = None if gpus is None else check_counts(gpus)
    strategies = None if strategy is None else check_strategies(strategy)
    if out is not None:
        check_out(out, overwrite)

    from camoxpert_cli.benchmark import report as report
    from camoxpert_cli.benchmark.benchmark import benchmark as run

    result = run(preset, flags, counts, strategies, steps=steps, repeats=repeats)
    try:
        console.result(json.dumps(report.to_json(result), indent=2) if as_json else report.to_text(result))
        if as_json:
            console.say("\n".join(report.verdict(result)))
    finally:  # also if the tables cannot be printed
        if out is not None:
            _write(out, report.to_markdown(result))


def _write(out: Path, page: str) -> None:
    try:
        atomic.write_text(out, page)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}", "--out benchmark.md") from error
    console.say(f"Written: {out}")
