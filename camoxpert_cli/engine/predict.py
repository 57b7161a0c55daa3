"""Grey maps of pictures: one PNG a picture, at its own size, 0 for background and 255 for object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from camoxpert_cli import console
from camoxpert_cli.data.layouts import PICTURE_SUFFIXES
from camoxpert_cli.data.reading import read_image
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.engine.checkpoint import read_checkpoint
from camoxpert_cli.engine.device import choose_device
from camoxpert_cli.engine.load import network_of
from camoxpert_cli.engine.maps import grey_map, probability_maps
from camoxpert_cli.errors import CheckpointError, DataError, UsageError


def predict(
    checkpoint: Path, paths: Sequence[Path], out: Path, *, device: str, img_size: int | None, overwrite: bool
) -> int:
    """Write `out/<stem>.png` for every picture of `paths` (files and folders); returns how many.

    Takes the average of the weights where the checkpoint has one, and the size it was trained at where `img_size` is
    None. A picture that cannot be read is named and passed over; DataError at the end then, and for no picture at all.
    """
    pictures = _pictures(paths)
    _refuse_overwriting(pictures, out, overwrite)
    where = choose_device(device)
    content = read_checkpoint(checkpoint)
    network = network_of(content, checkpoint).to(where)
    size = img_size or _trained_size(content, checkpoint)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{out} cannot be made a folder: {error.strerror}", "choose another folder with --out"
        ) from error

    unreadable = []
    with console.progress("Predicting", len(pictures)) as advance:
        for path in pictures:
            try:
                image, full_size = read_image(path, size)
            except DataError as error:
                unreadable.append(path)
                console.warn(error.message)
            else:
                tensor = torch.from_numpy(resize_image(image, size)).permute(2, 0, 1)[None].to(where)
                probability = probability_maps(network, tensor, [full_size], dtype=None)[0]
                _write_map(out / f"{path.stem}.png", grey_map(probability))
            advance(1, path.name)
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of {len(pictures)} pictures could not be read, the first {unreadable[0]}; "
            f"the maps of the others are in {out}"
        )
    return len(pictures)


def _pictures(paths: Sequence[Path]) -> list[Path]:
    pictures: list[Path] = []
    for path in paths:
        if path.is_dir():
            shown = (entry for entry in path.iterdir() if not entry.name.startswith("."))  # macOS adds ._NAME.jpg
            pictures += sorted(entry for entry in shown if entry.suffix.lower() in PICTURE_SUFFIXES)
        elif path.is_file():
            pictures.append(path)
        else:
            raise DataError(
                f"there is no picture or folder {path}", "camox predict CHECKPOINT PICTURE_OR_FOLDER... --out DIR"
            )
    if not pictures:
        raise DataError(f"no pictures in {', '.join(map(str, paths))}", "give picture files or folders of pictures")
    stems: dict[str, Path] = {}
    for path in pictures:
        other = stems.setdefault(path.stem, path)
        if other != path:
            raise DataError(
                f"{other} and {path} would both be written to {path.stem}.png", "predict them into two folders"
            )
    return pictures


def _refuse_overwriting(pictures: Sequence[Path], out: Path, overwrite: bool) -> None:
    originals = {path.resolve() for path in pictures}
    for path in pictures:
        target = (out / f"{path.stem}.png").resolve()
        if target in originals:
            raise UsageError(f"the map of {path} would take the place of {target}", "choose another folder with --out")
        if target.exists() and not overwrite:
            raise UsageError(
                f"the map of {path} would take the place of {target}",
                "choose another folder with --out, or --overwrite where that is meant",
            )


def _write_map(path: Path, grey: NDArray[np.uint8]) -> None:
    try:
        path.write_bytes(cv2.imencode(".png", grey)[1].tobytes())  # cv2.imwrite is silent about a full disk
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "choose another folder with --out") from error


def _trained_size(content: dict[str, object], checkpoint: Path) -> int:
    settings = content.get("config", {"data": content.get("args", {})})
    size = settings.get("data", {}).get("img_size") if isinstance(settings, dict) else None
    if not isinstance(size, int):
        raise CheckpointError(f"{checkpoint} does not say at which size it was trained", "give it with --img-size")
    return size
