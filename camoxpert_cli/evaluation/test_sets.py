"""Scores a checkpoint's network on test sets, with one or several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import network_of, uses_ema, validated_size
from camoxpert_cli.config.eval_options import Inference, Protocol, TestData
from camoxpert_cli.config.parse import Tta
from camoxpert_cli.data.cores import auto_workers, cores_each
from camoxpert_cli.data.dataset import ScoringImages
from camoxpert_cli.data.first_look import look_at_test_set
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.loader import scoring_loader
from camoxpert_cli.data.negatives import read_truth
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_matching_image
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.errors import DataError, UsageError, nearest, shown
from camoxpert_cli.evaluation.image import score_and_save
from camoxpert_cli.evaluation.output import Destination
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet, Shown
from camoxpert_cli.evaluation.saving import Plan, SavedSet, plan_files, score_kept
from camoxpert_cli.evaluation.score import Job, score_images
from camoxpert_cli.inference.out_folder import make_out_folder
from camoxpert_cli.inference.predictions import grey_prediction, predict_probabilities
from camoxpert_cli.inference.provenance import file_digest
from camoxpert_cli.metrics.image_scores import ImageScores
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.device import Placement, own_device, refuse_shared_gpus
from camoxpert_cli.parallel.precision import choose_dtype
from camoxpert_cli.parallel.world import World, joined

_COLLECTIVE_TIMEOUT = 1800


def evaluate_checkpoint(
    checkpoint: Path,
    data: TestData,
    inference: Inference,
    protocol: Protocol,
    placement: Placement,
    destination: Destination,
) -> Evaluation | None:
    """Score `checkpoint` on the test sets of `data`; write predictions, and check that scores can be written.

    If several processes share the work, the first returns the evaluation and the others None. Raises CamoxError.
    """
    with joined(_COLLECTIVE_TIMEOUT) as world:
        device = own_device(placement, world)
        refuse_shared_gpus(device, world)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dtype = choose_dtype(inference.precision, device)
        digest = file_digest(checkpoint) if destination.writes and world.is_main else ""
        content = read_checkpoint(checkpoint)
        is_ema = uses_ema(content, checkpoint, inference.weights)
        size = inference.img_size or validated_size(content, checkpoint)
        pairs = find_tests(data)
        about = _description(checkpoint, is_ema, size, inference, protocol)
        plan = _shared_plan(
            world, lambda: plan_files(destination, pairs, about, digest, inference.tta, [checkpoint, *data.roots])
        )
        network = network_of(content, checkpoint, is_ema).to(device)
        sets = [
            score_set(network, name, pairs[name], size, inference, protocol, device, dtype, world, plan.saved.get(name))
            for name in (pairs if plan.results is None else ())
        ]
        if not world.is_main:
            return None
    show = partial(show_image, network, pairs, size, device, dtype, inference.tta)
    return Evaluation(checkpoint.name, plan.about, sets, show, plan.results)


def find_tests(data: TestData) -> dict[str, tuple[Pair, ...]]:
    """Return the requested test sets in the order found. Raises DataError, and UsageError for an unknown name."""
    found = find_data(
        data.roots,
        folders=data.folders,
        negatives=data.negatives,
        scoring=True,
        include_noncam=data.include_noncam,
    )
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
    saved: SavedSet | None = None,
) -> ScoredSet:
    """Compute all metrics of each image of a set, on every rank; write predictions as `saved` says."""
    kept: list[int] = []
    unsaved: list[UsageError] = []
    if saved is not None:
        make_out_folder(saved.folder, "--save-predictions")
        kept = saved.kept(inference.batch_size)
    todo = sorted({*range(len(pairs))} - {*kept})
    loader = scoring_loader(
        ScoringImages([pairs[index] for index in todo], size),
        inference.batch_size,
        auto_workers(world.local_size, on_gpu=device.type == "cuda"),
        device.type == "cuda",
        world.rank,
        world.size,
    )

    def job(at: int) -> Job[ImageScores]:
        file = {} if saved is None else saved.file_of(todo[at])
        return partial(score_and_save, protocol=protocol, unsaved=unsaved, **file)

    workers = scoring_workers(world)
    with console.progress(f"Test set {name}", len(pairs)) as advance:
        old = [] if saved is None else score_kept(saved, kept, pairs, protocol, advance, world, workers)
        new = []
        if todo:
            new = score_images(
                network, loader, device, dtype, advance, world, job=job, tta=inference.tta, workers=workers
            )
    scores = [score for _, score in sorted(zip([*kept, *todo], [*old, *new], strict=True), key=lambda row: row[0])]
    problems = [problem for theirs in world.all_gather(unsaved[:1]) for problem in theirs]
    apart = protocol.empty == "apart"
    return ScoredSet(name, [pair.name for pair in pairs], scores, apart, next(iter(problems), None))


def _description(checkpoint: Path, is_ema: bool, size: int, inference: Inference, protocol: Protocol) -> dict[str, Any]:
    return {
        "checkpoint": str(checkpoint),
        "weights": "ema" if is_ema else "model",
        "img_size": size,
        "precision": inference.precision,
        "tta": {"flip": inference.tta.flip, "scales": list(inference.tta.scales)},
        "stretch": protocol.stretch,
        "empty_masks": protocol.empty,
    }


def _shared_plan(world: World, plan_here: Callable[[], Plan]) -> Plan:
    """The plan of the first process, on every rank; others may be late and find files of this very evaluation."""
    plan: Plan | UsageError | None = None
    if world.is_main:
        try:
            plan = plan_here()
        except UsageError as error:
            plan = error
    plan = world.broadcast(plan)
    if isinstance(plan, UsageError):
        raise plan
    assert plan is not None
    return plan


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
    mask = read_truth(pair) > 0
    full_size = (mask.shape[0], mask.shape[1])
    image = read_matching_image(pair.image, full_size, pair.mask, None, resized=True)
    if image.shape[:2] != full_size:
        image = np.asarray(cv2.resize(image, full_size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
    small = resize_image(read_matching_image(pair.image, full_size, pair.mask, size, resized=True), size)
    tensor = torch.from_numpy(small).permute(2, 0, 1)[None].to(device)
    return image, mask, grey_prediction(predict_probabilities(network, tensor, [full_size], dtype, tta)[0])
