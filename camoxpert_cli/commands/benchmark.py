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

# What changes how long an epoch takes; where weights come from does not, nor how they are learned.
_FLAGS = [
    *(key for key in SETTINGS if key.startswith(("model.", "data.")) and key != "model.backbone_weights"),
    *(f"train.{name}" for name in ("epochs", "stage1_epochs", "batch_size", "stage2_batch_size", "accumulation_steps")),
    *(f"train.{name}" for name in ("skip_stage1", "use_ema", "sync_batchnorm", "precision", "deterministic")),
    "run.device",
]
_FLAGS.remove("data.generated_pictures")


@with_settings(_FLAGS)
def benchmark(
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Recipe to measure: its name, or a .yaml file.")
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            metavar="N,N", help="Numbers of GPUs to compare, of processes with --device cpu; all and 1 if not given."
        ),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="dp,ddp", help="Strategies for several GPUs; both if not given.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_COUNTED, metavar="N", help="Optimizer steps a repeat; some seconds' worth if not given."
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, max=MOST_COUNTED, metavar="N", help="Repeats of each measurement.")
    ] = 3,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=file_path, help="Write the tables as Markdown too.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier table in --out.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **flags: Any,
) -> None:
    """Measure minutes per epoch on 1 and more GPUs.

    Says what limits them. Trains for some steps, in processes of their own, with the settings and data that train would
    take, from random weights; keeps nothing and downloads nothing. Without data it generates pictures of COD10K's size.
    One measurement that fails does not stop the others.

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
    finally:  # where nobody reads the tables too
        if out is not None:
            _write(out, report.to_markdown(result))


def _write(out: Path, page: str) -> None:
    try:
        atomic.write_text(out, page)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}", "--out benchmark.md") from error
    console.say(f"Written: {out}")
