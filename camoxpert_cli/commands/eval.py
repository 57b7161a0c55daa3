from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.imports import without_collecting
from camoxpert_cli.commands.options import (
    AsJson,
    Continue,
    NetworkPrecision,
    NetworkSide,
    Quiet,
    Views,
    Weights,
    continues,
    with_settings,
)
from camoxpert_cli.config.eval_options import EmptyMasks, Inference, Protocol, TestData, check_source
from camoxpert_cli.config.parse import NO_TTA, parse_tta
from camoxpert_cli.config.schema import MOST_COUNTED

_FLAGS = ("data.dataset_path", "data.negatives", "data.include_noncam", "run.device", "run.gpus", "run.devices")


@with_settings(_FLAGS)
def evaluate(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="CHECKPOINT", help="Checkpoint from camox or another program; omit it with --predictions."
        ),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME", help="Score only this test set; may be repeated.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Score the predictions in this folder, from any program.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of images; requires --masks. With --predictions, they are only shown in the report.",
        ),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of masks, for --predictions or --images.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for results.json, per_image.csv and report.html.")
    ] = None,
    save_predictions: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write predictions to DIR/SET/NAME.png.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files from an earlier eval in --out and --save-predictions.")
    ] = False,
    continue_: Continue = None,
    stretch: Annotated[
        bool, typer.Option(help="Min-max normalize each prediction before scoring, as papers do.")
    ] = True,
    empty_masks: Annotated[
        EmptyMasks,
        typer.Option(
            metavar="apart|reference|exact",
            help="Images with empty masks: apart leaves them out of the means and reports false alarms; reference "
            "scores them as PySODMetrics does; exact sets F, E, IoU and Dice to 1 if the prediction is empty too, else "
            "to 0.",
        ),
    ] = "apart",
    tta: Views = None,
    weights: Weights = None,
    img_size: NetworkSide = None,
    batch_size: Annotated[int, typer.Option(min=1, max=MOST_COUNTED, metavar="N", help="Per-GPU batch size.")] = 8,
    precision: NetworkPrecision = "fp32",
    as_json: AsJson = False,
    quiet: Quiet = False,
    **flags: Any,
) -> None:
    """Score a checkpoint, or predictions from any program.

    Computes the metrics reported in papers. Every image is scored at the size of its mask, by the rules of
    PySODMetrics, and all images count equally.

    \b
    Examples:
      camox eval runs/first/best_model.pth --dataset-path DATA
      camox eval runs/first/best_model.pth --dataset-path DATA --set CAMO \\
          --tta flip --out scores --save-predictions predictions
      camox eval original.pth --images photos --masks masks --gpus 2
      camox eval --predictions DIR --masks DATA/TestDataset/CAMO/GT
    """
    from camoxpert_cli.config.resolve import resolve

    config = resolve(None, flags).config
    roots = [Path(path) for path in config.data.dataset_path]
    negatives = [Path(path) for path in config.data.negatives]
    check_source(checkpoint, predictions, roots, images, masks, negatives)
    protocol = Protocol(stretch, empty_masks)
    views = NO_TTA if tta is None else parse_tta(tta)
    inference = Inference(img_size, batch_size, precision, views, weights)

    from camoxpert_cli.evaluation import output
    from camoxpert_cli.evaluation.results import Evaluation
    from camoxpert_cli.parallel.worker import is_first

    destination = output.Destination(out, save_predictions, overwrite, continues(continue_))
    if out is not None and is_first():  # of several processes, the others may not know that they were restarted
        inputs = (each for each in (checkpoint, predictions, masks, images, *roots, *negatives) if each is not None)
        output.refuse_overwriting(out, destination.replaces, inputs)
    evaluation: Evaluation | None
    if predictions is not None and masks is not None:
        from camoxpert_cli.evaluation.given_predictions import evaluate_predictions

        noncam = config.data.include_noncam
        evaluation = evaluate_predictions(predictions, masks, images, protocol, destination, include_noncam=noncam)
    else:
        with without_collecting():
            from camoxpert_cli.launch.evaluate import evaluate as evaluate_checkpoint

        assert checkpoint is not None
        folders = [] if images is None or masks is None else [(images, masks)]
        data = TestData(roots, folders, sets or [], config.data.include_noncam, negatives)
        evaluation = evaluate_checkpoint(
            checkpoint, data, inference, protocol, config.run, destination, command=sys.argv[1:]
        )
    if evaluation is None:
        return
    from camoxpert_cli.commands.score_tables import to_text

    # Printed first, because writing the files may fail.
    try:
        console.result(json.dumps(evaluation.to_json(), indent=2) if as_json else to_text(evaluation))
    finally:  # also if they cannot be printed
        if evaluation.finished is not None:
            console.say(f"Nothing to do: {out} already contains these scores")
        elif out is not None:
            output.refuse_overwriting(out, destination.replaces)  # once more: another process may have written since
            output.finished_results(destination, evaluation.about)
            output.write_evaluation(out, evaluation)
            console.say(f"Written: {out / output.REPORT}, with {output.RESULTS} and {output.PER_IMAGE}")
    evaluation.require_saved()
