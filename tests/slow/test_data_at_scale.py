"""What the default run shows of a few images, of many: duplicates, changed images, reduced JPEGs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.data.reading import read_image
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.data.synthetic import generate_image
from tests.helpers.image_files import jpeg, needs_shared_data, scene, with_exif
from tests.helpers.places import SHARED_DATA
from tests.unit.data.test_duplicates import CHANGES, found

SIDE = 64


def test_generated_images_are_no_duplicates() -> None:
    """Of many images in which little but the texture differs, no two are called the same."""
    images = [generate_image(seed, index, "train", 64)[0] for seed in range(2) for index in range(300)]

    assert found(*images) == []


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_found(change: str) -> None:
    """An image that was saved again, resized or brightened is found among many as what it is."""
    scenes = [scene(seed, 150, 200) for seed in range(60)]
    changed = [CHANGES[change](image) for image in scenes[::3]]

    assert found(*scenes, *changed) == [(3 * index, 60 + index) for index in range(20)]


@pytest.mark.parametrize("size", [(128, 128), (129, 195), (143, 128), (257, 259), (255, 320), (513, 600), (669, 540)])
def test_reduced_jpegs(tmp_path: Path, size: tuple[int, int]) -> None:
    """Of any orientation, progressive or not: smaller, turned, with their full size, and near to full decoding."""
    pixels = scene(sum(size), *size)
    for progressive in (0, 1):
        for orientation in range(1, 9):
            path = tmp_path / f"progressive-{progressive}-orientation-{orientation}.jpg"
            path.write_bytes(with_exif(jpeg(pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive), orientation))

            reduced, full_size = read_image(path, SIDE)
            whole, whole_size = read_image(path)

            assert full_size == whole_size == whole.shape[:2] == (size if orientation < 5 else size[::-1]), path
            assert SIDE <= min(reduced.shape[:2]) <= min(size) // 2 + 1, path
            assert np.abs(resize_image(reduced, SIDE).astype(int) - resize_image(whole, SIDE)).mean() < 2.5, path


@needs_shared_data
def test_photographs_of_cats() -> None:
    """Of 500 photographs seven are twice in their set, and nothing else is wrong."""
    content = json.loads(CliRunner().invoke(app, ["check-data", str(SHARED_DATA / "feral_cats"), "--json"]).stdout)

    assert [fault["kind"] for fault in content["faults"]] == ["duplicate"] * 7
    assert [each["pairs"] for each in content["sets"]] == [400, 100]
