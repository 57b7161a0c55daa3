"""What is written for labels and images, what is left out, and that nothing is left after an error."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import pytest

from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.reading import read_pair
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.labels import import_labels as module
from camoxpert_cli.labels.import_labels import drawn_size, import_labels, unique_stems
from tests.helpers.image_files import jpeg, noise, scene, with_exif, write
from tests.helpers.label_files import (
    blob,
    coco_of,
    coco_polygons,
    imported_masks,
    iou,
    write_coco,
    write_cutouts,
    write_images,
    write_index_masks,
    write_labelme,
    write_yolo,
)

MASKS = {"a.png": blob(0), "b.png": blob(1), "c.png": blob(2)}


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", MASKS)


def test_images_are_copied(tmp_path: Path, images: Path) -> None:
    """Byte by byte, with their names; beside them there are masks only."""
    import_labels(write_coco(tmp_path / "a.json", MASKS), images, tmp_path / "DATA")

    assert files(tmp_path / "DATA") == sorted(
        f"TrainDataset/{folder}/{name}" for folder in ("Imgs", "GT") for name in MASKS
    )
    for name in MASKS:
        assert (tmp_path / "DATA" / "TrainDataset" / "Imgs" / name).read_bytes() == (images / name).read_bytes()


def test_the_union_of_all_objects(tmp_path: Path, images: Path) -> None:
    """Of all classes, or of the chosen ones by name or number."""
    content = coco_of({"a.png": MASKS["a.png"]}, coco_polygons)
    content["categories"] += [{"id": 9, "name": "owl"}, {"id": 11, "name": "hare"}]
    for number, mask in ((9, MASKS["b.png"]), (11, MASKS["c.png"])):
        entry = {"image_id": 0, "category_id": number, "segmentation": coco_polygons(mask)}
        content["annotations"].append(entry)
    source = write_json(tmp_path / "a.json", content)
    expected = {
        (): MASKS["a.png"] | MASKS["b.png"] | MASKS["c.png"],
        ("fox", "hare"): MASKS["a.png"] | MASKS["c.png"],
        ("9",): MASKS["b.png"],
    }
    for at, (classes, mask) in enumerate(expected.items()):
        done = import_labels(source, images, tmp_path / str(at), classes=classes)

        assert np.array_equal(imported_masks(tmp_path / str(at))["a.png"], mask)
        assert done.areas == [float((mask > 0).mean())]
    assert done.classes == {"owl": 1}
    with pytest.raises(DataError, match="no object of class 'foxx'; did you mean --class fox") as caught:
        import_labels(source, images, tmp_path / "DATA", classes=["foxx"])
    assert caught.value.hint == "one of these classes: fox or 7 (1), owl or 9 (1), hare or 11 (1)"
    assert not (tmp_path / "DATA").exists()


def test_level_255_of_index_masks_is_no_object(tmp_path: Path, images: Path) -> None:
    """Unless it is chosen."""
    folder = write_index_masks(tmp_path / "masks", MASKS)
    mask = MASKS["a.png"] // 255
    mask[:, :20] = 255
    write(folder / "a.png", mask)
    import_labels(folder, images, tmp_path / "all")
    import_labels(folder, images, tmp_path / "ignored", classes=["255"])

    assert np.array_equal(imported_masks(tmp_path / "all")["a.png"] > 0, mask == 1)
    assert np.array_equal(imported_masks(tmp_path / "ignored")["a.png"] > 0, mask == 255)


def test_images_without_an_object(tmp_path: Path, images: Path) -> None:
    """They are left out and listed, or on request copied to a folder of their own."""
    write(images / "d.png", noise(3))
    source = write_yolo(tmp_path / "labels", {"a.png": MASKS["a.png"]})
    (source / "b.txt").write_text("")
    (source / "c.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")

    done = import_labels(source, images, tmp_path / "without", classes=["fox"])
    kept = import_labels(source, images, tmp_path / "with", classes=["fox"], keep_empty=True)

    assert done.skipped == {"no object of the chosen classes": ["b.txt", "c.txt"], "no label": ["d.png"]}
    with (tmp_path / "without" / "skipped.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["b.txt", "no object of the chosen classes"],
            ["c.txt", "no object of the chosen classes"],
            ["d.png", "no label"],
        ]
    assert (kept.negatives, kept.skipped) == (3, {})
    assert files(tmp_path / "with") == [
        "TrainDataset/GT/a.png",
        "TrainDataset/Imgs/a.png",
        *(f"negatives/{name}.png" for name in "bcd"),
    ]
    assert len(find_data([tmp_path / "with"]).train) == 1


def test_an_object_without_a_mask_is_no_negative(tmp_path: Path, images: Path) -> None:
    """An image of boxes has an object, and so may one whose labels are unclear."""
    source = write_yolo(tmp_path / "labels", {"a.png": MASKS["a.png"]})
    (source / "b.txt").write_text("1 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.2 0.2\n")
    with (source / "a.txt").open("a") as file:
        file.write("1 0.5 0.5 0.1 0.1\n1 1.5 1.5 1.6 1.5 1.6 1.6\n")
    for folder in ("x", "y"):
        (source / folder).mkdir()
        (source / folder / "c.txt").write_text("")

    done = import_labels(source, images, tmp_path / "DATA", keep_empty=True)

    assert done.skipped == {
        "no object with an area": ["b.txt"],
        "several labels for the same image": ["x/c.txt", "y/c.txt"],
    }
    assert done.negatives == 0
    assert done.problems == {
        "detection boxes (5 numbers), which are no masks": 3,
        "outside the image, or smaller than a pixel": 1,
    }
    assert done.partly == 1


def test_an_object_within_another(tmp_path: Path, images: Path) -> None:
    """Adds no pixel, and is no problem."""
    content = coco_of({"a.png": MASKS["a.png"]}, coco_polygons)
    content["annotations"] *= 2

    assert import_labels(write_json(tmp_path / "a.json", content), images, tmp_path / "DATA").problems == {}


def test_images_that_cannot_be_used(tmp_path: Path, images: Path) -> None:
    """Missing, unreadable, or of another size than the labels: each is listed with the reason."""
    masks = {**MASKS, "lost.png": blob(3), "other.png": blob(4), "twice.png": blob(5)}
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:100])
    write(images / "other.png", noise(4, 160, 120))
    for folder in ("x", "y"):
        write(images / folder / "twice.png", noise(5, 120, 160))

    done = import_labels(write_coco(tmp_path / "a.json", masks), images, tmp_path / "DATA", keep_empty=True)

    assert done.skipped == {
        "image not found": ["lost.png"],
        "several images fit the name in the labels": ["twice.png"],
        "image cannot be read": ["b.png"],
        "size differs from the labels": ["other.png"],
    }
    assert (len(done.areas), done.negatives) == (2, 0)


def test_images_that_were_shrunk(tmp_path: Path, images: Path) -> None:
    """The mask has the size of the image, and the object its place."""
    write(images / "a.png", noise(0, 60, 80))
    done = import_labels(write_coco(tmp_path / "a.json", MASKS), images, tmp_path / "DATA")
    mask = imported_masks(tmp_path / "DATA")["a.png"]

    assert done.resized == 1
    assert mask.shape == (60, 80)
    assert iou(mask, MASKS["a.png"][::2, ::2]) > 0.95


@pytest.mark.parametrize(
    ("labels", "image", "stored", "expected"),
    [
        (None, (30, 40), (40, 30), (30, 40)),
        ((30, 40), (30, 40), (40, 30), (30, 40)),
        ((40, 30), (30, 40), (40, 30), (40, 30)),
        ((60, 80), (30, 40), (30, 40), (60, 80)),
        ((40, 30), (30, 40), (30, 40), None),
        ((10**9, 10**9), (40, 40), (40, 40), None),
    ],
)
def test_the_size_to_draw_for(
    labels: tuple[int, int] | None, image: tuple[int, int], stored: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    """That of the image as shown, or as stored where the labels say so, or another one of the same shape."""
    assert drawn_size(labels, image, stored) == expected


@pytest.mark.parametrize("is_turned", [True, False])
def test_images_that_exif_turns(tmp_path: Path, is_turned: bool) -> None:
    """Labels fit the image as shown or as stored, by their size; training reads image and mask alike."""
    stored = scene(0, 120, 160)
    shown = np.ascontiguousarray(np.rot90(stored, -1))
    (tmp_path / "a.jpg").write_bytes(with_exif(jpeg(stored), 6))
    expected = shown if is_turned else stored
    mask = blob(0, *expected.shape[:2])

    import_labels(write_coco(tmp_path / "a.json", {"a.jpg": mask}), tmp_path, tmp_path / "DATA")

    (pair,) = find_data([tmp_path / "DATA"]).train
    image, read = read_pair(pair.image, pair.mask)
    assert np.array_equal(read, mask > 0)
    assert image.shape == expected.shape
    assert np.abs(image[..., ::-1].astype(int) - expected).mean() < 8  # JPEG


def test_cutouts_are_read_as_stored(tmp_path: Path) -> None:
    """The image is written without transparency, with the colors behind it."""
    source = write_cutouts(tmp_path / "cutouts", {"a.png": MASKS["a.png"]})
    import_labels(source, None, tmp_path / "DATA")
    image = cv2.imread(str(tmp_path / "DATA" / "TrainDataset" / "Imgs" / "a.png"), cv2.IMREAD_UNCHANGED)

    assert image is not None
    assert np.array_equal(image[..., ::-1], noise(0, *MASKS["a.png"].shape))
    with pytest.raises(UsageError, match="contain their masks as transparency"):
        import_labels(source, source, tmp_path / "other")


def test_an_opaque_image_among_cutouts(tmp_path: Path) -> None:
    source = write_cutouts(tmp_path / "cutouts", {"a.png": MASKS["a.png"]})
    write(source / "b.png", noise(1))
    done = import_labels(source, None, tmp_path / "DATA", keep_empty=True)

    assert done.skipped == {"no object with an area": ["b.png"]}
    assert done.problems == {"images without transparency": 1}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.jpg", "x/b.jpg"], ["a", "b"]),
        (["x/a.jpg", "y/a.png", "y/b.jpg"], ["x_a", "y_a", "b"]),
        (["a.jpg", "a.png"], ["a", "a-2"]),
        (["x/a.jpg", "y/A.jpg"], ["x_a", "y_A"]),
        (["x_a.jpg", "x/a.jpg", "y/a.jpg"], ["x_a", "x_a-2", "y_a"]),
    ],
)
def test_names(paths: list[str], expected: list[str]) -> None:
    """Are those of the images, unless several share one."""
    assert unique_stems([PurePath(path) for path in paths]) == expected


def test_images_of_one_name_in_two_folders(tmp_path: Path) -> None:
    """Both are imported, each with its own mask."""
    masks = {"x/a.png": blob(0), "y/a.png": blob(1)}
    images = write_images(tmp_path / "images", masks)
    import_labels(write_coco(tmp_path / "a.json", masks), images, tmp_path / "DATA")

    imported = imported_masks(tmp_path / "DATA")
    assert np.array_equal(imported["x_a.png"], masks["x/a.png"])
    assert np.array_equal(imported["y_a.png"], masks["y/a.png"])


def test_images_beside_the_labels(tmp_path: Path) -> None:
    """Need not be named."""
    folder = write_labelme(write_images(tmp_path / "both", MASKS), MASKS)

    assert len(import_labels(folder, None, tmp_path / "DATA").areas) == 3
    with pytest.raises(UsageError, match="contains masks only"):
        import_labels(write_index_masks(tmp_path / "masks", MASKS), None, tmp_path / "other")


def test_nothing_is_overwritten(tmp_path: Path, images: Path) -> None:
    """The folder must be empty, but for what browsing it leaves."""
    source = write_coco(tmp_path / "a.json", MASKS)
    for name, message in [("mine.txt", "is not empty, it contains mine.txt"), (".camox-import-x", "another import")]:
        out = tmp_path / f"out {name}"
        out.mkdir()
        (out / name).touch()
        with pytest.raises(UsageError, match=message):
            import_labels(source, images, out)
        assert files(out) == [name]
    out = tmp_path / "empty"
    out.mkdir()
    (out / ".DS_Store").touch()

    assert len(import_labels(source, images, out).areas) == 3


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_nothing_is_left_of_half_an_import(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], is_there: bool
) -> None:
    """Whatever ends it; an empty folder that was there stays."""
    out = tmp_path / "DATA"
    if is_there:
        out.mkdir()
    draw: Callable[..., Any] = module._draw

    def fail(objects: Any, size: Any) -> Any:
        if any(out.rglob("*.png")):
            raise error
        return draw(objects, size)

    monkeypatch.setattr(module, "_draw", fail)
    with pytest.raises(error):
        import_labels(write_coco(tmp_path / "a.json", MASKS), images, out)

    assert out.exists() == is_there
    assert not is_there or not any(out.iterdir())


def test_no_mask_at_all(tmp_path: Path, images: Path) -> None:
    """Is an error with the reasons, and nothing is written."""
    source = write_yolo(tmp_path / "labels", {"z.png": MASKS["a.png"]})
    with pytest.raises(DataError, match="no mask could be made, 1 image: image not found, 3 images: no label"):
        import_labels(source, images, tmp_path / "DATA")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no images in"):
        import_labels(source, tmp_path / "none", tmp_path / "DATA")

    assert not (tmp_path / "DATA").exists()
