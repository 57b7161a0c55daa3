"""Images that show no object: which ones of a dataset, and what stands in for their masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli import console
from camoxpert_cli.data.cod10k import NOT_CAMOUFLAGED
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_image, read_scored_mask
from camoxpert_cli.data.threads import in_threads


def apart(pairs: Sequence[Pair], *, read_masks: bool) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Divide pairs into those with an object and those without: COD10K's NonCAM images, which their names tell.

    With `read_masks`, also those whose mask marks nothing. Raises DataError for a mask that cannot be read.
    """
    is_empty = [not pair.has_mask or pair.name.startswith(NOT_CAMOUFLAGED) for pair in pairs]
    if read_masks:
        unknown = [index for index, empty in enumerate(is_empty) if not empty]
        masks = in_threads(read_truth, [pairs[index] for index in unknown])
        with console.progress("Reading masks", len(unknown)) as advance:
            for index, mask in zip(unknown, masks, strict=True):
                is_empty[index] = not mask.any()
                advance(1, pairs[index].name)
    with_object, without = (
        tuple(pair for pair, empty in zip(pairs, is_empty, strict=True) if empty is wanted) for wanted in (False, True)
    )
    return with_object, without


def read_truth(pair: Pair) -> NDArray[np.uint8]:
    """Read the mask that a prediction is scored against, as `read_scored_mask` does.

    Without a mask file, it is empty and has the size of the image. Raises DataError.
    """
    return read_scored_mask(pair.mask) if pair.has_mask else np.zeros(read_image(pair.image)[1], np.uint8)
