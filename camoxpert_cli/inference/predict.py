"""Writes predictions: one PNG per image, at the image's size, 0 for background and 255 for object."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camoxpert_cli import atomic, console
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import network_of, validated_size
from camoxpert_cli.config.eval_options import Precision
from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.data.image_paths import find_images
from camoxpert_cli.data.reading import read_image, read_size, within_memory
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.data.writing import NO_NOTE, is_own_image
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.inference.batches import batches, to_compute
from camoxpert_cli.inference.outputs import OUT_HINT, Outputs
from camoxpert_cli.inference.predictions import as_input, device_of, logits_of_views, probability_of
from camoxpert_cli.inference.provenance import Earlier, Settings, file_digest, find_earlier, settings_of
from camoxpert_cli.inference.tiles import tiled_probability
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.device import choose_device
from camoxpert_cli.parallel.precision import choose_dtype
from camoxpert_cli.targets import check_targets, is_file_of

_Source: TypeAlias = Path | NDArray[np.uint8]
# An image at the network's input size, uint8 (3, S, S), and its original height and width.
_Read: TypeAlias = tuple[Tensor, tuple[int, int]]

_one_large_image = threading.Lock()


def predict(
    source: Path | CamoXpert,
    paths: Sequence[Path],
    outputs: Outputs,
    *,
    device: str | None,
    img_size: int | None,
    overwrite: bool,
    tta: Tta = NO_TTA,
    tiles: int | None = None,
    keep: bool = False,
    precision: Precision = "auto",
) -> list[Path]:
    """Write the `outputs` of every image in `paths` (files, folders and patterns); return the predictions' paths.

    `source`, `device` and `img_size` as in `ready_network`, `precision` as in `choose_dtype`, `tiles` as in
    `probabilities`. Images that cannot be read are reported and skipped, and DataError is raised at the end. DataError
    is also raised before anything is computed if any of `paths` yields no image or the predictions of two images would
    have the same name. With `keep`, images whose files are there, made from the same image, checkpoint and options, are
    skipped; UsageError is raised if files are from others, unless `overwrite`.
    """
    images = _one_for_each_stem(find_images(paths))
    _check_outputs(images, outputs, overwrite or keep, [] if isinstance(source, CamoXpert) else [source])
    checkpoint = "" if isinstance(source, CamoXpert) else file_digest(source)
    network, size = ready_network(source, device, img_size)
    dtype = choose_dtype(precision, device_of(network))
    options = {"img_size": size, "precision": precision, "threshold": outputs.threshold, "tiles": tiles}
    settings = settings_of("camox predict", checkpoint, tta, **options)
    earlier = _find_earlier(images, outputs, settings, overwrite) if keep else Earlier()
    kept = {image for image in images if earlier.kept.issuperset(outputs.files_of(image))}
    if kept:
        console.say(f"Kept {len(kept)} of {console.counted(len(images), 'prediction')} in {outputs.folder}")
    todo = to_compute(images, kept, size, device_of(network))
    folders = [outputs.overlay_folder, outputs.folder, *outputs.folder.parents]
    new_folders = [each for each in folders if not each.exists()]
    outputs.make_folders()

    failed = []
    digests: dict[Path, str] | None = {} if checkpoint else None
    missing = [image for image in todo if image not in kept]
    with (
        console.progress("Predicting", len(missing)) as advance,
        closing(
            probabilities(network, todo, size, tta, digests, dtype, tiles=tiles, kept=kept, tell=partial(advance, 0))
        ) as predictions,
    ):
        for path, probability in zip(missing, predictions, strict=True):
            try:
                if isinstance(probability, DataError):
                    raise probability
                new = not overwrite and earlier.outdated.isdisjoint(outputs.files_of(path))
                note = NO_NOTE if digests is None else {**settings, "image": digests.pop(path)}
                with within_memory(path):
                    outputs.write(path, probability, new=new, note=note)
            except DataError as error:
                failed.append(path)
                console.warn(error.message)
            advance(1, path.name)
    if len(failed) == len(images):
        for folder in new_folders:
            with suppress(OSError):  # not created, or something else was written there
                folder.rmdir()
    if failed:
        hint = "fix the images named in the warnings and run camox predict on them again"
        if len(images) == 1:
            raise DataError(f"prediction failed for {failed[0]}", "fix the image and run camox predict again")
        if len(failed) == len(images):
            raise DataError(f"prediction failed for all {len(images)} images, the first is {failed[0]}", hint)
        raise DataError(
            f"prediction failed for {len(failed)} of {len(images)} images, the first is {failed[0]}; "
            f"the predictions of the others are in {outputs.folder}",
            hint,
        )
    return [outputs.prediction_of(path) for path in images]


def ready_network(source: Path | CamoXpert, device: str | None, img_size: int | None) -> tuple[CamoXpert, int]:
    """Return the network of a checkpoint, or the given network, and its square input size in pixels.

    Uses the EMA weights if the checkpoint has any, and the size used in validation if `img_size` is None. `device` is
    only for checkpoints (None: `auto`); a network stays on its device. Raises CheckpointError, DeviceError, and
    UsageError for a network in training mode, of unknown size or together with a `device`.
    """
    if not isinstance(source, CamoXpert):
        where = choose_device(device or "auto")
        content = read_checkpoint(source)
        network = network_of(content, source).to(where)
        return network, img_size or validated_size(content, source)
    if device is not None:
        raise UsageError(
            f"device is {device!r}, but a network stays on its device",
            "omit device, and move the network with network.to(device)",
        )
    if source.training:
        raise UsageError("the network is in training mode, in which predictions are random", "network.eval()")
    size = img_size or source.img_size
    if size is None:
        raise UsageError("the network's training image size is unknown", "pass the size, for example img_size=320")
    return source, size


def probabilities(
    network: CamoXpert,
    images: Sequence[_Source],
    size: int,
    tta: Tta = NO_TTA,
    digests: dict[Path, str] | None = None,
    dtype: torch.dtype | None = None,
    *,
    tiles: int | None = None,
    kept: Collection[Path] = (),
    tell: Callable[[str], None] = lambda note: None,
) -> Generator[Tensor | DataError, None, None]:
    """Yield the probability map of each image, float32 (H, W) in 0..1, or the error if the image cannot be read.

    An image is a file or an RGB array (H, W, 3). The digest of each file is added to `digests`. `dtype` is the autocast
    dtype; None computes in float32. The network runs on batches, and each prediction is resized when it is yielded.

    An image with a side of more than `tiles` pixels is instead read and computed by `tiled_probability` when its turn
    comes, and `tell` is called with a note on its progress. Images of `kept` are read, since their batches are computed
    as a whole, but not yielded.
    """
    where = device_of(network)

    def by_tiles(source: _Source) -> Tensor:
        assert tiles is not None
        image = read_image(source, None, _one_large_image)[0] if isinstance(source, Path) else source
        name = source.name if isinstance(source, Path) else "an image"
        return tiled_probability(
            network, image, size, tiles, dtype, tta, lambda done, total: tell(f"{name}, {done} of {total} tiles")
        )

    with closing(in_threads(partial(_read, size=size, tiles=tiles, digests=digests), images)) as reading:
        for batch in batches(images, size, where):
            read = list(zip(batch, itertools.islice(reading, len(batch)), strict=True))
            yield from _of_batch(network, read, dtype, tta, kept, by_tiles)


def _of_batch(
    network: CamoXpert,
    read: Sequence[tuple[_Source, _Read | DataError | None]],
    dtype: torch.dtype | None,
    tta: Tta,
    kept: Collection[Path],
    by_tiles: Callable[[_Source], Tensor],
) -> Generator[Tensor | DataError, None, None]:
    """Yield what `probabilities` does; images that together need too much memory are computed one by one."""
    images = [each[0] for _, each in read if isinstance(each, tuple)]
    views: list[Tensor] = []
    try:
        with within_memory(_name(read[0][0])):
            if images:
                views = logits_of_views(network, torch.stack(images).to(device_of(network)), dtype, tta)
    except DataError as error:
        if len(read) > 1:
            for alone in read:
                yield from _of_batch(network, [alone], dtype, tta, kept, by_tiles)
            return
        read = [(read[0][0], error)]
    index = -1
    for source, each in read:
        index += isinstance(each, tuple)
        if source in kept:
            continue
        if isinstance(each, DataError):
            yield each
            continue
        found = []
        try:
            with within_memory(_name(source)):
                found = [by_tiles(source) if each is None else probability_of(views, index, each[1])]
        except DataError as error:
            yield error
        else:
            yield found.pop()  # so that nothing here references it while the next one is computed


def _name(source: _Source) -> Path | str:
    return source if isinstance(source, Path) else "an image"


def _read(source: _Source, size: int, tiles: int | None, digests: dict[Path, str] | None) -> _Read | DataError | None:
    """The image at the network's input size and its original height and width; None if it needs `tiles`."""
    if digests is not None and isinstance(source, Path):
        digests[source] = file_digest(source)
    try:
        with within_memory(_name(source)):
            if tiles is not None and max(read_size(source) if isinstance(source, Path) else source.shape[:2]) > tiles:
                return None
            if isinstance(source, Path):
                image, full_size = read_image(source, size, _one_large_image)
            else:
                image, full_size = source, (source.shape[0], source.shape[1])
    except DataError as error:
        return error
    return as_input(image, size), full_size


