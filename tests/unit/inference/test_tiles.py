"""Large images in tiles: where the tiles are, how they are blended, and which images need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.errors import DataError
from camoxpert_cli.inference.outputs import Outputs
from camoxpert_cli.inference.predict import predict, probabilities
from camoxpert_cli.inference.tiles import spans, tiled_probability
from camoxpert_cli.model.backbone import Normalization
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.image_files import jpeg, noise, with_exif, write

SIDE = 64
FLIP = Tta(True, (1.0,))


@dataclass
class Logits:
    logits: Tensor


class RedIsObject(nn.Module):
    """Stands in for the network: the logit of a pixel is its red value, from -5 to 5. Counts the images it saw."""

    normalization = Normalization((0.5, 0.5, 0.5), (0.1, 0.1, 0.1))
    img_size = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.anywhere = nn.Parameter(torch.zeros(()))
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Logits:
        self.seen.append(len(images))
        return Logits(images[:, :1])


class EveryTileDiffers(RedIsObject):
    """Finds nothing but object in every second image, and none in the others."""

    def forward(self, images: Tensor) -> Logits:
        numbers = torch.arange(len(images)) + sum(self.seen)
        self.seen.append(len(images))
        return Logits((numbers % 2 * 200.0 - 100)[:, None, None, None].expand(-1, 1, SIDE, SIDE))


def tiled(network: Any, image: NDArray[np.uint8], side: int = SIDE, tta: Tta = NO_TTA) -> Tensor:
    return tiled_probability(network, image, SIDE, side, None, tta)


def found(network: Any, images: Sequence[Any], tiles: int | None, tta: Tta = NO_TTA) -> list[Tensor]:
    maps = list(probabilities(network.eval(), images, SIDE, tta, tiles=tiles))
    assert all(isinstance(each, Tensor) for each in maps)
    return maps  # type: ignore[return-value]


@settings(max_examples=50)
@given(st.integers(1, 500), st.integers(1, 100))
def test_every_pixel_is_covered_by_weights_of_one(length: int, side: int) -> None:
    """Spans of one length, the first at the start and the last at the end; none is needless, and no weight is zero."""
    every = spans(length, side)
    covered = torch.zeros(length)
    for span in every:
        covered[span.pixels] += span.weights

    assert {len(span.weights) for span in every} == {min(side, length)}
    assert torch.cat([span.weights for span in every]).min() > 0
    assert (every[0].pixels.start, every[-1].pixels.stop) == (0, length)
    assert torch.allclose(covered, torch.ones(length), atol=1e-6)
    assert (len(every) == 1) == (length <= side)


@settings(max_examples=50)
@given(st.integers(1, 500), st.integers(2, 100), st.data())
def test_an_object_of_half_a_tile_is_whole_in_one(length: int, side: int, data: st.DataObject) -> None:
    """Wherever it is."""
    size = min(side // 2, length)
    start = data.draw(st.integers(0, length - size))

    assert any(span.pixels.start <= start and start + size <= span.pixels.stop for span in spans(length, side))


def test_a_network_that_looks_at_pixels() -> None:
    """Where tiles are not resized, the map is what it says of each pixel, wherever a tile ends."""
    image = noise(0, 150, 201)
    logits = (torch.from_numpy(image[..., 0]) / 255 - 0.5) / 0.1

    assert torch.allclose(tiled(RedIsObject(), image), logits.sigmoid(), atol=1e-6)


@pytest.mark.parametrize("side", [64, 100, 149, 150])
@pytest.mark.parametrize("tta", [NO_TTA, FLIP])
def test_one_probability_everywhere(side: int, tta: Tta) -> None:
    """Where it is the same for every pixel, tiles change nothing, and no probability exceeds one."""
    image = np.full((97, 150, 3), (255, 128, 0), np.uint8)
    (whole,) = found(RedIsObject(), [image], None, tta)
    (blended,) = found(RedIsObject(), [image], side, tta)

    assert torch.allclose(blended, whole, atol=1e-6)
    assert tiled(EveryTileDiffers(), image[:1, :1]).max() <= 1


@pytest.mark.parametrize("shape", [(200, 200, 3), (64, 300, 3), (100, 64, 3)])
def test_neighboring_tiles_that_differ_leave_no_seam(shape: tuple[int, int, int]) -> None:
    """Between two pixels the map changes by as little as the window does, also where one tile ends."""
    blended = tiled(EveryTileDiffers(), np.zeros(shape, np.uint8))
    steps = max(blended.diff(dim=axis).abs().max().item() for axis in (0, 1) if shape[axis] > 1)

    assert blended.max() - blended.min() > 0.5
    assert steps < 2 * np.pi / SIDE


def test_views_of_tiles() -> None:
    """Test-time augmentation is of each tile: its map is mirrored within the tile, and twice as much is computed."""
    plain, mirrored = RedIsObject(), RedIsObject()
    image = noise(1, 64, 130)

    assert torch.allclose(tiled(plain, image), tiled(mirrored, image, tta=FLIP), atol=1e-6)
    assert sum(mirrored.seen) == 2 * sum(plain.seen) == 2 * 4


def test_progress_within_an_image() -> None:
    """Tiles are computed in batches, and each is told."""
    told: list[tuple[int, int]] = []
    network: Any = RedIsObject()
    tiled_probability(network, noise(0, 160, 160), SIDE, SIDE, None, tell=lambda *numbers: told.append(numbers))

    assert network.seen == [16]
    assert told == [(16, 16)]


@pytest.mark.parametrize("tta", [NO_TTA, FLIP])
def test_an_image_that_a_tile_holds(tta: Tta) -> None:
    """It is computed as without tiles, to the last bit, together with others."""
    images = [noise(1, 100, 128), noise(2, 128, 70), noise(3, 128, 128)]
    network = RedIsObject()
    whole, held = (found(network, images, tiles, tta) for tiles in (None, 128))

    assert all(torch.equal(*pair) for pair in zip(whole, held, strict=True))
    assert network.seen == [3] * len(network.seen)


def test_files_and_arrays_of_all_sizes(tmp_path: Path) -> None:
    """Each gets its own map, in order; a file is as large as it is when it is turned."""
    shapes = [(40, 50), (90, 40), (60, 64), (30, 200)]
    arrays = [noise(number, *shape) for number, shape in enumerate(shapes)]
    files = [write(tmp_path / f"{number}.png", array) for number, array in enumerate(arrays)]
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(with_exif(jpeg(noise(9, 40, 90)), 6))
    of_arrays, of_files = (found(RedIsObject(), each, SIDE) for each in (arrays, files))

    assert [tuple(each.shape) for each in of_files] == shapes
    assert all(torch.equal(*pair) for pair in zip(of_arrays, of_files, strict=True))
    assert torch.equal(of_files[1], tiled(RedIsObject(), arrays[1]))
    assert found(RedIsObject(), [turned], SIDE)[0].shape == (90, 40)


def test_a_large_image_that_is_broken(tmp_path: Path) -> None:
    """It is the error of its own place, whether its header can be read or not."""
    whole = write(tmp_path / "whole.png", noise(0, 100, 100))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:500])
    (tmp_path / "none.jpg").write_bytes(b"no image")
    images = [tmp_path / "cut.png", whole, tmp_path / "none.jpg", write(tmp_path / "small.png", noise(1))]
    network: Any = RedIsObject()
    broken = [isinstance(each, DataError) for each in probabilities(network, images, SIDE, tiles=SIDE)]

    assert broken == [True, False, True, False]


def test_what_is_kept_is_not_computed_again(tmp_path: Path) -> None:
    """A large image that is kept is not even decoded; a small one is part of its batch, and not yielded either."""
    images = [write(tmp_path / f"{number}.png", noise(number, side, 80)) for number, side in enumerate((500, 40, 40))]
    network: Any = RedIsObject()
    (rest,) = probabilities(network, images, SIDE, tiles=80, kept={images[0], images[1]})

    assert isinstance(rest, Tensor)
    assert torch.equal(rest, found(RedIsObject(), images, 80)[2])
    assert network.seen == [2]


def test_ctrl_c_between_tiles(network: CamoXpert, tmp_path: Path) -> None:
    """It leaves the predictions of the images before, and nothing of the one being computed."""
    small, large = write(tmp_path / "a.png", noise(0)), write(tmp_path / "b.png", noise(1, 170, 130))  # 20 tiles
    seen: list[int] = []

    def interrupt(_: nn.Module, inputs: tuple[Tensor]) -> None:
        if sum(seen) >= 17:
            raise KeyboardInterrupt
        seen.append(len(inputs[0]))

    outputs = Outputs(tmp_path / "maps", overlays=True)
    with network.register_forward_pre_hook(interrupt), pytest.raises(KeyboardInterrupt):
        predict(network, [small, large], outputs, device=None, img_size=SIDE, overwrite=False, tiles=SIDE)

    left = sorted(str(path.relative_to(tmp_path / "maps")) for path in (tmp_path / "maps").rglob("*") if path.is_file())
    assert left == ["a.png", "overlays/a.jpg"]
    assert seen == [1, 16]
