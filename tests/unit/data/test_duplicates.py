from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_cli.data import duplicates
from camoxpert_cli.data.duplicates import Fingerprint, details_of, find_duplicates
from camoxpert_cli.data.synthetic import generate_image
from tests.helpers.image_files import jpeg, noise, scene

Image = NDArray[np.uint8]


def fingerprint(image: Image) -> Fingerprint:
    return Fingerprint(details_of(image), f"{image.shape}".encode() + image.tobytes())


def found(*images: Image) -> list[tuple[int, int]]:
    return list(find_duplicates([fingerprint(image) for image in images]))


def brightened(image: Image, factor: float, offset: float) -> Image:
    return np.asarray(np.clip(image * factor + offset, 0, 255), dtype=np.uint8)


def saved(image: Image, quality: int) -> Image:
    content = np.frombuffer(jpeg(image, cv2.IMWRITE_JPEG_QUALITY, quality), np.uint8)
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), dtype=np.uint8)


def resized(image: Image, width: int, height: int) -> Image:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def salted(image: Image) -> Image:
    """With 3 % of all pixels black or white."""
    draw = np.random.default_rng(0).random(image.shape[:2])
    copy = image.copy()
    copy[draw < 0.015], copy[draw > 0.985] = 0, 255
    return copy


CHANGES: dict[str, Callable[[Image], Image]] = {
    "not at all": lambda image: image.copy(),
    "low quality": lambda image: saved(image, 10),
    "half size": lambda image: resized(image, 100, 75),
    "twice the size": lambda image: resized(image, 400, 300),
    "stretched": lambda image: resized(image, 150, 150),
    "small": lambda image: resized(image, 40, 30),
    "brightened": lambda image: brightened(image, 1.3, 20),
    "darkened": lambda image: brightened(image, 0.5, 0),
    "more contrast": lambda image: brightened(image, 1.5, -60),
    "salt and pepper": salted,
    "all together": lambda image: saved(resized(brightened(salted(image), 1.2, 10), 120, 110), 30),
}


@pytest.fixture(scope="module")
def scenes() -> list[Image]:
    return [scene(seed, 150, 200) for seed in range(12)]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_found(scenes: list[Image], change: str) -> None:
    """An image that was saved again, resized or brightened is found among others as what it is."""
    changed = [CHANGES[change](image) for image in scenes[::3]]

    assert found(*scenes, *changed) == [(3 * index, 12 + index) for index in range(4)]


@pytest.mark.parametrize("change", ["turned", "mirrored", "upside down", "a part"])
def test_turned_images_are_others(change: str) -> None:
    """An image that is turned, mirrored or cut out is another one."""
    for seed in range(10):
        image = scene(seed, 150, 150)
        changes = {
            "turned": np.rot90(image),
            "mirrored": image[:, ::-1],
            "upside down": image[::-1],
            "a part": image[:90, :90],
        }
        assert found(image, np.ascontiguousarray(changes[change])) == []


def test_generated_images_are_no_duplicates() -> None:
    """Of images in which little but the texture differs, no two are called the same."""
    images = [generate_image(seed, index, "train", 48)[0] for seed in range(2) for index in range(20)]

    assert found(*images) == []


def test_noise_is_no_duplicate() -> None:
    """No two images of noise are called the same, of grey noise nor of faint."""
    grey = [np.repeat(noise(seed)[..., :1], 3, axis=2) for seed in range(100)]
    faint = [np.asarray(128 + (noise(seed) >> 6), dtype=np.uint8) for seed in range(200, 300)]

    assert found(*grey, *faint) == []


def flat(value: int, height: int = 24, width: int = 32) -> Image:
    return np.full((height, width, 3), value, np.uint8)


def sky(angle: float, level: int) -> Image:
    """Nothing but a slope of grey values."""
    y, x = np.mgrid[-1:1:60j, -1:1:80j]
    slope = level + 60 * (np.cos(angle) * x + np.sin(angle) * y) + 20 * x * y
    return np.repeat(slope[..., None], 3, axis=2).astype(np.uint8)


def test_images_without_details() -> None:
    """Images that are flat or one slope are the same where all pixels are, and otherwise not."""
    assert found(flat(0), flat(1), flat(255), flat(0, 32, 24), sky(0, 100), sky(0, 101), sky(1, 100)) == []
    assert found(flat(7), flat(0), flat(7), sky(0, 100), sky(0, 100)) == [(0, 2), (3, 4)]


def test_same_pixels_in_another_size() -> None:
    """The digest alone decides on images without details, so the caller puts the size into it."""
    details = details_of(flat(0))

    assert list(find_duplicates([Fingerprint(details, b"a"), Fingerprint(details, b"b")])) == []


def test_the_first_copy_is_named() -> None:
    """Of several copies, each later one is told with the first, not with the one before it."""
    image = scene(0, 60, 80)

    assert found(scene(1, 60, 80), image, saved(image, 20), scene(2, 60, 80), resized(image, 40, 30), image) == [
        (1, 2),
        (1, 4),
        (1, 5),
    ]


def test_more_images_than_a_block() -> None:
    """Copies are found however many images lie between: within a block, across its border and far apart."""
    images = [noise(seed, 8, 8) for seed in range(1300)]
    for first, later in ((0, 600), (511, 512), (3, 1299), (700, 800)):
        images[later] = images[first].copy()

    assert found(*images) == [(511, 512), (0, 600), (700, 800), (3, 1299)]


@pytest.mark.parametrize("block", [1, 3, 7, 40])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """The number of images compared at once does not change what is found."""
    draw = np.random.default_rng(0)
    # Each saved in its own quality: no two are equal to the last pixel, which needs no comparing.
    images = [saved(scene(int(seed), 40, 40), 50 + index) for index, seed in enumerate(draw.integers(0, 15, 40))]
    whole = found(*images)
    monkeypatch.setattr(duplicates, "_BLOCK", block)

    assert found(*images) == whole
    assert len(whole) >= 25


def test_no_images() -> None:
    """Without images there is nothing to find."""
    assert found() == []
    assert found(scene(0, 20, 20)) == []


def test_details() -> None:
    """Details are of length 1, whatever the size, and of length 0 where an image has none."""
    assert np.linalg.norm(details_of(scene(0, 50, 70))) == pytest.approx(1, abs=1e-5)
    assert details_of(scene(0, 50, 70)).shape == (1024,)
    assert not details_of(flat(3)).any()
    assert not details_of(sky(0.5, 120)).any()
