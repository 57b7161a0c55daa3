"""What is done for one image that is scored."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.config.eval_options import Protocol
from camoxpert_cli.data.levels import UnclearError, levels_of
from camoxpert_cli.data.reading import read_scored_mask, read_single
from camoxpert_cli.data.writing import write_image
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.metrics.image_scores import ImageScores, score_image

_EXPECTED = "a map is grey, brighter where an object is: save probabilities before anything colours them"


def score_and_save(
    grey: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    protocol: Protocol,
    save_as: Path | None,
    unsaved: list[UsageError],
    new: bool,
) -> ImageScores:
    """The scores of a map (H, W); the map itself is written to `save_as` where that is given, see `write_image`.

    Where that is impossible the reason is added to `unsaved`, since the scores are none the worse for it.
    """
    if save_as is not None:
        try:
            write_image(save_as, grey, "--save-maps", new=new)
        except UsageError as error:
            unsaved.append(error)
    return _score(grey, mask, protocol)


def score_files(map_path: Path, mask_path: Path, protocol: Protocol) -> tuple[ImageScores, bool]:
    """The scores of the map in a file, and whether it had to be resized to its mask. Raises DataError."""
    mask = read_scored_mask(mask_path) > 0
    grey, resized = read_map(map_path, (mask.shape[0], mask.shape[1]))
    return _score(grey, mask, protocol), resized


def read_map(path: Path, size: tuple[int, int]) -> tuple[NDArray[np.uint8], bool]:
    """The levels of a map, uint8, at height and width `size`, and whether it had another one; see `levels_of`.

    Raises DataError where it is unreadable, in colour, or has values that are no levels.
    """
    try:
        levels = levels_of(read_single(path))
    except UnclearError as error:
        raise DataError(f"the map {path} {error}", _EXPECTED) from error
    if levels.colour:
        raise DataError(f"the map {path} is in colour, in {levels.colour:.1%} of its pixels", _EXPECTED)
    grey = levels.grey
    if grey.shape == size:
        return grey, False
    return np.asarray(cv2.resize(grey, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), dtype=np.uint8), True


def _score(grey: NDArray[np.uint8], mask: NDArray[np.bool_], protocol: Protocol) -> ImageScores:
    return score_image(grey, mask, stretch=protocol.stretch, empty=protocol.empty)
