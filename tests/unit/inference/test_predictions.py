from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.inference import predictions
from camoxpert_cli.inference.predictions import (
    grey_prediction,
    grey_predictions,
    logits_of_views,
    predict_probabilities,
)
from camoxpert_cli.model.backbone import Normalization, create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.layers import resize
from camoxpert_cli.model.normalize import Normalize

SIDE = 128
FLIP, SCALES, BOTH = Tta(True, (1.0,)), Tta(False, (0.75, 1.0, 1.25)), Tta(True, (0.75, 1.0, 1.25))


@dataclass
class Logits:
    logits: Tensor


class RedIsObject(nn.Module):
    """Stands in for the network: the logit of a pixel is its red value, from -5 to 5. Remembers what it saw."""

    normalization = Normalization((0.5, 0.5, 0.5), (0.1, 0.1, 0.1))

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Logits:
        self.seen.append(images)
        return Logits(images[:, :1])


class LeftIsObject(RedIsObject):
    """Finds an object in the left half of whatever it sees."""

    def forward(self, images: Tensor) -> Logits:
        logits = torch.full_like(images[:, :1], -5.0)
        logits[..., : images.shape[-1] // 2] = 5.0
        return Logits(logits)


class SideIsLogit(RedIsObject):
    """The whole image is object, with the more certainty the larger it is."""

    def forward(self, images: Tensor) -> Logits:
        return Logits(torch.full_like(images[:, :1], images.shape[-1] / 32 - 4))


def columns(*reds: int, side: int = SIDE) -> Tensor:
    """uint8 (1, 3, side, side) whose red is one value in each of equally wide columns."""
    image = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    image[:, 0] = torch.tensor(reds, dtype=torch.uint8).repeat_interleave(side // len(reds))
    return image


def prediction_of(network: nn.Module, images: Tensor, size: tuple[int, int], tta: Tta = NO_TTA) -> Tensor:
    return predict_probabilities(network, images, [size], None, tta)[0]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def network() -> CamoXpert:
    torch.manual_seed(0)
    return CamoXpert(create_backbone("test_resnet"), "test_resnet", 3).eval()


def test_logits_are_resized() -> None:
    """A map is the sigmoid of resized logits; resizing probabilities would give another slope between the columns."""
    map_ = prediction_of(RedIsObject(), columns(255, 0, side=8), (8, 16))
    logits = torch.tensor([5.0] * 8 + [-5.0] * 8)
    # Twice the width: the two pixels beside the edge lie a quarter and three quarters of the way between the columns.
    logits[7], logits[8] = 2.5, -2.5

    assert map_.shape == (8, 16)
    assert map_.dtype == torch.float32
    assert torch.allclose(map_, logits.sigmoid().expand(8, -1))


@pytest.mark.parametrize("tta", [NO_TTA, FLIP, SCALES, BOTH])
def test_one_map_for_each_size(network: CamoXpert, tta: Tta) -> None:
    """Every image gets a map of the size asked for it, of values from 0 to 1, and no gradient is recorded."""
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    sizes = [(64, 64), (31, 100), (1, 1)]
    predictions = predict_probabilities(network, images, sizes, None, tta)

    assert [tuple(each.shape) for each in predictions] == sizes
    assert all(each.dtype == torch.float32 for each in predictions)
    assert all(0 <= each.min() <= each.max() <= 1 for each in predictions)
    assert not any(each.requires_grad for each in predictions)


@torch.no_grad()
def test_without_augmentation_it_is_the_network(network: CamoXpert) -> None:
    """Without test-time augmentation a map is the network's logits, resized, through the sigmoid: to the last bit."""
    images = torch.randint(0, 256, (2, 3, 72, 72), dtype=torch.uint8)  # no multiple of 32
    logits = network(Normalize(network.normalization)(images)).logits
    predictions = predict_probabilities(network, images, [(50, 90), (72, 72)], None)

    assert torch.equal(predictions[0], resize(logits[:1], (50, 90))[0, 0].sigmoid())
    assert torch.equal(predictions[1], logits[1, 0].sigmoid())


def test_half_precision() -> None:
    """Where the network computes in half precision, its logits are resized and made probabilities in float32."""

    class Half(RedIsObject):
        def forward(self, images: Tensor) -> Logits:
            assert torch.is_autocast_enabled("cpu")
            return Logits(super().forward(images).logits.bfloat16())

    image = columns(255, 0, 100, 130)
    (half,) = predict_probabilities(Half(), image, [(60, 200)], torch.bfloat16)  # type: ignore[arg-type]

    assert half.dtype == torch.float32
    assert torch.allclose(half, prediction_of(RedIsObject(), image, (60, 200)), atol=0.01)


def test_mirrored_maps_are_mirrored_back() -> None:
    """Where the network looks at each pixel alone, mirroring changes nothing: the same bits, and on the same side."""
    image = columns(255, 0, 100, 130)
    plain, mirrored = (prediction_of(RedIsObject(), image, (60, 200), tta) for tta in (NO_TTA, FLIP))

    assert torch.equal(plain, mirrored)
    assert plain[:, :40].min() > 0.99
    assert plain[:, 60:90].max() < 0.01


def test_the_network_sees_the_mirrored_image() -> None:
    """With `flip` the network gets the image and its mirror image, and a preference for one side cancels out."""
    network = RedIsObject()
    prediction_of(network, columns(255, 0), (SIDE, SIDE), FLIP)
    map_ = prediction_of(LeftIsObject(), columns(255, 0), (SIDE, SIDE), FLIP)

    assert len(network.seen) == 2
    assert torch.equal(network.seen[1], network.seen[0].flip(-1))
    assert torch.allclose(map_, torch.full_like(map_, 0.5))


def test_the_network_sees_other_sides() -> None:
    """With `scales` it gets three sides, multiples of 32, and with `flip` each of them twice."""
    network, both = RedIsObject(), RedIsObject()
    prediction_of(network, columns(255, 0), (SIDE, SIDE), SCALES)
    prediction_of(both, columns(255, 0), (SIDE, SIDE), BOTH)

    assert [tuple(image.shape[-2:]) for image in network.seen] == [(96, 96), (128, 128), (160, 160)]
    assert [image.shape[-1] for image in both.seen] == [96, 96, 128, 128, 160, 160]
    assert torch.equal(both.seen[1], both.seen[0].flip(-1))


@pytest.mark.parametrize(
    ("side", "sides"),
    [
        (64, [64]),  # 48 is below what the network takes, 80 lies between two multiples
        (72, [64, 72, 96]),  # the side asked for stays as it is
        (96, [64, 96, 128]),
        (320, [256, 320, 384]),  # 240 and 400 lie between two multiples
        (352, [256, 352, 448]),
    ],
)
def test_sides(side: int, sides: list[int]) -> None:
    """Sides other than the image's own are the nearest multiple of 32 (of two, an even one), at least 64.

    No side counts twice.
    """
    network = RedIsObject()
    prediction_of(network, torch.zeros(1, 3, side, side, dtype=torch.uint8), (8, 8), SCALES)

    assert sorted(image.shape[-1] for image in network.seen) == sorted(sides)


def test_scales_change_nothing_where_size_does_not_matter() -> None:
    """A slope of logits is the same slope at every side: the mean over sides is the map of one, up to rounding.

    Not at the outermost pixels, where bilinear resizing repeats the last one.
    """
    slope = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    slope[:, 0] = torch.arange(SIDE) + 64
    plain, scaled = (prediction_of(RedIsObject(), slope, (SIDE, SIDE), tta)[:, 2:-2] for tta in (NO_TTA, SCALES))

    assert torch.allclose(plain, scaled, atol=1e-6)
    assert plain[0, -1] - plain[0, 0] > 0.8


def test_probabilities_are_averaged() -> None:
    """Three sides with logits -1, 0 and 1 and one far away: each has one vote, however sure it is of itself."""
    map_ = prediction_of(SideIsLogit(), columns(0), (4, 4), Tta(False, (0.75, 1.0, 1.25, 4.0)))
    votes = torch.tensor([-1.0, 0.0, 1.0, 12.0]).sigmoid()

    assert torch.allclose(map_, votes.mean().expand(4, 4))
    assert abs(votes.mean() - torch.tensor(3.0).sigmoid()) > 0.3  # what the mean of logits would give


def test_grey_values() -> None:
    """A grey map is the probability times 255, rounded as numpy does it, in 8 bits."""
    probability = torch.rand(40, 50, generator=torch.Generator().manual_seed(0))
    probability[0, :2] = torch.tensor([0.0, 1.0])
    grey = grey_prediction(probability)

    assert grey.dtype == np.uint8
    assert grey.shape == (40, 50)
    assert np.array_equal(grey, np.rint(probability.numpy() * 255))
    assert (grey[0, 0], grey[0, 1]) == (0, 255)


def test_rounding_agrees_with_the_threshold() -> None:
    """Every float32 near one half is written above 127 where it is at least one half, and only there."""
    half = np.float32(0.5)
    below, above = [half], [half]
    for _ in range(1000):
        below.append(np.nextafter(below[-1], np.float32(0)))
        above.append(np.nextafter(above[-1], np.float32(1)))

    assert (grey_prediction(torch.from_numpy(np.array(above))) > 127).all()
    assert not (grey_prediction(torch.from_numpy(np.array(below[1:]))) > 127).any()


def test_gray_predictions_of_a_batch() -> None:
    """Those of each image, at its size."""
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    sizes = [(50, 90), (64, 64)]
    network: Any = RedIsObject()
    alone = [grey_prediction(each) for each in predict_probabilities(network, images, sizes, None)]
    together = grey_predictions(logits_of_views(network, images, None), sizes)()

    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
    assert [each.shape for each in together] == sizes


def test_the_normalization_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, building it makes the host wait."""
    built = []

    class Counted(Normalize):
        def __init__(self, statistics: Normalization) -> None:
            built.append(statistics)
            super().__init__(statistics)

    monkeypatch.setattr(predictions, "Normalize", Counted)
    predictions._normalize.cache_clear()
    network: Any = RedIsObject()
    for _ in range(3):
        predict_probabilities(network, columns(1, 2), [(4, 4)], None)
    predictions._normalize.cache_clear()

    assert len(built) == 1


def test_a_network_that_keeps_its_logits() -> None:
    """What it returned is not written to, also where nothing is resized."""

    class Keeping(RedIsObject):
        def forward(self, images: Tensor) -> Logits:
            self.kept = images[:, :1].clone()
            return Logits(self.kept)

    network = Keeping()
    prediction_of(network, columns(255, 0), (SIDE, SIDE))

    assert network.kept.max() == pytest.approx(5)
