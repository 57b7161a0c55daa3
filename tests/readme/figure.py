"""Draw the figure at the top of the README from a run of `camox train --preset quickstart`.

    python tests/readme/figure.py RUN

Writes quickstart.png next to this file: one column for each of `COLUMNS` held-out images, with the image, its ground
truth and the prediction of the run's best weights. They are evenly spaced by IoU, from the worst to the best, and not
cherry-picked.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.inference.outputs import Outputs
from camoxpert_cli.inference.predict import predict

COLUMNS = 6
TARGET = Path(__file__).with_name("quickstart.png")
_SIDE, _GAP = 128, 6
_WHITE = 255


def evenly_spaced(names: list[str], count: int) -> list[str]:
    """Return `count` (2 or more) evenly spaced items of `names`, including the first and the last."""
    return [names[round(step * (len(names) - 1) / (count - 1))] for step in range(count)]


def ranked(per_image: Path) -> list[str]:
    """Return the names of the validation images in a run's per_image.csv, worst IoU first."""
    with per_image.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "validation"]
    return [row["name"] for row in sorted(rows, key=lambda row: (float(row["iou"]), row["name"]))]


def draw(columns: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Return a page of images, uint8 (h, w, 3), one list per column, enlarged to `_SIDE` pixels without smoothing."""
    height, width = (count * (_SIDE + _GAP) - _GAP for count in (len(columns[0]), len(columns)))
    page = np.full((height, width, 3), _WHITE, np.uint8)
    for x, column in enumerate(columns):
        for y, image in enumerate(column):
            top, left = y * (_SIDE + _GAP), x * (_SIDE + _GAP)
            large = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
            page[top : top + _SIDE, left : left + _SIDE] = large
    return page


def main(run: Path) -> None:
    test = run / "dataset" / "TestDataset" / "synthetic"
    names = evenly_spaced(ranked(run / "per_image.csv"), COLUMNS)
    images = [next((test / "Imgs").glob(f"{name}.*")) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        predict(run / "best_model.pth", images, Outputs(Path(folder)), device="cpu", img_size=None, overwrite=False)
        columns = [
            [_read(image), _read(test / "GT" / f"{image.stem}.png"), _read(Path(folder) / f"{image.stem}.png")]
            for image in images
        ]
    cv2.imwrite(str(TARGET), draw(columns), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


def _read(path: Path) -> NDArray[np.uint8]:
    source = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if source is None:
        raise SystemExit(f"{path} cannot be read")
    return np.asarray(source, dtype=np.uint8)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
