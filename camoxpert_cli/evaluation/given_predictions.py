"""`camox eval --predictions`: scores of predictions that any program wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from camoxpert_cli import console
from camoxpert_cli.config.eval_options import Protocol
from camoxpert_cli.data.layouts import folder_above, list_files, pair_folders
from camoxpert_cli.data.negatives import read_truth
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_image
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.evaluation.data_digest import combined, digests_of
from camoxpert_cli.evaluation.image import read_prediction, score_files
from camoxpert_cli.evaluation.output import NOWHERE, Destination, finished_results
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet, Shown
from camoxpert_cli.metrics.image_scores import ImageScores
from camoxpert_cli.targets import is_file_of


def evaluate_predictions(
    predictions: Path,
    masks: Path,
    images: Path | None,
    protocol: Protocol,
    destination: Destination = NOWHERE,
    *,
    include_noncam: bool = False,
) -> Evaluation:
    """Score each prediction in the folder `predictions` against the mask with the same stem.

    Predictions whose size differs are resized to the mask. `images` are only displayed. COD10K's NonCAM masks and their
    predictions are left out unless `include_noncam`. Raises DataError if a prediction has no mask or a mask has no
    prediction, because scores on part of a test set are not comparable, and if a file cannot be read. If `destination`
    keeps finished evaluations, one of the same files is returned, and one of others raises UsageError.
    """
    if is_file_of(predictions, masks):
        raise UsageError(
            f"--predictions and --masks are the same folder, {predictions}",
            "pass the folder of the ground-truth masks with --masks",
        )
    pairs = _pairs(predictions, masks, include_noncam)
    name, title = folder_above(masks), f"predictions in {predictions}"
    image_files = {} if images is None else list_files(images, masks, include_noncam=True).images

    def show(_: str, index: int) -> Shown:
        pair = pairs[index]
        mask = read_truth(pair) > 0
        grey = read_prediction(pair.image, (mask.shape[0], mask.shape[1]))[0]
        image = read_image(image_files[pair.name][0])[0] if pair.name in image_files else None
        return image, mask, grey

    about = {"predictions": str(predictions), "stretch": protocol.stretch, "empty_masks": protocol.empty}
    if destination.writes:
        tests = {name: pairs}
        about["data_sha256"] = combined(tests, digests_of(tests))
        if (results := finished_results(destination, about)) is not None:
            return Evaluation(title, about, [], show, results)
    rows = []
    with console.progress(f"Scoring {predictions}", len(pairs)) as advance:
        for row in in_threads(lambda pair: score_files(pair.image, pair, protocol), pairs):
            rows.append(row)
            advance(1, "")
    resized = [pair.name for pair, (_, was_resized) in zip(pairs, rows, strict=True) if was_resized]
    if resized:
        console.warn(
            f"prediction and mask differ in size for {len(resized)} of {len(pairs)} pairs, the first is {resized[0]}; "
            "predictions were resized with bilinear interpolation"
        )
    if not protocol.stretch and max(_highest(scores) for scores, _ in rows) == 1:
        raise DataError(
            f"the predictions in {predictions} contain only 0 and 1, expected levels up to 255",
            "multiply them by 255, or omit --no-stretch",
        )
    scored = ScoredSet(name, [pair.name for pair in pairs], [scores for scores, _ in rows], protocol.empty == "apart")
    return Evaluation(title, about, [scored], show)


def _highest(scores: ImageScores) -> int:
    """The highest level of a prediction."""
    return int(np.flatnonzero(scores.foreground + scores.background)[-1])


def _pairs(predictions: Path, masks: Path, include_noncam: bool) -> tuple[Pair, ...]:
    """Predictions with their masks, by stem."""
    files = list_files(predictions, masks, include_noncam=include_noncam)
    if files.left_out:
        console.say(
            f"Skipped {console.counted(files.left_out, 'prediction')} for NonCAM images, which contain no "
            "camouflaged object; --include-noncam scores them"
        )
    if not files.images:
        left_out = f" except {files.left_out} for NonCAM images" if files.left_out else ""
        unread = f": {files.unread}" if files.unread else ""
        raise DataError(
            f"no predictions in {predictions}{left_out}{unread}",
            "pass a folder of PNG, JPEG or similar files that are named like their masks; "
            "--include-noncam also scores those of NonCAM images",
        )
    for lone, here, other in ((files.lone_images, "prediction", masks), (files.lone_masks, "mask", predictions)):
        if lone:
            what = "mask" if here == "prediction" else "prediction"
            subject = f"the {here} {lone[0].name} has" if len(lone) == 1 else f"{len(lone)} {here}s have"
            first = f", the first is {lone[0].name}" if len(lone) > 1 else ""
            raise DataError(
                f"{subject} no {what} in {other}{first}",
                "a prediction and its mask must have the same name except for the extension, "
                "and every mask needs a prediction",
            )
    if files.unread:
        console.warn(f"{predictions} + {masks}: {files.unread}")
    return pair_folders(predictions, masks, files)
