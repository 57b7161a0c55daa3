"""The Python API of camox, for notebooks and scripts: a thin layer over what the commands call.

Keyword arguments are the command line's flags with `_` for `-`; error messages name the flags.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, get_args, overload

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli import console
from camoxpert_cli.commands.training_outcome import print_outcome
from camoxpert_cli.config.eval_options import (
    EmptyMasks,
    Inference,
    Precision,
    Protocol,
    TestData,
    Weights,
    check_source,
)
from camoxpert_cli.config.parse import NO_TTA, parse_tta
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import LARGEST_SIDE, MOST_COUNTED, SETTINGS, SMALLEST_SIDE, name_of
from camoxpert_cli.errors import ConfigError, DataError, UsageError, did_you_mean, nearest, shown
from camoxpert_cli.evaluation import output
from camoxpert_cli.evaluation.results import Evaluation
from camoxpert_cli.inference import predict as engine
from camoxpert_cli.inference.outputs import Outputs
from camoxpert_cli.inference.predictions import device_of
from camoxpert_cli.launch.evaluate import evaluate as evaluate_checkpoint
from camoxpert_cli.launch.start import start
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.cuda_errors import explaining_cuda_errors
from camoxpert_cli.parallel.precision import choose_dtype
from camoxpert_cli.run_folder import RunFolder
from camoxpert_cli.user_path import user_path

PathLike: TypeAlias = str | Path
# A file, or RGB uint8 (H, W, 3).
Image: TypeAlias = str | Path | NDArray[np.uint8]
# Probability map float32 (H, W), 0 for background to 1 for object, at the image's own size.
Prediction: TypeAlias = NDArray[np.float32]
_P = TypeVar("_P", bound=Image)

_KEYS = {setting.name: setting.key for setting in SETTINGS.values()}


@overload
def predict(
    network: PathLike | CamoXpert,
    images: Image,
    *,
    tta: str | None = None,
    tiles: int | None = None,
    img_size: int | None = None,
    device: str | None = None,
    precision: Precision = "auto",
) -> Prediction: ...


@overload
def predict(
    network: PathLike | CamoXpert,
    images: list[_P] | tuple[_P, ...],
    *,
    tta: str | None = None,
    tiles: int | None = None,
    img_size: int | None = None,
    device: str | None = None,
    precision: Precision = "auto",
) -> list[Prediction]: ...


@overload
def predict(
    network: PathLike | CamoXpert,
    images: Image | list[_P] | tuple[_P, ...],
    *,
    out: PathLike,
    threshold: float | None = None,
    overlay: bool = False,
    overwrite: bool = False,
    tta: str | None = None,
    tiles: int | None = None,
    img_size: int | None = None,
    device: str | None = None,
    precision: Precision = "auto",
) -> list[Path]: ...


@explaining_cuda_errors()
def predict(
    network: PathLike | CamoXpert,
    images: Image | list[_P] | tuple[_P, ...],
    *,
    out: PathLike | None = None,
    threshold: float | None = None,
    overlay: bool = False,
    overwrite: bool = False,
    tta: str | None = None,
    tiles: int | None = None,
    img_size: int | None = None,
    device: str | None = None,
    precision: Precision = "auto",
) -> Prediction | list[Prediction] | list[Path]:
    """Predict where the objects are in an image, or in each image of a list.

    Returns a probability map, float32 (H, W) at the image's own size, or a list of them in the order of the images.

    `network` is a checkpoint, whose EMA weights are used if it has them, or a network returned by `load_model`, which
    avoids reading the file again. An image is a file or an RGB array, uint8 (H, W, 3).

    With `out`, a folder, images may also be folders and patterns. Predictions are then written there as by
    `camox predict`, with `threshold`, `overlay` and `overwrite` as its flags, and their paths are returned.

    `tta` is "flip", "scales" or "flip,scales". `img_size` is the input size in pixels per side; as in validation if not
    given. An image with a side of more than `tiles` pixels is predicted in overlapping tiles of that side, for objects
    that are small in a large image. `device`, for a checkpoint, is "auto", "cuda" or "cpu". `precision` is "auto",
    which is half precision on GPUs, "fp32", "fp16" or "bf16". Raises CamoxError; DataError for a bad image.
    """
    many = isinstance(images, list | tuple)
    asked = [_image(each) for each in (images if isinstance(images, list | tuple) else [images])]
    _within("img_size", img_size, SMALLEST_SIDE, LARGEST_SIDE)
    _within("tiles", tiles, SMALLEST_SIDE, MOST_COUNTED)
    _one_of("precision", precision, get_args(Precision))
    source = network if isinstance(network, CamoXpert) else _as_path(network)
    views = NO_TTA if tta is None else parse_tta(tta)
    if out is not None:
        paths = [each for each in asked if isinstance(each, Path)]
        if len(paths) < len(asked):
            raise UsageError("an array has no file name for its prediction", "pass paths, or omit out=")
        outputs = Outputs(_as_path(out), threshold, overlay)
        return engine.predict(
            source,
            paths,
            outputs,
            device=device,
            img_size=img_size,
            overwrite=overwrite,
            tta=views,
            tiles=tiles,
            precision=precision,
        )
    if threshold is not None or overlay or overwrite:
        raise UsageError(
            "threshold, overlay and overwrite apply to written files, but out= is missing",
            "pass out=FOLDER, or threshold the prediction: predict(...) >= 0.5",
        )
    folder = next((each for each in asked if isinstance(each, Path) and each.is_dir()), None)
    if folder is not None:
        raise DataError(f"{folder} is a folder, expected an image", f"sorted(Path({str(folder)!r}).glob('*.jpg'))")
    ready, size = engine.ready_network(source, device, img_size)
    found = []
    dtype = choose_dtype(precision, device_of(ready))
    with (
        console.progress("Predicting", len(asked)) as advance,
        closing(
            engine.probabilities(ready, asked, size, views, dtype=dtype, tiles=tiles, tell=partial(advance, 0))
        ) as mapping,
    ):
        for probability in mapping:
            if isinstance(probability, DataError):
                raise probability
            found.append(probability.cpu().numpy())
            advance(1, "")
    return found if many else found[0]


@explaining_cuda_errors()
def evaluate(
    checkpoint: PathLike,
    *,
    dataset_path: PathLike | Sequence[PathLike] = (),
    images: PathLike | None = None,
    masks: PathLike | None = None,
    sets: Sequence[str] = (),
    negatives: PathLike | Sequence[PathLike] = (),
    include_noncam: bool = False,
    weights: Weights | None = None,
    img_size: int | None = None,
    batch_size: int = 8,
    precision: Precision = "fp32",
    tta: str | None = None,
    stretch: bool = True,
    empty_masks: EmptyMasks = "apart",
    device: str = "auto",
    out: PathLike | None = None,
    save_predictions: PathLike | None = None,
    overwrite: bool = False,
) -> Evaluation:
    """Score a checkpoint with the metrics reported in papers, on one device.

    Scores the test sets in `dataset_path`, one folder or several: all of them, or those named in `sets`. Alternatively,
    scores the images in the folder `images` against the masks in `masks`. `negatives` are folders of images without an
    object, for false alarms. Each of the `sets` of the result has its
    `name`, the `means` of all metrics and the `scores` of each image; `to_json()` returns what `camox eval --json`
    prints. `out` is a folder for results.json, per_image.csv and report.html, `save_predictions` one for the
    predictions. Raises CamoxError.
    """
    roots, folder = _paths(dataset_path), _path(out)
    own_images, own_masks = _path(images), _path(masks)
    file = _as_path(checkpoint)
    own_negatives = _paths(negatives)
    check_source(file, None, roots, own_images, own_masks, own_negatives)
    _one_of("weights", weights, (*get_args(Weights), None))
    _one_of("precision", precision, get_args(Precision))
    _one_of("empty_masks", empty_masks, get_args(EmptyMasks))
    _within("img_size", img_size, SMALLEST_SIDE, LARGEST_SIDE)
    _within("batch_size", batch_size, 1, MOST_COUNTED)
    inference = Inference(img_size, batch_size, precision, NO_TTA if tta is None else parse_tta(tta), weights)
    run = resolve(None, {"run.device": device}).config.run
    if folder is not None:
        output.refuse_overwriting(folder, overwrite, [file, *roots])
    folders = [] if own_images is None or own_masks is None else [(own_images, own_masks)]
    names = [sets] if isinstance(sets, str) else sets
    evaluation = evaluate_checkpoint(
        file,
        TestData(roots, folders, names, include_noncam, own_negatives),
        inference,
        Protocol(stretch, empty_masks),
        run,
        output.Destination(folder, _path(save_predictions), overwrite),
        command=(),
    )
    assert evaluation is not None  # a single device is evaluated in this process
    if folder is not None:
        output.refuse_overwriting(folder, overwrite)  # once more: another process may have written there since
        output.write_evaluation(folder, evaluation)
    evaluation.require_saved()
    return evaluation


@explaining_cuda_errors()
def train(preset: PathLike | None = None, **settings: Any) -> RunFolder:
    """Train with a preset, by name or path, and any settings of `camox train --help`: `epochs=40`, `gpus=2`.

    With `continue_=True`, a run that this call has started in `checkpoint_dir` before is resumed, or left alone if it
    is complete.

    `dataset_path`, `images` and `masks` accept a path or a list of paths. Blocks until the run ends and returns its run
    folder, whose attributes `path`, `best` (weights), `results` (scores, unless a time limit stopped the run), `report`
    and others are paths. Several GPUs run in separate processes, which do not need the caller's script to be
    importable. Time limits count from the call. Raises CamoxError; ConfigError lists every mistake in the settings.
    """
    name = None if preset is None else str(preset)
    given = _known(settings)
    outcome = start(resolve(name, given), began=time.monotonic())
    with suppress(console.NotTold):
        print_outcome(outcome)
    return outcome.folder


def _image(image: object) -> Path | NDArray[np.uint8]:
    if isinstance(image, str | Path):
        return _as_path(image)
    if not isinstance(image, np.ndarray):
        raise UsageError(
            f"an image has type {type(image).__name__}, expected a path or a numpy array",
            "numpy.asarray(image.convert('RGB')) for a PIL image",
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"an image array has dtype {image.dtype} and shape {image.shape}, expected RGB, uint8 of shape (H, W, 3)",
            "cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) or similar",
        )
    return image


def _as_path(given: PathLike) -> Path:
    try:
        return user_path(given)
    except ValueError as error:
        raise UsageError(f"{shown(str(given))} is not a valid path: {error}", "check it for typos") from error


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else _as_path(given)


def _paths(given: PathLike | Sequence[PathLike]) -> list[Path]:
    return [_as_path(given)] if isinstance(given, str | Path) else [_as_path(each) for each in given]


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings by their dotted keys; an empty list counts as not given. Raises ConfigError for unknown names.

    A trailing underscore is ignored: `continue_`.
    """
    settings = {name_of(name): value for name, value in settings.items()}
    unknown = settings.keys() - _KEYS.keys()
    problems = [f"unknown setting {name}{did_you_mean(nearest(name, _KEYS))}" for name in unknown]
    if problems:
        raise ConfigError("\n".join(sorted(problems)), "camox train --help")
    return {_KEYS[name]: value for name, value in settings.items() if value not in ([], ())}


def _one_of(name: str, value: object, known: Sequence[object]) -> None:
    if value not in known:
        raise UsageError(f"{name} is {value!r}, expected one of {', '.join(map(repr, known))}")


def _within(name: str, value: int | None, low: int, high: int) -> None:
    if value is not None and (not isinstance(value, int) or not low <= value <= high):
        raise UsageError(f"{name} is {shown(value)}, expected an integer from {low} to {high}")
