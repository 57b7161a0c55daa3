"""What values of masks and maps mean, whatever kind of file they come in."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from camoxpert_cli.config.eval_options import Protocol
from camoxpert_cli.data.levels import UnclearError, foreground_of, levels_of
from camoxpert_cli.data.reading import read_mask, read_scored_mask
from camoxpert_cli.errors import DataError
from camoxpert_cli.evaluation.given_predictions import evaluate_predictions
from camoxpert_cli.evaluation.image import read_prediction
from tests.helpers.image_files import palette_png, write

# The colours of VOC's first classes: dark red, dark green, olive, dark blue, ... grey, and the light border.
VOC = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [224, 224, 192]], np.uint8)
OBJECT = np.zeros((24, 30), np.bool_)
OBJECT[5:20, 6:25] = True
SUFFIXES = {"uint8": [".png", ".tif", ".bmp", ".webp"], "uint16": [".png", ".tif"]}
HIGHEST = {"uint8": 255, "uint16": 65535, "int32": 2**31 - 1}


@st.composite
def masks(draw: st.DrawFn) -> tuple[str, NDArray[Any]]:
    """A suffix, and what a tool may write for `OBJECT`: one value on black, of any type, in one to four channels.

    Or as a palette, whose second colour it is.
    """
    dtype = draw(st.sampled_from(["uint8", "uint16", "int32", "float32", "float64"]))
    value: st.SearchStrategy[float]
    if dtype in HIGHEST:
        value = st.one_of(
            st.sampled_from([1, 2, 100, 127, 128, 129, 255, HIGHEST[dtype]]), st.integers(1, HIGHEST[dtype])
        )
    else:
        value = st.one_of(st.sampled_from([1.0, 0.5, 255.0, 65535.0, 1e6, -1.0]), st.floats(0.01, 300))
    channels = draw(st.sampled_from([1, 1, 3, 4])) if dtype in SUFFIXES else 1
    colour = [draw(value) for _ in range(3)] if draw(st.booleans()) else [draw(value)] * 3
    pixels = np.where(OBJECT[..., None], np.array(colour, dtype), np.zeros(3, dtype))
    if channels == 1:
        return draw(st.sampled_from(SUFFIXES.get(dtype, [".tif"]))), pixels[..., 0]
    if channels == 3:
        return draw(st.sampled_from([*SUFFIXES[dtype], "palette"] if dtype == "uint8" else SUFFIXES[dtype])), pixels
    alpha = draw(st.sampled_from(["opaque", "object", "clear"]))
    levels = {"opaque": OBJECT | True, "object": OBJECT, "clear": OBJECT & False}[alpha].astype(dtype) * HIGHEST[dtype]
    return draw(st.sampled_from([".png", ".tif"])), np.dstack([pixels, levels])


@settings(max_examples=40, deadline=None)
@given(masks())
def test_a_mask_is_never_read_as_empty(written: tuple[str, NDArray[Any]]) -> None:
    """Whatever a mask holds on black is read as the object, or it is refused with its values."""
    suffix, pixels = written
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (f"mask{suffix}" if suffix.startswith(".") else "mask.png")
        if suffix == "palette":
            path.write_bytes(palette_png(OBJECT.astype(np.uint8), np.stack([pixels[0, 0], pixels[12, 12]])))
        else:
            write(path, pixels)
        for read in (read_mask, read_scored_mask):
            mask = read_or_complaint(read, path)
            if isinstance(mask, DataError):
                assert " contains " in mask.message
                assert "expected" in mask.message
                assert "cp -r" in mask.hint
            else:
                # WebP is lossy where an outline is.
                assert np.mean(mask != OBJECT) <= (0.1 if suffix == ".webp" else 0)


def read_or_complaint(read: Callable[[Path], NDArray[np.uint8]], path: Path) -> NDArray[np.uint8] | DataError:
    try:
        return read(path)
    except DataError as error:
        return error


@pytest.mark.parametrize(
    "pixels",
    [
        OBJECT.astype(np.uint16) * 255,
        OBJECT.astype(np.uint16) * 65535,
        OBJECT.astype(np.int32) * 255,
        OBJECT.astype(np.float32),
        OBJECT.astype(np.float64) * 255,
        np.dstack([OBJECT.astype(np.uint16) * 255] * 3 + [np.full(OBJECT.shape, 65535, np.uint16)]),
    ],
    ids=["0/255 in 16 bits", "16 bits", "32 bits", "0/1 as floats", "0/255 as floats", "0/255 and 16-bit alpha"],
)
def test_masks_without_doubt(tmp_path: Path, pixels: NDArray[Any]) -> None:
    """What can mean one thing only is read."""
    assert np.array_equal(read_mask(write(tmp_path / "mask.tif", pixels)), OBJECT)


def test_a_mask_of_one_bit(tmp_path: Path) -> None:
    """Its 1 is white."""
    path = tmp_path / "mask.pbm"
    path.write_bytes(b"P4\n8 2\n" + bytes([0b11110000, 0]))  # where 1 is black, as the format has it

    assert read_mask(path).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [1] * 8]
    assert levels_of(OBJECT).grey.max() == 255


@pytest.mark.parametrize(
    ("pixels", "complaint"),
    [
        (OBJECT.astype(np.uint8), "high enough to mark an object, only 0 and 1; expected 0 and 255"),
        (OBJECT.astype(np.uint16), "high enough to mark an object, only 0 and 1; expected 0 and 255"),
        (OBJECT.astype(np.uint8) * 128, "high enough to mark an object, only 0 and 128; expected 0 and 255"),
        (OBJECT.astype(np.uint16) * 1000, "high enough to mark an object, only 0 and 1000; expected 0 and 65535"),
        (
            np.arange(30, dtype=np.uint8) % 21 * OBJECT,
            "only 19 values, the largest 16, 17, 18, 19 and 20; exp",
        ),
        (
            VOC[OBJECT.astype(int)],
            r"high enough to mark an object, only \(0, 0, 0\) and \(128, 0, 0\); expected 0 and 255",
        ),
        (np.dstack([OBJECT.astype(np.uint8) * 4, *[np.zeros(OBJECT.shape, np.uint8)] * 2]), r"\(4, 0, 0\)"),
        (np.where(OBJECT, -1, 255).astype(np.int32), "contains values from -1 to 255, expected 0..255"),
        (np.where(OBJECT, np.nan, 0).astype(np.float32), "contains values from nan to nan"),
        (
            np.dstack([*[OBJECT * np.uint8(255)] * 3, (~OBJECT) * np.uint8(255)]),
            r"mark an object, only \(0, 0, 0, 255\) and",
        ),
    ],
)
def test_masks_that_would_be_empty(tmp_path: Path, pixels: NDArray[Any], complaint: str) -> None:
    """They are refused with how many values there are, the largest, and what was expected."""
    with pytest.raises(DataError, match=complaint):
        read_mask(write(tmp_path / "mask.tif", pixels))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_class_indices_next_to_255(tmp_path: Path, suffix: str, dtype: type[np.generic]) -> None:
    """255 may be the object or mark what to ignore, so that such a mask is refused, with what it contains."""
    pixels = OBJECT.astype(dtype)
    pixels[:2] = 255
    for read in (read_mask, read_scored_mask):
        with pytest.raises(DataError, match="contains 0, 1 and 255: small numbers are usually class") as caught:
            read(write(tmp_path / f"mask{suffix}", pixels))
    assert f"camox import-labels {tmp_path} --images DIR --out DATA --class N" in caught.value.hint
    assert "every nonzero pixel is object: cp -r" in caught.value.hint


def test_classes_of_voc(tmp_path: Path) -> None:
    """Twenty classes and a border."""
    pixels = np.arange(30, dtype=np.uint8) % 21 * OBJECT
    pixels[3] = 255
    with pytest.raises(DataError, match="contains 20 values, the largest 17, 18, 19, 20 and 255: small"):
        read_mask(write(tmp_path / "mask.png", pixels))


@pytest.mark.parametrize(
    "change",
    [
        lambda mask: cv2.GaussianBlur(mask, (5, 5), 0),
        lambda mask: cv2.imdecode(cv2.imencode(".jpg", mask)[1], cv2.IMREAD_GRAYSCALE),
        lambda mask: np.where(np.arange(mask.size).reshape(mask.shape) == 7, 3, mask).astype(np.uint8),
        lambda mask: np.where(mask > 0, 254, 3).astype(np.uint8),
    ],
    ids=["blurred", "JPEG", "a stray pixel", "no 255"],
)
def test_small_levels_that_are_no_classes(tmp_path: Path, change: Callable[[NDArray[np.uint8]], Any]) -> None:
    """Masks of 0 and 255 that were blurred, compressed or touched are read as they were."""
    mask = cv2.resize(OBJECT.astype(np.uint8), (300, 240), interpolation=cv2.INTER_NEAREST) * 255
    read = read_mask(write(tmp_path / "mask.png", change(np.asarray(mask, dtype=np.uint8))))

    assert np.mean(read != mask // 255) < 0.01


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(129, 255), st.integers(129, 255))
def test_masks_that_would_be_full(tmp_path: Path, background: int, foreground: int) -> None:
    """Two levels of which neither is background are refused, unless they are as near as those of one that JPEG made."""
    path = write(tmp_path / "mask.png", np.where(OBJECT, foreground, background).astype(np.uint8))
    for read in (read_mask, read_scored_mask):
        if abs(background - foreground) > 24:
            low, high = sorted((background, foreground))
            with pytest.raises(DataError, match=f"contains {low} and {high}, all of which would be read as object"):
                read(path)
        else:
            assert read(path).all()


def test_a_mask_of_classes_in_colour(tmp_path: Path) -> None:
    """Classes of a palette whose border alone is bright are refused: objects would be lost. A bright one is read."""
    classes = OBJECT.astype(np.uint8)
    classes[4] = 4
    (tmp_path / "classes.png").write_bytes(palette_png(classes, VOC))
    (tmp_path / "one.png").write_bytes(palette_png(OBJECT.astype(np.uint8) * 3, VOC))

    with pytest.raises(DataError, match="some of which would be read as background"):
        read_mask(tmp_path / "classes.png")
    assert np.array_equal(read_mask(tmp_path / "one.png"), OBJECT)


@pytest.mark.parametrize("kind", ["classes", "palette", "colours", "alpha"])
def test_the_command_that_mends(tmp_path: Path, kind: str) -> None:
    """What the hint says to type makes masks of all files in the folder, and keeps them as they were."""
    folder = tmp_path / "odd [name] it's" / "GT"
    pixels = OBJECT.astype(np.uint8)
    contents = {
        "classes": cv2.imencode(".png", pixels * 20)[1].tobytes(),
        "palette": palette_png(pixels, VOC),
        "colours": cv2.imencode(".png", np.dstack([pixels * 255, pixels * 0, pixels * 0]))[1].tobytes(),
        "alpha": cv2.imencode(".png", np.dstack([*[pixels * 0 + 255] * 3, pixels * 100]))[1].tobytes(),
    }
    folder.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(contents[kind])
    with pytest.raises(DataError) as caught:
        read_mask(folder / "a.png")
    command = caught.value.hint.partition("every nonzero pixel is object: ")[2]
    for part in command.split(" && "):
        words = shlex.split(part)
        if words[:2] == ["python", "-c"]:
            run_here(words[2:])
        else:
            assert words[:2] == ["cp", "-r"]
            shutil.copytree(words[2], words[3])

    assert np.array_equal(read_mask(folder / "a.png"), OBJECT)
    assert np.array_equal(read_mask(folder / "b.png"), OBJECT)
    assert (folder.parent / "GT-before" / "a.png").read_bytes() == contents[kind]


def run_here(words: list[str]) -> None:
    """`python -c PROGRAM WORDS` without the time that another interpreter takes."""
    before = sys.argv
    sys.argv = ["-c", *words[1:]]
    try:
        exec(words[0], {})
    finally:
        sys.argv = before


def test_empty_masks_stay_masks(tmp_path: Path) -> None:
    """Nothing at all is no object, whatever type it has."""
    for dtype in ("uint8", "uint16", "float32"):
        assert not read_mask(write(tmp_path / "mask.tif", np.zeros((4, 4), dtype))).any()
    opaque = np.dstack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 255, np.uint8)])
    assert not read_mask(write(tmp_path / "mask.png", opaque)).any()


def test_colours_are_found_in_large_masks() -> None:
    """Not each pixel is looked at, and what is in colour is found where it covers a thousandth."""
    large = np.zeros((900, 1200, 3), np.uint8)
    large[100:400, 100:400] = 255
    foreground_of(large)
    large[600:640, 600:640] = (0, 0, 200)

    with pytest.raises(UnclearError, match="would be read as background"):
        foreground_of(large)


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".gif"])
def test_masks_of_several_pages(tmp_path: Path, suffix: str) -> None:
    """A file of several pages or frames is refused as a mask and as a map: the first may be any of them."""
    page = OBJECT.astype(np.uint8) * 255
    path = tmp_path / f"mask{suffix}"
    if suffix == ".tif":
        cv2.imwritemulti(str(path), [page, page[::-1].copy()])
    else:
        animation = cv2.Animation()
        animation.frames = [np.dstack([each] * 3) for each in (page, page[::-1].copy())]
        animation.durations = [10, 10]
        cv2.imwriteanimation(str(path), animation)

    for read in (read_mask, lambda path: read_prediction(path, page.shape)):
        with pytest.raises(DataError, match="contains several images, expected one"):
            read(path)


SOFT = np.linspace(0, 1, OBJECT.size).reshape(OBJECT.shape)
GREY = np.rint(SOFT * 255).astype(np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [
        np.dstack([GREY] * 3),
        np.dstack([GREY * 0] * 3 + [GREY]),
        np.dstack([GREY * 0 + 255] * 3 + [GREY]),
        np.dstack([GREY] * 3 + [GREY * 0 + 255]),
        np.dstack([GREY * 0 + 255, GREY * 0, GREY * 0, GREY]),
        GREY.astype(np.uint16) * 257,
        GREY.astype(np.uint16),
        SOFT.astype(np.float32),
        SOFT * 255,
    ],
    ids=["grey", "black alpha", "white alpha", "opaque", "red alpha", "16 bits", "8 in 16 bits", "shares", "floats"],
)
def test_maps_of_every_kind(tmp_path: Path, pixels: NDArray[Any]) -> None:
    """A map is read from where it is: grey levels, alpha, 16 bits or shares."""
    read, resized = read_prediction(write(tmp_path / "map.tif", pixels), OBJECT.shape)

    assert not resized
    assert np.abs(read.astype(int) - GREY).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "complaint"),
    [
        (cv2.applyColorMap(GREY, cv2.COLORMAP_JET), "[0-9.]+% of the pixels of the prediction .* are in color"),
        ((SOFT * 10 - 5).astype(np.float32), "contains values from -5 to 5"),
    ],
)
def test_maps_that_are_none(tmp_path: Path, pixels: NDArray[Any], complaint: str) -> None:
    """Heat maps and what comes before a sigmoid are refused."""
    with pytest.raises(DataError, match=complaint):
        read_prediction(write(tmp_path / "map.tif", pixels), OBJECT.shape)


def test_maps_of_a_palette(tmp_path: Path) -> None:
    """Grey colours are levels."""
    (tmp_path / "map.png").write_bytes(palette_png(GREY, np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(-1, 3)))

    assert np.array_equal(read_prediction(tmp_path / "map.png", OBJECT.shape)[0], GREY)


def test_maps_of_zeros_and_ones(tmp_path: Path) -> None:
    """They are scored right where maps are stretched, and refused where they would be nearly black."""
    write(tmp_path / "maps" / "a.png", OBJECT.astype(np.uint8))
    write(tmp_path / "SET" / "GT" / "a.png", OBJECT * np.uint8(255))
    folders = (tmp_path / "maps", tmp_path / "SET" / "GT", None)

    assert evaluate_predictions(*folders, Protocol()).sets[0].scores[0].iou == 1
    with pytest.raises(DataError, match="contain only 0 and 1, expected levels up to 255"):
        evaluate_predictions(*folders, Protocol(stretch=False))
