"""Scoring of a single image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.config.eval_options import Protocol
from camoxpert_cli.data.levels import UnclearError, levels_of
from camoxpert_cli.data.negatives import read_truth
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_single
from camoxpert_cli.data.writing import NO_NOTE, Note, write_image
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.metrics.histogram import Empty
from camoxpert_cli.metrics.image_scores import ImageScores, score_image

_EXPECTED = "save the probabilities as grayscale, brighter on the object, before any color map is applied"


def score_and_save(
    grey: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    protocol: Protocol,
    unsaved: list[UsageError],
    save_as: Path | None = None,
    new: bool = False,
    note: Note = NO_NOTE,
) -> ImageScores:
    """Score a prediction (H, W) and write it to `save_as` if that is given; `new` and `note` as in `write_image`.

    If writing fails, the error is added to `unsaved`, because the scores are valid anyway.
    """
    if save_as is not None:
        try:
            write_image(save_as, grey, "--save-predictions", new=new, note=note)
        except UsageError as error:
            unsaved.append(error)
    return _score(grey, mask, protocol)


def score_files(prediction_path: Path, pair: Pair, protocol: Protocol) -> tuple[ImageScores, bool]:
    """Return the scores of a prediction file for the mask of a pair, and whether it had to be resized to the mask.

    Raises DataError.
    """
    mask = read_truth(pair) > 0
    grey, resized = read_prediction(prediction_path, (mask.shape[0], mask.shape[1]))
    return _score(grey, mask, protocol), resized


def read_prediction(path: Path, size: tuple[int, int]) -> tuple[NDArray[np.uint8], bool]:
    """Read the levels of a prediction, uint8, at height and width `size`; also return whether it was resized.

    See `levels_of` for levels. Raises DataError if the file is unreadable, in color, or has values that are not levels.
    """
    try:
        levels = levels_of(read_single(path))
    except UnclearError as error:
        raise DataError(f"the prediction {path} {error}", _EXPECTED) from error
    if levels.colour:
        raise DataError(f"{levels.colour:.1%} of the pixels of the prediction {path} are in color", _EXPECTED)
    grey = levels.grey
    if grey.shape == size:
        return grey, False
    return np.asarray(cv2.resize(grey, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), dtype=np.uint8), True


def _score(grey: NDArray[np.uint8], mask: NDArray[np.bool_], protocol: Protocol) -> ImageScores:
    empty: Empty = "exact" if protocol.empty == "exact" else "reference"
    return score_image(grey, mask, stretch=protocol.stretch, empty=empty)
