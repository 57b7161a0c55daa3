"""Generated images without an object."""

from __future__ import annotations

from pathlib import Path

from camoxpert_cli.data.synthetic import Split, generate_image
from tests.helpers.image_files import write


def write_negatives(folder: Path, count: int, split: Split = "train", size: int = 64) -> Path:
    """Write that many images n00.png, ... of one texture each; returns the folder."""
    for index in range(count):
        write(folder / f"n{index:02d}.png", generate_image(0, index, split, size, with_object=False)[0])
    return folder
