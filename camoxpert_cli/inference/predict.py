"""Maps of images: one PNG an image, at its own size, 0 for background and 255 for object."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camoxpert_cli import atomic, console
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import network_of, trained_size
from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.data.image_paths import find_images
from camoxpert_cli.data.reading import read_image, within_memory
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.data.writing import is_own_image, write_image
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.inference.out_folder import make_out_folder
from camoxpert_cli.inference.overlay import overlay
from camoxpert_cli.inference.predictions import THRESHOLD, grey_prediction, predict_probabilities
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.device import choose_device
from camoxpert_cli.targets import check_targets, is_file_of, within

_LONGEST_JPEG_SIDE = 65500
_OUT_HINT = "choose another folder with --out"
_one_large_image = threading.Lock()


@dataclass(frozen=True)
class Outputs:
    """What is written of an image: `folder/<stem>.png`, and with `overlays` also `folder/overlays/<stem>.jpg`.

    The map holds grey values or, with a `threshold`, 255 where they reach `threshold` times 255 and 0 elsewhere. An
    overlay shows what reaches `threshold`, 0.5 where there is none. Raises UsageError for one that is not within 0..1.
    """

    folder: Path
    threshold: float | None = None
    overlays: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UsageError(f"--threshold is {self.threshold:g}, expected above 0 and below 1", "--threshold 0.5")

    @property
    def overlay_folder(self) -> Path:
        """A folder of its own, for otherwise an overlay could have the name of another image's map."""
        return self.folder / "overlays"

    def prediction_of(self, image: Path) -> Path:
        return within(self.folder, f"{image.stem}.png", _OUT_HINT)

    def overlay_of(self, image: Path) -> Path:
        return within(self.overlay_folder, f"{image.stem}.jpg", _OUT_HINT)

    def files_of(self, image: Path) -> list[Path]:
        return [self.prediction_of(image), self.overlay_of(image)] if self.overlays else [self.prediction_of(image)]

    def make_folders(self) -> None:
        folder = self.overlay_folder if self.overlays else self.folder
        make_out_folder(folder, "--out")

    def write(self, image: Path, probability: Tensor, *, new: bool = False) -> None:
        """Write the files of an image with the map `probability` (H, W); each is whole or not there.

        `new` where none of them was there before the work began.

        Raises DataError where the image cannot be drawn on, UsageError where a file cannot be written.
        """
        grey = grey_prediction(probability)
        found = grey >= 255 * (THRESHOLD if self.threshold is None else self.threshold)
        grey = grey if self.threshold is None else found.astype(np.uint8) * 255
        write_image(self.prediction_of(image), grey, "--out", new=new)
        if self.overlays:
            if max(grey.shape) > _LONGEST_JPEG_SIDE:
                raise DataError(f"{image} is too long for an overlay: a JPEG has {_LONGEST_JPEG_SIDE} pixels at most")
            drawn = overlay(read_image(image)[0], found)
            write_image(self.overlay_of(image), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), "--out", new=new)


def predict(
    source: Path | CamoXpert,
    paths: Sequence[Path],
    outputs: Outputs,
    *,
    device: str | None,
    img_size: int | None,
    overwrite: bool,
    tta: Tta = NO_TTA,
) -> list[Path]:
    """Write the `outputs` of every image of `paths` (files, folders and patterns); returns the maps' paths.

    `source`, `device` and `img_size` as in `ready_network`. An image that cannot be read is named and passed over;
    DataError at the end then, and before anything is computed for one of `paths` that gives no image and for two
    images whose maps would have one name.
    """
    images = _one_for_each_stem(find_images(paths))
    _check_outputs(images, outputs, overwrite, [] if isinstance(source, CamoXpert) else [source])
    network, size = ready_network(source, device, img_size)
    outputs.make_folders()

    failed = []
    mapping = probabilities(network, images, size, tta)
    with console.progress("Predicting", len(images)) as advance, closing(mapping):
        for path, probability in zip(images, mapping, strict=True):
            try:
                if isinstance(probability, DataError):
                    raise probability
                with within_memory(path):
                    outputs.write(path, probability, new=not overwrite)
            except DataError as error:
                failed.append(path)
                console.warn(error.message)
            advance(1, path.name)
    if failed:
        raise DataError(
            f"{len(failed)} of {len(images)} pictures could not be predicted, the first {failed[0]}; "
            f"the maps of the others are in {outputs.folder}",
            "mend those that the warnings name, and predict them alone",
        )
    return [outputs.prediction_of(path) for path in images]


