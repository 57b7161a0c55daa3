from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.data.dataset import ScoringBatch, ScoringImages
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.loader import scoring_loader
from camoxpert_cli.data.reading import read_mask
from camoxpert_cli.errors import DataError
from camoxpert_cli.evaluation.score import Job, Scoring
from camoxpert_cli.inference.predictions import predict_probabilities
from camoxpert_cli.metrics.score_set import SetScores
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World
from tests.helpers.scoring import Logits, RedIsObject, evaluate
from tests.helpers.thread_ranks import outcomes_in_threads
from tests.helpers.tiny_data import TEST_SET

CPU = torch.device("cpu")
SIDE = 8


def image_of(*columns: int) -> Tensor:
    """uint8 (3, S, S) whose red is one value in each of equally wide columns."""
    image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    image[0] = torch.tensor(columns, dtype=torch.uint8).repeat_interleave(SIDE // len(columns))
    return image


def batches(images: list[Tensor], masks: list[Tensor], size: int) -> list[ScoringBatch]:
    ends = [(at, min(at + size, len(images))) for at in range(0, len(images), size)]
    return [(torch.stack(images[at:end]), masks[at:end], torch.arange(at, end)) for at, end in ends]


def score(network: nn.Module, items: Any) -> SetScores:
    return evaluate(network, items)  # type: ignore[arg-type]


IMAGES = [image_of(255, 0), image_of(255, 255), image_of(0, 0), image_of(255, 0)]
LEFT, WHOLE = torch.zeros(1, 6, 10, dtype=torch.uint8), torch.ones(1, 9, 4, dtype=torch.uint8)
LEFT[..., :5] = 1
MASKS = [LEFT, WHOLE, WHOLE, LEFT]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_mean_over_images(size: int) -> None:
    """Each image counts the same, at its mask's own size, however they come in batches: right, right, wrong, right.

    A mean over batches of 3 and 1 would be 5/6.
    """
    scores = score(RedIsObject(), batches(IMAGES, MASKS, size))

    assert scores.images == 4
    assert scores.iou == pytest.approx(0.75)
    assert scores.dice == pytest.approx(0.75)


def test_scores_of_one_image() -> None:
    """IoU and Dice of the map at 0.5 against half an image, and the mean distance of the map itself."""
    scores = score(RedIsObject(), batches([image_of(255, 255)], [LEFT], 1))
    certain = round(torch.tensor(5.0).sigmoid().item() * 255) / 255

    assert scores.iou == pytest.approx(1 / 2)
    assert scores.dice == pytest.approx(2 / 3)
    assert scores.mae == pytest.approx((certain + (1 - certain)) / 2)


def test_threshold_is_inclusive() -> None:
    """A probability of exactly one half is an object: it is written as 128, which is above 127."""

    class Undecided(RedIsObject):
        def forward(self, images: Tensor) -> Logits:
            return Logits(torch.zeros(len(images), 1, SIDE, SIDE))

    assert score(Undecided(), batches([image_of(0)], [WHOLE], 1)).iou == 1.0


@pytest.fixture(scope="module")
def network() -> CamoXpert:
    torch.manual_seed(0)
    return CamoXpert(create_backbone("test_resnet"), "test_resnet", 3).eval()


def test_batches_change_nothing(tiny_data: Path, network: CamoXpert) -> None:
    """Test images score the same one by one and in one batch, up to rounding in the network (measured: 6e-8)."""
    dataset = ScoringImages(find_data([tiny_data]).tests[TEST_SET], 64)
    one_by_one = score(network, scoring_loader(dataset, 1, 0))
    together = score(network, scoring_loader(dataset, len(dataset), 0))

    assert together.images == one_by_one.images == len(dataset)
    assert together.mae == pytest.approx(one_by_one.mae, abs=1e-6)
    assert together.iou == one_by_one.iou


def test_masks_are_not_resized(tiny_data: Path, network: CamoXpert) -> None:
    """What is scored is the mask of the file, pixel by pixel: the scores are those computed by hand from the maps."""
    pairs = find_data([tiny_data]).tests[TEST_SET]
    dataset = ScoringImages(pairs, 64)
    distances, overlaps = [], []
    for at, pair in enumerate(pairs):
        mask = read_mask(pair.mask) > 0
        map_ = predict_probabilities(network, dataset[at][0][None], [mask.shape], None)[0].numpy()
        grey = np.rint(map_ * 255).astype(np.float64)
        stretched = (grey - grey.min()) / (grey.max() - grey.min())
        distances.append(np.abs(stretched - mask).mean())
        found = stretched > 0.5
        overlaps.append((found & mask).sum() / (found | mask).sum())
    scores = score(network, scoring_loader(dataset, 1, 0))

    assert scores.mae == pytest.approx(np.mean(distances), abs=1e-12)
    assert scores.iou == pytest.approx(np.mean(overlaps), abs=1e-12)


class Batches(list[ScoringBatch]):
    """Those of one rank; the image with index `broken` cannot be read."""

    def __init__(self, rank: int, ranks: int, broken: int | None = None) -> None:
        super().__init__(batches(IMAGES, MASKS, 1)[rank::ranks])
        self.broken = broken

    def __iter__(self) -> Iterator[ScoringBatch]:
        for batch in super().__iter__():
            if int(batch[2]) == self.broken:
                raise DataError(f"image {self.broken} is broken")
            yield batch


def index_of(index: int) -> Job[int]:
    return lambda grey, mask: index


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_several_ranks(ranks: int) -> None:
    """Every rank ends with all scores in the order of the images, and comes by as often as every other one.

    Of five ranks one has no image.
    """

    def of(world: World) -> tuple[list[int], list[int]]:
        own: Any = Batches(world.rank, ranks)
        scoring = Scoring(RedIsObject(), own, CPU, None, world, job=index_of)  # type: ignore[arg-type]
        return list(scoring), scoring.scores

    found = outcomes_in_threads(ranks, of)

    rounds = -(-len(IMAGES) // ranks)
    counts = [[int(rank + turn * ranks < len(IMAGES)) for turn in range(rounds)] for rank in range(ranks)]
    assert found == [(count, [0, 1, 2, 3]) for count in counts]


@pytest.mark.parametrize("broken", [0, 1, 3])
def test_an_image_that_one_rank_cannot_read(broken: int) -> None:
    """It is an error on every rank, after all have come by as often as they would have."""
    rounds = [0, 0]

    def of(world: World) -> None:
        own: Any = Batches(world.rank, 2, broken)
        for _ in Scoring(RedIsObject(), own, CPU, None, world, job=index_of):  # type: ignore[arg-type]
            rounds[world.rank] += 1

    found = outcomes_in_threads(2, of)

    assert [str(error) for error in found] == [f"image {broken} is broken"] * 2
    assert rounds == [2, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_is_scored_by_its_own_job(workers: int) -> None:
    """On threads too: with its index, its map and its mask."""

    def job(index: int) -> Job[Any]:
        return lambda grey, mask: (index, grey.shape, mask.shape, bool(mask.all()), int(grey[0, 0]))

    whole: Any = batches(IMAGES, MASKS, 3)
    scoring = Scoring(RedIsObject(), whole, CPU, None, job=job, workers=workers)  # type: ignore[arg-type]

    assert list(scoring) == [3, 1]
    assert scoring.scores == [
        (0, (6, 10), (6, 10), False, 253),
        (1, (9, 4), (9, 4), True, 253),
        (2, (9, 4), (9, 4), True, 2),
        (3, (6, 10), (6, 10), False, 253),
    ]


def test_the_next_batch_is_computed_before_one_is_scored() -> None:
    """So a GPU has work while predictions are scored; the last batch is scored in the end."""
    order: list[str] = []

    class Noting(RedIsObject):
        def forward(self, images: Tensor) -> Logits:
            order.append(f"compute {len(images)}")
            return super().forward(images)

    def job(index: int) -> Job[int]:
        order.append(f"score {index}")
        return index_of(index)

    whole: Any = batches(IMAGES, MASKS, 2)
    list(Scoring(Noting(), whole, CPU, None, job=job))  # type: ignore[arg-type]

    assert order == ["compute 2", "compute 2", "score 0", "score 1", "score 2", "score 3"]