def _one_for_each_stem(images: Sequence[Path]) -> list[Path]:
    """Drop repeated paths. Raises DataError if predictions of different images would have the same name."""
    stems: dict[str, Path] = {}
    for path in images:
        other = stems.setdefault(path.stem, path)
        if other != path and not is_file_of(other, path):
            raise DataError(
                f"the predictions of {other} and {path} would both be {path.stem}.png",
                "use a separate output folder for each",
            )
    return list(stems.values())


def _check_outputs(images: Sequence[Path], outputs: Outputs, overwrite: bool, beside: Sequence[Path]) -> None:
    """Raise UsageError unless all files can be written, and remove temporary files of killed processes."""
    owners = {file: image for image in images for file in outputs.files_of(image)}
    check_targets(
        [*owners],
        OUT_HINT,
        is_ours=is_own_image,
        overwrite=overwrite,
        inputs=[*images, *beside],
        taken=lambda path: f"the prediction of {owners[path]} would overwrite {path}",
    )
    atomic.sweep(*owners)


def _find_earlier(images: Sequence[Path], outputs: Outputs, settings: Settings, overwrite: bool) -> Earlier:
    """The files that an earlier command made for `images`; raises UsageError as `find_earlier` does."""
    there = [image for image in images if any(file.exists() for file in outputs.files_of(image))]
    digests = dict(zip(there, in_threads(file_digest, there), strict=True))
    files = {file: {"image": digests[image]} for image in there for file in outputs.files_of(image)}
    return find_earlier(files, settings, outputs.folder, overwrite=overwrite, hint=OUT_HINT)
