from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from camoxpert_cli.config.eval_options import EmptyMasks, Protocol
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.evaluation.given_predictions import evaluate_predictions
from camoxpert_cli.evaluation.image import read_prediction, score_and_save, score_files
from camoxpert_cli.metrics.image_scores import score_image
from tests.helpers.image_files import noise, touch, write

MASK = np.zeros((20, 30), np.uint8)
MASK[5:15, 3:20] = 255
GREY = noise(0, 20, 30)[..., 0]


def test_a_map_of_another_size(tmp_path: Path) -> None:
    """It is brought to its mask's height and width, bilinearly; one of the mask's own size is taken as it is."""
    small = np.zeros((10, 15), np.uint8)
    small[:, 8:] = 200
    path = write(tmp_path / "map.png", small)
    grey, resized = read_prediction(path, (20, 30))

    assert (grey.shape, resized) == ((20, 30), True)
    assert [int(grey[0, column]) for column in (14, 15, 16, 17)] == [0, 50, 150, 200]
    assert not read_prediction(path, (10, 15))[1]
    assert np.array_equal(read_prediction(path, (10, 15))[0], small)


@pytest.mark.parametrize("stretch", [True, False])
def test_protocol(tmp_path: Path, stretch: bool) -> None:
    """Scores of a map are those by the protocol asked for, in memory and from files; the map that is saved is whole."""
    grey = (GREY // 2 + 20).astype(np.uint8)
    expected = score_image(grey, MASK > 0, stretch=stretch).measures
    saved = score_and_save(grey, MASK > 0, Protocol(stretch), [], tmp_path / "map.png", new=True)
    pair = Pair("map", tmp_path / "image.png", write(tmp_path / "mask.png", MASK))
    read, resized = score_files(tmp_path / "map.png", pair, Protocol(stretch))

    assert saved.measures == read.measures == expected
    assert not resized
    assert expected != score_image(grey, MASK > 0, stretch=not stretch).measures


@pytest.mark.parametrize(("empty", "iou"), [("exact", 1), ("reference", 0), ("apart", 0)])
def test_a_mask_without_object(tmp_path: Path, empty: EmptyMasks, iou: float) -> None:
    """What it is scored as is part of the protocol."""
    nothing = np.zeros((20, 30), np.uint8)
    pair = Pair("map", tmp_path / "image.png", write(tmp_path / "mask.png", nothing))
    scores, _ = score_files(write(tmp_path / "map.png", nothing), pair, Protocol(empty=empty))

    assert scores.iou == iou


def test_given_maps(tmp_path: Path) -> None:
    """Each map is scored by the mask of its own name, whatever it shows; both are shown, and the image if at hand."""
    names = ["COD10K-NonCAM-7-Other-1", "a", "b"]
    for at, name in enumerate(names):
        write(tmp_path / "maps" / f"{name}.png", np.roll(GREY, at, axis=0))
        write(tmp_path / "SET" / "GT" / f"{name}.png", np.roll(MASK, at, axis=1))
        cv2.imwrite(str(tmp_path / "SET" / f"{name}.bmp"), noise(at, 20, 30))
    evaluation = evaluate_predictions(
        tmp_path / "maps", tmp_path / "SET" / "GT", tmp_path / "SET", Protocol(False), include_noncam=True
    )
    (scored,) = evaluation.sets

    assert (scored.name, scored.names) == ("SET", names)
    for at in range(3):
        grey, mask = np.roll(GREY, at, axis=0), np.roll(MASK, at, axis=1) > 0
        image, shown_mask, shown = evaluation.show("SET", at)
        assert scored.scores[at].measures == score_image(grey, mask, stretch=False).measures
        assert image is not None
        assert np.array_equal(image, noise(at, 20, 30)[..., ::-1])
        assert np.array_equal(shown_mask, mask)
        assert np.array_equal(shown, grey)
    assert evaluation.to_json()["stretch"] is False


def test_maps_of_images_that_show_nothing_camouflaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """COD10K's NonCAM masks are left out with their maps, as everywhere, and told; nothing else is an error."""
    maps, masks = tmp_path / "maps", tmp_path / "SET" / "GT"
    for name in ("COD10K-NonCAM-7-Other-1", "a"):
        write(maps / f"{name}.png", GREY)
        write(masks / f"{name}.png", MASK)
    assert evaluate_predictions(maps, masks, None, Protocol()).sets[0].names == ["a"]
    assert "Skipped 1 prediction for NonCAM images" in capsys.readouterr().err

    for folder in (maps, masks):
        (folder / "a.png").unlink()
    with pytest.raises(DataError, match=r"no predictions in .* except 1 for NonCAM images") as caught:
        evaluate_predictions(maps, masks, None, Protocol())
    assert "--include-noncam" in caught.value.hint


def test_maps_in_files_of_another_kind(tmp_path: Path) -> None:
    """They are named."""
    touch(tmp_path / "maps", ["a.npy", "b.npy"])
    write(tmp_path / "GT" / "a.png", MASK)

    with pytest.raises(DataError, match=r"no predictions in .*: skipped 2 \.npy"):
        evaluate_predictions(tmp_path / "maps", tmp_path / "GT", None, Protocol())


def test_masks_as_their_own_maps(tmp_path: Path) -> None:
    """Every score would be perfect: a folder was typed twice."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="--predictions and --masks are the same folder"):
        evaluate_predictions(tmp_path, tmp_path / "link", None, Protocol())
