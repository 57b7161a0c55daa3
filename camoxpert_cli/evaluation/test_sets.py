"""Scores a checkpoint's network on test sets, with one or several processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from camoxpert_cli import atomic, console
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import network_of, trained_size, uses_ema
from camoxpert_cli.config.eval_options import Inference, Protocol, TestData
from camoxpert_cli.config.parse import Tta
from camoxpert_cli.data.cores import auto_workers, cores_each
from camoxpert_cli.data.dataset import ScoringImages
from camoxpert_cli.data.first_look import look_at_test_set
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.loader import scoring_loader
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_matching_image, read_scored_mask
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.data.writing import is_own_image
from camoxpert_cli.errors import DataError, UsageError, nearest, shown
from camoxpert_cli.evaluation.image import score_and_save
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet, Shown
from camoxpert_cli.evaluation.score import score_images
from camoxpert_cli.inference.out_folder import make_out_folder
from camoxpert_cli.inference.predictions import grey_prediction, predict_probabilities
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.device import Placement, own_device, refuse_shared_gpus
from camoxpert_cli.parallel.precision import choose_dtype
from camoxpert_cli.parallel.world import World, joined
from camoxpert_cli.targets import check_targets, within

_COLLECTIVE_TIMEOUT = 1800
_HINT = "choose another folder with --save-predictions"


def evaluate_checkpoint(
    checkpoint: Path,
    data: TestData,
    inference: Inference,
    protocol: Protocol,
    placement: Placement,
    *,
    save_predictions: Path | None,
    overwrite: bool = False,
    beside: Sequence[Path] = (),
) -> Evaluation | None:
    """Score `checkpoint` on the test sets of `data`.

    If several processes share the work, the first returns the evaluation and the others None. With `overwrite`,
    predictions that camox wrote to `save_predictions` before are replaced; `beside` lists other files that will be
    written. Raises CamoxError.
    """
    with joined(_COLLECTIVE_TIMEOUT) as world:
        device = own_device(placement, world)
        refuse_shared_gpus(device, world)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dtype = choose_dtype(inference.precision, device)
        content = read_checkpoint(checkpoint)
        network = network_of(content, checkpoint, uses_ema(content, checkpoint, inference.weights)).to(device)
        size = inference.img_size or trained_size(content, checkpoint)
        pairs = find_tests(data)
        if save_predictions is not None:
            inputs = [checkpoint, *data.roots, *(file for each in pairs.values() for file in _files(each))]
            refusal = _refusal(save_predictions, pairs, inputs, overwrite, beside) if world.is_main else None
            # Only one process checks: the others may be late and find predictions of this very evaluation.
            if (problem := world.broadcast(refusal)) is not None:
                raise problem
        sets = [
            score_set(
                network, name, pairs[name], size, inference, protocol, device, dtype, world, save_predictions, overwrite
            )
            for name in pairs
        ]
        if not world.is_main:
            return None
    about = {
        "checkpoint": str(checkpoint),
        "img_size": size,
        "precision": inference.precision,
        "tta": {"flip": inference.tta.flip, "scales": list(inference.tta.scales)},
        "stretch": protocol.stretch,
        "empty_masks": protocol.empty,
    }
    show = partial(show_image, network, pairs, size, device, dtype, inference.tta)
    return Evaluation(checkpoint.name, about, sets, show)


def find_tests(data: TestData) -> dict[str, tuple[Pair, ...]]:
    """Return the requested test sets in the order found. Raises DataError, and UsageError for an unknown name."""
    found = find_data(data.roots, folders=data.folders, scoring=True, include_noncam=data.include_noncam)
    console.say(console.filled(f"Data: {found.description}", indent=6))
    if not found.tests:
        where = ", ".join(map(str, [*data.roots, *(images for images, _ in data.folders)]))
        raise DataError(
            f"{where} contains only training images", "pass the folder of a test set, or use --images DIR --masks DIR"
        )
    unknown = [name for name in data.names if name not in found.tests]
    if unknown:
        known = (nearest(unknown[0], found.tests) or list(found.tests))[0]
        raise UsageError(
            f"unknown test set {shown(unknown[0])}, expected one of {', '.join(found.tests)}", f"--set {known}"
        )
    chosen = {name: pairs for name, pairs in found.tests.items() if not data.names or name in data.names}
    for name, pairs in chosen.items():
        look_at_test_set(name, pairs)
    return chosen


def score_set(
    network: CamoXpert,
    name: str,
    pairs: Sequence[Pair],
    size: int,
    inference: Inference,
    protocol: Protocol,
    device: torch.device,
    dtype: torch.dtype | None,
    world: World,
    save_predictions: Path | None = None,
    overwrite: bool = False,
) -> ScoredSet:
    """Compute all metrics of each image of a set, on every rank; write predictions to `save_predictions`/NAME."""
    folder = None if save_predictions is None else _folder_of(save_predictions, name)
    unsaved: list[UsageError] = []
    if folder is not None:
        make_out_folder(folder, "--save-predictions")
    loader = scoring_loader(
        ScoringImages(pairs, size),
        inference.batch_size,
        auto_workers(world.local_size),
        device.type == "cuda",
        world.rank,
        world.size,
    )
    with console.progress(f"Test set {name}", len(pairs)) as advance:
        scores = score_images(
            network,
            loader,
            device,
            dtype,
            advance,
            world,
            job=lambda index: partial(
                score_and_save,
                protocol=protocol,
                save_as=None if folder is None else _prediction_of(folder, pairs[index]),
                unsaved=unsaved,
                new=not overwrite,
            ),
            tta=inference.tta,
            workers=scoring_workers(world),
        )
    problems = [problem for theirs in world.all_gather(unsaved[:1]) for problem in theirs]
    return ScoredSet(name, [pair.name for pair in pairs], scores, next(iter(problems), None))


def _folder_of(save_predictions: Path, name: str) -> Path:
    """The folder for the predictions of a test set, whose name is empty if its folders are directly below the root."""
    return within(save_predictions, name, _HINT) if name else save_predictions


def _prediction_of(folder: Path, pair: Pair) -> Path:
    return within(folder, f"{pair.name}.png", _HINT)


def _files(pairs: Sequence[Pair]) -> Iterator[Path]:
    return (file for pair in pairs for file in (pair.image, pair.mask))


def _refusal(
    save_predictions: Path,
    tests: Mapping[str, Sequence[Pair]],
    inputs: Iterable[Path],
    overwrite: bool,
    beside: Iterable[Path],
) -> UsageError | None:
    """Why the predictions of all test sets cannot be written; otherwise remove temporary files of killed processes."""
    try:
        predictions = [
            _prediction_of(_folder_of(save_predictions, name), pair) for name in tests for pair in tests[name]
        ]
        check_targets(predictions, _HINT, is_ours=is_own_image, overwrite=overwrite, inputs=inputs, beside=beside)
    except UsageError as error:
        return error
    atomic.sweep(*predictions)
    return None


def scoring_workers(world: World) -> int:
    """Return the number of scoring threads next to the one that runs the network; 0 if that one has the only core."""
    return cores_each(world.local_size) - 1


def show_image(
    network: CamoXpert,
    tests: Mapping[str, Sequence[Pair]],
    size: int,
    device: torch.device,
    dtype: torch.dtype | None,
    tta: Tta,
    name: str,
    index: int,
) -> Shown:
    """Return image `index` of test set `name`, its mask and the network's prediction, all at the mask's size."""
    pair = tests[name][index]
    mask = read_scored_mask(pair.mask) > 0
    full_size = (mask.shape[0], mask.shape[1])
    image = read_matching_image(pair.image, full_size, pair.mask, None, resized=True)
    if image.shape[:2] != full_size:
        image = np.asarray(cv2.resize(image, full_size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
    small = resize_image(read_matching_image(pair.image, full_size, pair.mask, size, resized=True), size)
    tensor = torch.from_numpy(small).permute(2, 0, 1)[None].to(device)
    return image, mask, grey_prediction(predict_probabilities(network, tensor, [full_size], dtype, tta)[0])
