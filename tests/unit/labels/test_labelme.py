"""labelme's JSON files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from camoxpert_cli.errors import DataError
from camoxpert_cli.labels.import_labels import import_labels
from camoxpert_cli.labels.labelled import LabelledObject
from camoxpert_cli.labels.recognize import read_labels
from tests.helpers.image_files import noise
from tests.helpers.label_files import Mask, blob, imported_masks, labelme_of, write_labelme

SIZE = np.zeros((60, 80), np.uint8)


def written(folder: Path, **shape: Any) -> Path:
    """A file with one shape."""
    content = labelme_of(SIZE, "a.png", [{"label": "fox", **shape}])
    (folder / "a.json").write_text(json.dumps(content))
    return folder


def read_shape(folder: Path, **shape: Any) -> LabelledObject:
    (found,) = read_labels(written(folder, **shape)).images[0].objects
    return found


def drawn(folder: Path, **shape: Any) -> Mask:
    mask = SIZE.copy()
    draw = read_shape(folder, **shape).draw
    assert draw is not None
    draw(mask)
    return mask


def test_rectangles(tmp_path: Path) -> None:
    """Stored with two corners or, by newer versions, with four."""
    for points in ([[10, 20], [30, 50]], [[10, 20], [30, 20], [30, 50], [10, 50]]):
        mask = drawn(tmp_path, shape_type="rectangle", points=points)

        assert mask[20:50, 10:30].all()
        assert mask.sum() == 255 * 30 * 20


def test_circles(tmp_path: Path) -> None:
    """Stored as the center and a point on the circle."""
    mask = drawn(tmp_path, shape_type="circle", points=[[40, 30], [40, 10]])
    y, x = np.mgrid[:60, :80] + 0.5

    assert np.array_equal(mask > 0, (x - 40) ** 2 + (y - 30) ** 2 <= 20**2)


def test_a_shape_without_a_type_is_a_polygon(tmp_path: Path) -> None:
    """As in the first versions."""
    assert drawn(tmp_path, points=[[10, 10], [50, 10], [50, 50]]).any()


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ({"shape_type": "point", "points": [[1, 2]]}, "shapes of type point"),
        ({"shape_type": "linestrip", "points": [[1, 2], [3, 4], [5, 6]]}, "shapes of type linestrip"),
        ({"shape_type": "polygon", "points": [[1, 2], [3, 4]]}, "polygons with fewer than 3 points"),
    ],
)
def test_shapes_without_an_area(tmp_path: Path, shape: dict[str, Any], problem: str) -> None:
    found = read_shape(tmp_path, **shape)

    assert (found.draw, found.problem) == (None, problem)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"points": [[1, 2], [3]]}, r"shapes\[0\] \(fox\): its points are .*, expected pairs of numbers"),
        ({"points": "x"}, "its points are 'x'"),
        ({"points": [[1, 2], [3, float("inf")], [4, 5]]}, "expected pairs of numbers"),
        ({"shape_type": "circle", "points": [[1, 2]]}, "a circle with 1 point, expected 2"),
        ({"shape_type": "mask", "points": [[1, 2], [3, 4]], "mask": "?"}, "its mask cannot be decoded"),
        ({"shape_type": "mask", "points": [[1, 2], [3, 4]], "mask": "AAAA"}, "its mask cannot be decoded"),
        ({"label": 3, "points": []}, r"shapes\[0\] is .*, expected a shape with a label"),
    ],
)
def test_malformed_shapes(tmp_path: Path, shape: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.json: .*{message}"):
        read_shape(tmp_path, **shape)


def test_other_json_files(tmp_path: Path) -> None:
    """They are passed over and told, unless none is labelme's."""
    write_labelme(tmp_path, {"a.png": blob(0)})
    (tmp_path / "settings.json").write_text("{}")

    assert read_labels(tmp_path).notes == ["skipped 1 other .json file: settings.json"]


def test_a_single_file(tmp_path: Path) -> None:
    assert len(read_labels(written(tmp_path, points=[[0, 0], [9, 0], [9, 9]]) / "a.json").images) == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_image_in_the_file(tmp_path: Path, suffix: str) -> None:
    """It is used where the image itself is missing."""
    mask = blob(0)
    folder = write_labelme(tmp_path / "labels", {"a.png": mask})
    content = json.loads((folder / "a.json").read_text())
    data = cv2.imencode(suffix, noise(0, *mask.shape))[1].tobytes()
    (folder / "a.json").write_text(json.dumps({**content, "imageData": base64.b64encode(data).decode()}))

    import_labels(folder, None, tmp_path / "DATA")

    assert (tmp_path / "DATA" / "TrainDataset" / "Imgs" / f"a{suffix}").read_bytes() == data
    assert np.array_equal(imported_masks(tmp_path / "DATA")["a.png"], mask)


def test_a_damaged_image_in_the_file(tmp_path: Path) -> None:
    folder = write_labelme(tmp_path / "labels", {"a.png": blob(0)})
    content = json.loads((folder / "a.json").read_text())
    (folder / "a.json").write_text(json.dumps({**content, "imageData": "???"}))
    with pytest.raises(DataError, match="1 image: image cannot be read"):
        import_labels(folder, None, tmp_path / "DATA")


def test_images_are_named_relative_to_the_file(tmp_path: Path) -> None:
    """Also with the separators of Windows."""
    folder = tmp_path / "labels" / "day"
    write_labelme(folder, {"a.png": blob(0)})
    content = json.loads((folder / "a.json").read_text())
    (folder / "a.json").write_text(json.dumps({**content, "imagePath": r"..\images\b.png"}))

    assert read_labels(tmp_path / "labels").images[0].names == (r"day/..\images\b.png", "day/a.json")
