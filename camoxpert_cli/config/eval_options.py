"""What `camox eval` scores, and how; validated before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.errors import UsageError

EmptyMasks = Literal["apart", "reference", "exact"]
Precision = Literal["fp32", "fp16", "bf16", "auto"]
Weights = Literal["model", "ema"]


@dataclass(frozen=True)
class TestData:
    """Where test sets are looked for, and the names of those to use; all if `names` is empty."""

    roots: Sequence[Path] = ()
    folders: Sequence[tuple[Path, Path]] = ()
    names: Sequence[str] = ()
    include_noncam: bool = False
    negatives: Sequence[Path] = ()


@dataclass(frozen=True)
class Inference:
    """How predictions are made. `img_size` None: as in validation. `weights` None: EMA if the checkpoint has them."""

    img_size: int | None = None
    batch_size: int = 8
    precision: Precision = "fp32"
    tta: Tta = NO_TTA
    weights: Weights | None = None


@dataclass(frozen=True)
class Protocol:
    """How predictions are scored: see `metrics.image_scores.score_image`.

    With `empty` "apart", the means of a set are those of its images with an object.
    """

    stretch: bool = True
    empty: EmptyMasks = "apart"


def check_source(
    checkpoint: Path | None,
    predictions: Path | None,
    roots: Sequence[Path],
    images: Path | None,
    masks: Path | None,
    negatives: Sequence[Path] = (),
) -> None:
    """Raise UsageError unless the input is unambiguous: a checkpoint with test sets, or predictions with masks."""
    example = "camox eval --predictions DIR --masks DATA/TestDataset/CAMO/GT"
    if (checkpoint is None) == (predictions is None):
        what = (
            "neither a checkpoint nor --predictions was given"
            if predictions is None
            else f"both a checkpoint, {checkpoint}, and --predictions {predictions} were given"
        )
        raise UsageError(f"{what}, expected one of them", f"camox eval CHECKPOINT --dataset-path DATA, or {example}")
    if predictions is not None:
        if masks is None:
            raise UsageError("--predictions requires --masks, the folder of the ground-truth masks", example)
        if roots:
            raise UsageError(
                f"--predictions {predictions} is scored against --masks; --dataset-path is only for checkpoints",
                example,
            )
        if negatives:
            raise UsageError(
                f"--negatives {negatives[0]} is only for checkpoints; of predictions, those whose masks are empty are "
                "scored as such",
                example,
            )
        return
    if (images is None) != (masks is None):
        missing = "--images" if images is None else "--masks"
        raise UsageError(f"--images and --masks belong together: {missing} is missing", "--images DIR --masks DIR")
    if not roots and images is None and not negatives:
        raise UsageError("no test set was given", f"camox eval {checkpoint} --dataset-path DATA")