def ready_network(source: Path | CamoXpert, device: str | None, img_size: int | None) -> tuple[CamoXpert, int]:
    """A network of a checkpoint, or the one given, and the side in pixels at which it shall see images.

    Takes the EMA of the weights where the checkpoint has one, and the size it was trained at where `img_size` is
    None. `device` is for checkpoints (None: `auto`); a network stays where it is. Raises CheckpointError, DeviceError,
    and UsageError for a network in training mode, of unknown size or with a `device` beside it.
    """
    if not isinstance(source, CamoXpert):
        where = choose_device(device or "auto")
        content = read_checkpoint(source)
        network = network_of(content, source).to(where)
        return network, img_size or trained_size(content, source)
    if device is not None:
        raise UsageError(f"a network stays where it is, and device is {device!r}", "network.to(device) moves it")
    if source.training:
        raise UsageError("the network is in training mode, in which maps depend on chance", "network.eval()")
    size = img_size or source.img_size
    if size is None:
        raise UsageError("the network does not know at which size it was trained", "give it, such as img_size=320")
    return source, size


def probabilities(
    network: CamoXpert, images: Sequence[Path | NDArray[np.uint8]], size: int, tta: Tta = NO_TTA
) -> Generator[Tensor | DataError, None, None]:
    """The map float32 (H, W) in 0..1 of each image, a file or RGB (H, W, 3), or why it cannot be read."""
    where = next(network.parameters()).device
    with closing(in_threads(partial(_read, size=size), images)) as reading:
        for source, read in zip(images, reading, strict=True):
            if isinstance(read, DataError):
                yield read
                continue
            image, full_size = read
            try:
                with within_memory(source if isinstance(source, Path) else "an image"):
                    found = predict_probabilities(network, image[None].to(where), [full_size], None, tta)
            except DataError as error:
                yield error
            else:
                yield found.pop()  # so that nothing here keeps it while the next one is computed


def _read(source: Path | NDArray[np.uint8], size: int) -> tuple[Tensor, tuple[int, int]] | DataError:
    """The image as the network sees it, uint8 (3, S, S), and its own height and width."""
    if isinstance(source, Path):
        try:
            with within_memory(source):
                image, full_size = read_image(source, size, _one_large_image)
        except DataError as error:
            return error
    else:
        image, full_size = source, (source.shape[0], source.shape[1])
    return torch.from_numpy(resize_image(image, size)).permute(2, 0, 1), full_size


def _one_for_each_stem(images: Sequence[Path]) -> list[Path]:
    """Without those that were named twice. Raises DataError where maps of different images would have one name."""
    stems: dict[str, Path] = {}
    for path in images:
        other = stems.setdefault(path.stem, path)
        if other != path and not is_file_of(other, path):
            raise DataError(
                f"{other} and {path} would both be written to {path.stem}.png", "predict them into two folders"
            )
    return list(stems.values())


def _check_outputs(images: Sequence[Path], outputs: Outputs, overwrite: bool, beside: Sequence[Path]) -> None:
    """Raise UsageError unless all files can be written, and sweep up what killed processes left of them."""
    owners = {file: image for image in images for file in outputs.files_of(image)}
    check_targets(
        [*owners],
        _OUT_HINT,
        is_ours=is_own_image,
        overwrite=overwrite,
        inputs=[*images, *beside],
        taken=lambda path: f"the map of {owners[path]} would take the place of {path}",
    )
    atomic.sweep(*owners)
