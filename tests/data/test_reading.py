from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_cli.data.reading import read_image, read_mask, read_pair
from camoxpert_cli.errors import DataError

from .files import noise, square_mask, write


def jpeg(pixels: NDArray[np.uint8], *options: int) -> bytes:
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def with_exif(content: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    """A JPEG with an EXIF segment that asks for a turn; `thumbnail` follows within the segment."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + bytes([0, orientation]) + b"\x00\x00"
    body = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + entry + bytes(4) + thumbnail
    return content[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + content[2:]


def test_image_is_rgb(tmp_path: Path) -> None:
    """A picture comes as uint8 (H, W, 3) with red first."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[..., 0] = 200

    image = read_image(write(tmp_path / "red.png", pixels))

    assert image.dtype == np.uint8
    assert np.array_equal(image, pixels)


@pytest.mark.parametrize("kind", ["grey", "alpha", "16 bit"])
def test_image_of_other_kinds(tmp_path: Path, kind: str) -> None:
    """Grey, transparent and 16-bit pictures come as 8-bit RGB."""
    grey = noise(0)[..., 0]
    kinds: dict[str, NDArray[Any]] = {
        "grey": grey,
        "alpha": np.dstack([grey, grey, grey, 255 - grey]),
        "16 bit": grey.astype(np.uint16) * 257,
    }

    assert np.array_equal(read_image(write(tmp_path / "picture.png", kinds[kind])), np.dstack([grey] * 3))


def test_mask_threshold(tmp_path: Path) -> None:
    """Grey values above 127 are foreground, as uint8 of 0 and 1."""
    mask = read_mask(write(tmp_path / "mask.png", np.array([[0, 1, 127, 128, 254, 255]], np.uint8)))

    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize(
    "kind", ["grey", "three channels", "opaque", "alpha alone", "black alpha alone", "colour and alpha", "16 bit"]
)
def test_masks_of_every_kind(tmp_path: Path, kind: str) -> None:
    """The same foreground is read however a drawing program kept it."""
    grey = square_mask(0)
    full, none = np.full_like(grey, 255), np.zeros_like(grey)
    transparent_white, opaque_black = grey.copy(), grey.copy()
    transparent_white[0] = opaque_black[-1] = 255
    kinds: dict[str, NDArray[Any]] = {
        "grey": grey,
        "three channels": np.dstack([grey] * 3),
        "opaque": np.dstack([grey, grey, grey, full]),
        "alpha alone": np.dstack([full, full, full, grey]),
        "black alpha alone": np.dstack([none, none, none, grey]),
        "colour and alpha": np.dstack([*[transparent_white] * 3, opaque_black]),
        "16 bit": grey.astype(np.uint16) * 257,
    }

    assert np.array_equal(read_mask(write(tmp_path / "mask.png", kinds[kind])), grey // 255)


def test_mask_as_jpeg(tmp_path: Path) -> None:
    """The noise of JPEG compression does not reach the mask."""
    mask = np.kron(np.eye(4), np.ones((16, 16))).astype(np.uint8)

    assert np.array_equal(read_mask(write(tmp_path / "mask.jpg", mask * 255)), mask)


@pytest.mark.parametrize("value", [0, 255])
def test_empty_and_full_masks(tmp_path: Path, value: int) -> None:
    """Masks without an animal or without background are masks."""
    pixels = np.full((4, 4, 4), value, np.uint8)
    pixels[..., 3] = 255

    assert (read_mask(write(tmp_path / "mask.png", pixels)) == value // 255).all()


def test_mask_of_zeros_and_ones(tmp_path: Path) -> None:
    """A mask of 0 and 1 in place of 0 and 255 is refused: it would be read as empty."""
    path = write(tmp_path / "mask.png", square_mask(0) // 255)

    with pytest.raises(DataError, match="holds only 0 and 1"):
        read_mask(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_unreadable_file(tmp_path: Path, content: bytes, read: Callable[[Path], object]) -> None:
    """A file that is no picture is an error that names it."""
    path = tmp_path / "broken.png"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"broken\.png cannot be read as a picture"):
        read(path)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is an error that names it."""
    with pytest.raises(DataError, match=r"cannot read .*gone\.jpg: No such file"):
        read_image(tmp_path / "gone.jpg")


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_truncated_jpeg(tmp_path: Path, kept: float, progressive: int, extension: str) -> None:
    """A JPEG that is cut off is refused, whatever its extension and though its thumbnail is complete."""
    content = jpeg(noise(0, 64, 64), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    whole = with_exif(content, 1, thumbnail=jpeg(noise(1, 8, 8)))
    path = tmp_path / f"cut{extension}"
    path.write_bytes(whole[: int(len(whole) * kept)])

    with pytest.raises(DataError, match="is cut off: the end of the JPEG is missing"):
        read_image(path)


@pytest.mark.parametrize("progressive", [0, 1])
def test_complete_jpegs(tmp_path: Path, progressive: int) -> None:
    """Fill bytes between segments, a thumbnail and bytes after the end do not make a JPEG incomplete."""
    content = jpeg(noise(0), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    odd = with_exif(content, 1, thumbnail=jpeg(noise(1, 8, 8)))
    odd = odd[:2] + b"\xff\xff" + odd[2:] + b"film" * 1000
    (tmp_path / "plain.jpg").write_bytes(content)
    (tmp_path / "odd.jpg").write_bytes(odd)

    assert np.array_equal(read_image(tmp_path / "odd.jpg"), read_image(tmp_path / "plain.jpg"))


@pytest.mark.parametrize("extension", [".png", ".bmp"])
def test_truncated_files_of_other_formats(tmp_path: Path, extension: str) -> None:
    """A PNG or BMP that is cut off is refused as well."""
    path = write(tmp_path / f"cut{extension}", noise(0))
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(DataError, match="cannot be read"):
        read_image(path)


def test_pair_follows_the_mask_that_was_drawn_on_the_turned_picture(tmp_path: Path) -> None:
    """A picture is turned as its EXIF entry asks, so that it has the size of a mask drawn in a viewer."""
    content = jpeg(noise(0, 24, 32))
    (tmp_path / "turned.jpg").write_bytes(with_exif(content, 6))
    (tmp_path / "stored.jpg").write_bytes(content)

    image, mask = read_pair(tmp_path / "turned.jpg", write(tmp_path / "mask.png", square_mask(0, 32, 24)))

    assert image.shape[:2] == mask.shape == (32, 24)
    assert np.array_equal(image, np.rot90(read_image(tmp_path / "stored.jpg"), -1))


def test_pair_follows_the_mask_that_was_drawn_on_the_stored_picture(tmp_path: Path) -> None:
    """Where the mask has the size of the picture as stored, the picture is not turned."""
    content = jpeg(noise(0, 24, 32))
    (tmp_path / "turned.jpg").write_bytes(with_exif(content, 6))
    (tmp_path / "stored.jpg").write_bytes(content)

    image, mask = read_pair(tmp_path / "turned.jpg", write(tmp_path / "mask.png", square_mask(0, 24, 32)))

    assert mask.shape == (24, 32)
    assert np.array_equal(image, read_image(tmp_path / "stored.jpg"))


def test_pair_of_different_sizes(tmp_path: Path) -> None:
    """A mask of another size than its picture is an error that tells both sizes."""
    image = write(tmp_path / "image.png", noise(0, 24, 32))
    mask = write(tmp_path / "mask.png", square_mask(0, 20, 32))

    with pytest.raises(DataError, match=r"image\.png is 32×24 .*mask\.png is 32×20"):
        read_pair(image, mask)
