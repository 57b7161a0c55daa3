"""What is done for one image that is scored."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.config.eval_options import Protocol
from camoxpert_cli.data.reading import MOST_MASK_PIXELS, decode, grey_of, read_bytes, read_scored_mask
from camoxpert_cli.data.writing import write_image
from camoxpert_cli.metrics.image_scores import ImageScores, score_image


def score_and_save(
    grey: NDArray[np.uint8], mask: NDArray[np.bool_], protocol: Protocol, save_as: Path | None
) -> ImageScores:
    """The scores of a map (H, W); the map itself is written to `save_as` where that is given."""
    if save_as is not None:
        write_image(save_as, grey, "--save-maps")
    return _score(grey, mask, protocol)


def score_files(map_path: Path, mask_path: Path, protocol: Protocol) -> tuple[ImageScores, bool]:
    """The scores of the map in a file, and whether it had to be resized to its mask. Raises DataError."""
    mask = read_scored_mask(mask_path) > 0
    grey, resized = read_map(map_path, (mask.shape[0], mask.shape[1]))
    return _score(grey, mask, protocol), resized


def read_map(path: Path, size: tuple[int, int]) -> tuple[NDArray[np.uint8], bool]:
    """A grey map uint8 of height and width `size`, and whether it had another one. Raises DataError."""
    grey = grey_of(decode(path, read_bytes(path), cv2.IMREAD_UNCHANGED, MOST_MASK_PIXELS))
    if grey.shape == size:
        return grey, False
    return np.asarray(cv2.resize(grey, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), dtype=np.uint8), True


def _score(grey: NDArray[np.uint8], mask: NDArray[np.bool_], protocol: Protocol) -> ImageScores:
    return score_image(grey, mask, stretch=protocol.stretch, empty=protocol.empty)
