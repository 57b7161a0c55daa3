"""The files that `camox predict` writes for an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from camoxpert_cli.data.reading import read_image
from camoxpert_cli.data.writing import NO_NOTE, Note, write_image
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.inference.out_folder import make_out_folder
from camoxpert_cli.inference.overlay import overlay
from camoxpert_cli.inference.predictions import THRESHOLD, grey_prediction
from camoxpert_cli.targets import within

OUT_HINT = "choose another folder with --out"
_LONGEST_JPEG_SIDE = 65500


@dataclass(frozen=True)
class Outputs:
    """The output files of an image: `folder/<stem>.png`, and with `overlays` also `folder/overlays/<stem>.jpg`.

    The prediction has gray values or, with a `threshold`, 255 where they are at least `threshold` times 255 and 0
    elsewhere. An overlay shows what reaches `threshold`, or 0.5 without one. Raises UsageError for a threshold that is
    not strictly between 0 and 1.
    """

    folder: Path
    threshold: float | None = None
    overlays: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UsageError(f"--threshold is {self.threshold:g}, expected above 0 and below 1", "--threshold 0.5")

    @property
    def overlay_folder(self) -> Path:
        """A separate folder; otherwise an overlay could have the name of another image's prediction."""
        return self.folder / "overlays"

    def prediction_of(self, image: Path) -> Path:
        return within(self.folder, f"{image.stem}.png", OUT_HINT)

    def overlay_of(self, image: Path) -> Path:
        return within(self.overlay_folder, f"{image.stem}.jpg", OUT_HINT)

    def files_of(self, image: Path) -> list[Path]:
        return [self.prediction_of(image), self.overlay_of(image)] if self.overlays else [self.prediction_of(image)]

    def make_folders(self) -> None:
        folder = self.overlay_folder if self.overlays else self.folder
        make_out_folder(folder, "--out")

    def write(self, image: Path, probability: Tensor, *, new: bool = False, note: Note = NO_NOTE) -> None:
        """Write the files of an image from its `probability` map (H, W); each file is written completely or not at all.

        `new` and `note` as in `write_image`.

        Raises DataError if the overlay cannot be drawn, UsageError if a file cannot be written.
        """
        grey = grey_prediction(probability)
        found = grey >= 255 * (THRESHOLD if self.threshold is None else self.threshold)
        grey = grey if self.threshold is None else found.astype(np.uint8) * 255
        write_image(self.prediction_of(image), grey, "--out", new=new, note=note)
        if self.overlays:
            if max(grey.shape) > _LONGEST_JPEG_SIDE:
                raise DataError(
                    f"{image} is too large for an overlay: a JPEG side has at most {_LONGEST_JPEG_SIDE} pixels"
                )
            drawn = overlay(read_image(image)[0], found)
            pixels = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
            write_image(self.overlay_of(image), pixels, "--out", new=new, note=note)
