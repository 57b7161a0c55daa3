"""`camox eval --maps`: the scores of maps that any program wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from camoxpert_cli import console
from camoxpert_cli.config.eval_options import Protocol
from camoxpert_cli.data.layouts import folder_above, list_files, pair_folders
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_image, read_scored_mask
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.evaluation.image import read_map, score_files
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet, Shown
from camoxpert_cli.metrics.image_scores import ImageScores
from camoxpert_cli.targets import is_file_of


def evaluate_predictions(
    predictions: Path, masks: Path, images: Path | None, protocol: Protocol, *, include_noncam: bool = False
) -> Evaluation:
    """Score each map in the folder `predictions` by the mask of the same stem; maps of another size are resized to it.

    `images` are only shown. COD10K's NonCAM masks are left out unless `include_noncam`, and so are their maps. Raises
    DataError where a map has no mask or a mask no map, for scores over a part of a test set compare with nothing, and
    for a file that cannot be read.
    """
    if is_file_of(predictions, masks):
        raise UsageError(f"{predictions} would be scored by itself", "give the masks' folder with --masks")
    pairs = _pairs(predictions, masks, include_noncam)
    rows = []
    with console.progress(f"Scoring {predictions}", len(pairs)) as advance:
        for row in in_threads(lambda pair: score_files(pair.image, pair.mask, protocol), pairs):
            rows.append(row)
            advance(1, "")
    resized = [pair.name for pair, (_, was_resized) in zip(pairs, rows, strict=True) if was_resized]
    if resized:
        console.warn(
            f"{len(resized)} of {len(pairs)} maps have another size than their masks, the first {resized[0]}: "
            "they were resized, bilinearly"
        )
    if not protocol.stretch and max(_highest(scores) for scores, _ in rows) == 1:
        raise DataError(
            f"the maps in {predictions} hold only 0 and 1, expected levels up to 255",
            "multiply them by 255, or leave out --no-stretch",
        )
    scored = ScoredSet(folder_above(masks), [pair.name for pair in pairs], [scores for scores, _ in rows])
    about = {"maps": str(predictions), "stretch": protocol.stretch, "empty_masks": protocol.empty}
    image_files = {} if images is None else list_files(images, masks, include_noncam=True).images

    def show(_: str, index: int) -> Shown:
        pair = pairs[index]
        mask = read_scored_mask(pair.mask) > 0
        grey = read_map(pair.image, (mask.shape[0], mask.shape[1]))[0]
        image = read_image(image_files[pair.name][0])[0] if pair.name in image_files else None
        return image, mask, grey

    return Evaluation(f"maps in {predictions}", about, [scored], show)


def _highest(scores: ImageScores) -> int:
    """The highest level of a map."""
    return int(np.flatnonzero(scores.foreground + scores.background)[-1])


def _pairs(predictions: Path, masks: Path, include_noncam: bool) -> tuple[Pair, ...]:
    """Maps with their masks, by stem."""
    files = list_files(predictions, masks, include_noncam=include_noncam)
    if files.left_out:
        console.say(
            f"{files.left_out} NonCAM maps are left out, whose pictures show nothing camouflaged; "
            "--include-noncam scores them"
        )
    if not files.images:
        left_out = f", but for {files.left_out} of NonCAM pictures" if files.left_out else ""
        unread = f": {files.unread}" if files.unread else ""
        raise DataError(
            f"there are no maps in {predictions}{left_out}{unread}",
            "maps are png, jpg or the like, named as their masks; --include-noncam scores NonCAM maps too",
        )
    for lone, here, other in ((files.lone_images, "map", masks), (files.lone_masks, "mask", predictions)):
        if lone:
            more = f" and {len(lone) - 1} more" if len(lone) > 1 else ""
            what = "mask" if here == "map" else "map"
            raise DataError(
                f"the {here} {lone[0].name}{more} has no {what} in {other}",
                "a map and its mask have the same name up to the extension, and every mask needs its map",
            )
    if files.unread:
        console.warn(f"{predictions} + {masks}: {files.unread}")
    return pair_folders(predictions, masks, files)
