from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camoxpert_cli.data.first_look import look_at_test_set, look_at_training
from camoxpert_cli.data.headers import stated_size
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.sizes import is_same_shape
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import jpeg, noise, scene, square_mask, with_exif, write, write_pairs


def pair_of(folder: Path, name: str, size: tuple[int, int], mask: tuple[int, int], suffix: str = ".png") -> Pair:
    """An image and a mask of these heights and widths."""
    image = write(folder / "Imgs" / f"{name}{suffix}", noise(0, *size))
    return Pair(name, image, write(folder / "GT" / f"{name}{suffix}", square_mask(0, *mask)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
def test_a_pair_that_cannot_be_trained_on(tmp_path: Path, suffix: str) -> None:
    """One mask of another size among many pairs is found before training, whatever format it has."""
    pairs = [*write_pairs(tmp_path, 3), pair_of(tmp_path, "odd", (40, 60), (38, 60), suffix)]
    look_at_training(pairs[:3])

    with pytest.raises(DataError, match=rf"odd{suffix} is 60×40 pixels .*odd{suffix} is 60×38"):
        look_at_training(pairs)


def test_a_test_set_with_masks_of_other_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are counted in a warning, and the first is named; other sets get none."""
    even = [pair_of(tmp_path, name, (40, 60), (40, 60)) for name in "abc"]
    look_at_test_set("CAMO", even)
    assert capsys.readouterr().err == ""

    odd = [pair_of(tmp_path, "d", (40, 60), (38, 60)), pair_of(tmp_path, "e", (80, 120), (40, 60), ".jpg")]
    look_at_test_set("CAMO", even + odd)
    assert capsys.readouterr().err == (
        "Warning: CAMO: image and mask differ in size for 2 of 5 pairs, the first is d; predictions are resized "
        "to the size of the masks\n"
    )


@pytest.mark.parametrize("mask", [(60, 40), (40, 40), (20, 60)])
def test_a_mask_of_another_shape(tmp_path: Path, mask: tuple[int, int]) -> None:
    """It is that of another image, or turned: nothing is scored by it."""
    with pytest.raises(DataError, match="check that the mask belongs to this image"):
        look_at_test_set("CAMO", [pair_of(tmp_path, "a", (40, 60), mask)])


@pytest.mark.parametrize("mask", [(40, 60), (60, 40)])
def test_turned_images_fit_either_way(
    tmp_path: Path, mask: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A mask may have been drawn on an image as it is stored or as it is shown."""
    (tmp_path / "a.jpg").write_bytes(with_exif(jpeg(scene(0, 40, 60)), 6))
    pair = Pair("a", tmp_path / "a.jpg", write(tmp_path / "a.png", square_mask(0, *mask)))
    look_at_training([pair])
    look_at_test_set("CAMO", [pair])

    assert capsys.readouterr().err == ""


def test_what_is_not_decoded(tmp_path: Path) -> None:
    """Sizes are read from the first bytes: of many images none is read to its end."""
    pair = pair_of(tmp_path, "a", (40, 60), (40, 60), ".jpg")
    pair.image.write_bytes(pair.image.read_bytes()[:700])

    look_at_training([pair] * 200)


def test_sizes_that_are_not_at_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TIFF tells them at its end, a JPEG of some cameras behind long entries: that is no reason to decode them."""
    tiff, photograph = (
        pair_of(tmp_path, name, (240, 360), (240, 360), suffix) for name, suffix in (("a", ".tif"), ("b", ".jpg"))
    )
    content = photograph.image.read_bytes()
    entry = b"\xff\xe2\xff\xff" + bytes(0xFFFD)
    photograph.image.write_bytes(content[:2] + 2 * entry + content[2:])
    assert stated_size(tiff.image.read_bytes()[: 1 << 16]) is None

    monkeypatch.setattr("camoxpert_cli.data.first_look.read_matching_image", pytest.fail)
    look_at_training([tiff, photograph])


@pytest.mark.parametrize("look", [look_at_training, lambda pairs: look_at_test_set("CAMO", pairs)])
def test_masks_that_say_nothing(tmp_path: Path, look: object) -> None:
    """A data set of class numbers is refused before anything is trained on it or scored by it."""
    pairs = write_pairs(tmp_path, 100)
    for pair in pairs:
        write(pair.mask, (square_mask(0, int(pair.name) % 3 + 24) > 0) * np.uint8(3))

    with pytest.raises(
        DataError, match=r"the mask .*000\.png contains no value high enough to mark an object, only 0 and 3; expected"
    ):
        look(pairs)  # type: ignore[operator]


@pytest.mark.parametrize("look", [look_at_training, lambda pairs: look_at_test_set("CAMO", pairs)])
def test_masks_that_say_two_things(tmp_path: Path, look: object) -> None:
    """One mask of class numbers with pixels to ignore is enough to refuse a data set, before training."""
    pairs = write_pairs(tmp_path, 10)
    mask = np.asarray(square_mask(0, 24 + int(pairs[5].name) % 3) // 255)
    mask[0] = 255
    write(pairs[5].mask, mask)

    with pytest.raises(
        DataError, match=r"005\.png contains 0, 1 and 255: small .* 255 may mark pixels to ignore"
    ) as caught:
        look(pairs)  # type: ignore[operator]
    assert "camox import-labels" in caught.value.hint


def test_nothing_to_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning tells if masks are empty: all, or some, with the option for such images."""
    pairs = write_pairs(tmp_path, 3)
    for pair in pairs[:2]:
        write(pair.mask, np.zeros((24 + int(pair.name) % 3, 32), np.uint8))
    look_at_training(pairs[2:])
    assert capsys.readouterr().err == ""

    look_at_training(pairs)
    said = " ".join(capsys.readouterr().err.split())
    assert "no object in 2 of the 3 checked masks; --empty-as-negatives" in said

    look_at_training(pairs[:2])
    assert "no object in any of the checked masks (2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "other", "same"),
    [
        ((737, 964), (737, 964), True),
        ((737, 964), (735, 962), True),
        ((737, 964), (733, 968), True),
        ((737, 964), (368, 482), True),
        ((737, 964), (1474, 1928), True),
        ((737, 964), (964, 737), False),
        ((737, 964), (737, 900), False),
        ((24, 32), (9, 9), False),
    ],
)
def test_shapes(size: tuple[int, int], other: tuple[int, int], same: bool) -> None:
    """A few pixels, or another scale; which of both is the mask's makes no difference."""
    assert (is_same_shape(size, other), is_same_shape(other, size)) == (same, same)
