from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from camoxpert_cli.data.reading import CutOffError, read_image, read_mask, read_pair, read_scored_mask
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import jpeg, noise, scene, square_mask, with_exif, write

SIDE = 64  # what the images of some tests are to be shrunk to


def test_image_is_rgb(tmp_path: Path) -> None:
    """An image comes as uint8 (H, W, 3) with red first, beside its height and width."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[..., 0] = 200

    image, size = read_image(write(tmp_path / "red.png", pixels))

    assert image.dtype == np.uint8
    assert size == (4, 6)
    assert np.array_equal(image, pixels)


@pytest.mark.parametrize("kind", ["grey", "alpha", "16 bit"])
def test_image_of_other_kinds(tmp_path: Path, kind: str) -> None:
    """Grey, transparent and 16-bit images come as 8-bit RGB."""
    grey = noise(0)[..., 0]
    kinds: dict[str, NDArray[Any]] = {
        "grey": grey,
        "alpha": np.dstack([grey, grey, grey, 255 - grey]),
        "16 bit": grey.astype(np.uint16) * 257,
    }

    assert np.array_equal(read_image(write(tmp_path / "picture.png", kinds[kind]))[0], np.dstack([grey] * 3))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind", ["16 bits", "8 in 16 bits", "shares", "floats"])
def test_deep_images(tmp_path: Path, suffix: str, kind: str) -> None:
    """Values of images mean what those of masks do: none comes out black because it uses the lower byte alone."""
    pixels = noise(0)
    pixels[0, 0] = 255
    kinds: dict[str, NDArray[Any]] = {
        "16 bits": pixels.astype(np.uint16) * 257,
        "8 in 16 bits": pixels.astype(np.uint16),
        "shares": pixels.astype(np.float32) / 255,
        "floats": pixels.astype(np.float32),
    }
    if suffix == ".png" and kinds[kind].dtype == np.float32:
        pytest.skip("PNG has no floats")

    assert np.array_equal(read_image(write(tmp_path / f"picture{suffix}", kinds[kind]))[0], pixels)


def test_images_that_are_no_picture(tmp_path: Path) -> None:
    """Values that no picture has are refused."""
    with pytest.raises(DataError, match=r"the image .* contains values from -1 to 254"):
        read_image(write(tmp_path / "picture.tif", noise(0).clip(0, 255).astype(np.float32) - 1))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_images_of_several_frames(tmp_path: Path, suffix: str) -> None:
    """The first one is the picture."""
    frames = [np.full((16, 16, 3), value, np.uint8) for value in (252, 0)]
    path = tmp_path / f"picture{suffix}"
    if suffix == ".tif":
        cv2.imwritemulti(str(path), frames)
    else:
        animation = cv2.Animation()
        animation.frames, animation.durations = frames, [10, 10]
        cv2.imwriteanimation(str(path), animation)

    assert read_image(path)[0].mean() > 200


def test_mask_threshold(tmp_path: Path) -> None:
    """Grey values above 127 are foreground, as uint8 of 0 and 1."""
    mask = read_mask(write(tmp_path / "mask.png", np.array([[0, 1, 127, 128, 254, 255]], np.uint8)))

    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_scored_mask_threshold(tmp_path: Path) -> None:
    """Maps are scored as the field's tools do: what counts as object is above 128."""
    mask = read_scored_mask(write(tmp_path / "mask.png", np.array([[0, 127, 128, 129, 255]], np.uint8)))

    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_masks_of_16_bits(tmp_path: Path, channels: int) -> None:
    """The threshold of 16 bits lies where that of 8 bits does, whatever the lower byte says."""
    deep = np.array([[0x00FF, 0x7F00, 0x7FFF, 0x8000, 0x80FF, 0xFF00]], np.uint16)
    opaque = np.full_like(deep, 0xFFFF)
    pixels = deep if channels == 1 else np.dstack([deep, deep, deep, opaque][:channels])

    assert read_mask(write(tmp_path / "mask.png", pixels)).tolist() == [[0, 0, 0, 1, 1, 1]]


def test_alpha_of_16_bits(tmp_path: Path) -> None:
    """So does the threshold of the alpha channel."""
    white = np.full((1, 4), 0xFFFF, np.uint16)
    alpha = np.array([[0, 0x7FFF, 0x8000, 0xFFFF]], np.uint16)

    assert read_mask(write(tmp_path / "mask.png", np.dstack([white, white, white, alpha]))).tolist() == [[0, 0, 1, 1]]


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

    with pytest.raises(DataError, match="contains no value high enough to mark an object, only 0 and 1"):
        read_mask(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\nIEND"])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_unreadable_file(tmp_path: Path, content: bytes, read: Callable[[Path], object]) -> None:
    """A file that is no image is an error that names it."""
    path = tmp_path / "broken.png"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"broken\.png cannot be decoded as an image"):
        read(path)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is an error that names it."""
    with pytest.raises(DataError, match=r"cannot read .*gone\.jpg: No such file"):
        read_image(tmp_path / "gone.jpg")


def is_cut_off(path: Path, img_size: int | None) -> bool:
    """Whether reading says so."""
    try:
        read_image(path, img_size)
    except CutOffError as error:
        return "is truncated: the end of the JPEG is missing" in error.message
    return False


@pytest.mark.parametrize("img_size", [None, 16])
def test_truncated_jpeg(tmp_path: Path, img_size: int | None) -> None:
    """A JPEG that is cut off is refused, whatever its extension and though its thumbnail is complete."""
    taken = []
    for kept, progressive, extension in itertools.product((0.3, 0.6, 0.99), (0, 1), (".jpg", ".png")):
        content = jpeg(noise(0, 64, 64), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
        whole = with_exif(content, 1, thumbnail=jpeg(noise(1, 8, 8)))
        path = tmp_path / f"cut{extension}"
        path.write_bytes(whole[: int(len(whole) * kept)])
        if not is_cut_off(path, img_size):
            taken.append((kept, progressive, extension))

    assert taken == []


@pytest.mark.parametrize("progressive", [0, 1])
def test_complete_jpegs(tmp_path: Path, progressive: int) -> None:
    """Fill bytes between segments, a thumbnail and bytes after the end do not make a JPEG incomplete."""
    content = jpeg(noise(0), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    odd = with_exif(content, 1, thumbnail=jpeg(noise(1, 8, 8)))
    odd = odd[:2] + b"\xff\xff" + odd[2:] + b"film" * 1000
    (tmp_path / "plain.jpg").write_bytes(content)
    (tmp_path / "odd.jpg").write_bytes(odd)

    assert np.array_equal(read_image(tmp_path / "odd.jpg")[0], read_image(tmp_path / "plain.jpg")[0])


@pytest.mark.parametrize("missing", [8, 20, 200])
def test_truncated_png(tmp_path: Path, missing: int) -> None:
    """A PNG that is cut off is refused, even where nothing but its end mark is missing."""
    path = write(tmp_path / "cut.png", noise(0))
    path.write_bytes(path.read_bytes()[:-missing])

    for read in (read_image, read_mask):
        with pytest.raises(CutOffError, match=r"cut\.png is truncated: the end of the PNG is missing"):
            read(path)


def test_truncated_bmp(tmp_path: Path) -> None:
    """A BMP that is cut off is refused as well."""
    path = write(tmp_path / "cut.bmp", noise(0))
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(DataError, match="cannot be decoded as an image"):
        read_image(path)


def test_pair_follows_the_mask_that_was_drawn_on_the_turned_image(tmp_path: Path) -> None:
    """An image is turned as its EXIF entry asks, so that it has the size of a mask drawn in a viewer."""
    content = jpeg(noise(0, 24, 32))
    (tmp_path / "turned.jpg").write_bytes(with_exif(content, 6))
    (tmp_path / "stored.jpg").write_bytes(content)

    image, mask = read_pair(tmp_path / "turned.jpg", write(tmp_path / "mask.png", square_mask(0, 32, 24)))

    assert image.shape[:2] == mask.shape == (32, 24)
    assert np.array_equal(image, np.rot90(read_image(tmp_path / "stored.jpg")[0], -1))


def test_pair_follows_the_mask_that_was_drawn_on_the_stored_image(tmp_path: Path) -> None:
    """Where the mask has the size of the image as stored, the image is not turned."""
    content = jpeg(noise(0, 24, 32))
    (tmp_path / "turned.jpg").write_bytes(with_exif(content, 6))
    (tmp_path / "stored.jpg").write_bytes(content)

    image, mask = read_pair(tmp_path / "turned.jpg", write(tmp_path / "mask.png", square_mask(0, 24, 32)))

    assert mask.shape == (24, 32)
    assert np.array_equal(image, read_image(tmp_path / "stored.jpg")[0])


def test_pair_of_different_sizes(tmp_path: Path) -> None:
    """A mask of another size than its image is an error that tells both sizes."""
    image = write(tmp_path / "image.png", noise(0, 24, 32))
    mask = write(tmp_path / "mask.png", square_mask(0, 20, 32))

    with pytest.raises(DataError, match=r"image\.png is 32×24 .*mask\.png is 32×20"):
        read_pair(image, mask)


@pytest.mark.parametrize(
    ("size", "orientations"),
    [
        *((size, range(1, 9)) for size in ((128, 128), (129, 195))),
        *((size, (1, 6)) for size in ((143, 128), (257, 259), (255, 320), (513, 600), (669, 540))),
    ],
)
def test_reduced_jpeg(tmp_path: Path, size: tuple[int, int], orientations: Sequence[int]) -> None:
    """A JPEG of twice, four times or eight times the size asked for comes smaller, turned, and with its full size.

    No side falls below what was asked for. Resized it is near to what full decoding gives: these differ by 0.8 to 2.2
    of 255 levels on average; moved by a pixel they would differ by 5 and more, turned otherwise by 37 and more.
    """
    pixels = scene(sum(size), *size)
    contents = [jpeg(pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive) for progressive in (0, 1)]
    for orientation in orientations:
        # Every other one is progressive.
        path = tmp_path / f"orientation-{orientation}.jpg"
        path.write_bytes(with_exif(contents[orientation % 2], orientation))

        reduced, full_size = read_image(path, SIDE)
        whole, whole_size = read_image(path)

        assert full_size == whole_size == whole.shape[:2] == (size if orientation < 5 else size[::-1]), path
        assert SIDE <= min(reduced.shape[:2]) <= min(size) // 2 + 1, path
        assert np.abs(resize_image(reduced, SIDE).astype(int) - resize_image(whole, SIDE)).mean() < 2.5, path


@pytest.mark.parametrize(
    ("height", "expected"), [(512, 64), (505, 64), (504, 126), (256, 64), (253, 64), (252, 126), (127, 64), (126, 126)]
)
def test_scale_of_a_reduced_jpeg(tmp_path: Path, height: int, expected: int) -> None:
    """The scale is the smallest of a half, a quarter and an eighth, rounded up, at which no side is too small."""
    (tmp_path / "picture.jpg").write_bytes(jpeg(scene(0, height, 600)))

    image, size = read_image(tmp_path / "picture.jpg", SIDE)

    assert image.shape[0] == expected
    assert size == (height, 600)


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
@pytest.mark.parametrize("size", [(256, 256), (300, 200)])
def test_other_formats_are_never_reduced(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    """An image of another format comes in full, however large."""
    pixels = scene(0, *size)

    image, full_size = read_image(write(tmp_path / f"picture{suffix}", pixels), SIDE)

    assert np.array_equal(image, pixels)
    assert full_size == size


@pytest.mark.parametrize("size", [(64, 64), (126, 300), (300, 126), (40, 500)])
def test_small_jpeg_is_not_reduced(tmp_path: Path, size: tuple[int, int]) -> None:
    """A JPEG with a side below twice what was asked for comes in full."""
    (tmp_path / "picture.jpg").write_bytes(jpeg(scene(0, *size)))

    image, full_size = read_image(tmp_path / "picture.jpg", SIDE)

    assert np.array_equal(image, read_image(tmp_path / "picture.jpg")[0])
    assert full_size == image.shape[:2] == size


@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_that_would_become_square(tmp_path: Path, orientation: int) -> None:
    """Where rounding would hide whether a JPEG was turned, its full size is told right all the same."""
    (tmp_path / "picture.jpg").write_bytes(with_exif(jpeg(scene(0, 255, 256)), orientation))

    assert read_image(tmp_path / "picture.jpg", SIDE)[1] == ((255, 256) if orientation == 1 else (256, 255))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("off", [(0, 1), (0, -1), (1, 0), (-1, 0)])
def test_reduced_pair_that_is_off_by_a_pixel(tmp_path: Path, off: tuple[int, int], orientation: int) -> None:
    """A mask of one row or column more or less is refused at a reduced scale too, though both round to one size."""
    (tmp_path / "picture.jpg").write_bytes(with_exif(jpeg(scene(0, 256, 384)), orientation))
    mask = write(tmp_path / "mask.png", square_mask(0, 256 + off[0], 384 + off[1]))

    with pytest.raises(DataError, match=rf"mask\.png is {384 + off[1]}×{256 + off[0]}"):
        read_pair(tmp_path / "picture.jpg", mask, SIDE)


@pytest.mark.parametrize("orientation", range(5, 9))
@pytest.mark.parametrize("drawn_on", ["turned", "stored"])
def test_reduced_pair_follows_its_mask(tmp_path: Path, orientation: int, drawn_on: str) -> None:
    """At a reduced scale the image is turned where its mask is, and otherwise not."""
    content = jpeg(scene(0, 256, 384))
    (tmp_path / "turned.jpg").write_bytes(with_exif(content, orientation))
    (tmp_path / "stored.jpg").write_bytes(content)
    size = (256, 384) if drawn_on == "stored" else (384, 256)

    image, mask = read_pair(tmp_path / "turned.jpg", write(tmp_path / "mask.png", square_mask(0, *size)), SIDE)

    assert mask.shape == size
    assert image.shape == (size[0] // 4, size[1] // 4, 3)
    assert np.array_equal(image, read_image(tmp_path / f"{drawn_on}.jpg", SIDE)[0])


WHOLE = with_exif(jpeg(scene(0, 40, 56)), 6, thumbnail=jpeg(noise(1, 8, 8)))
FRAME = WHOLE.rindex(b"\xff\xc0")  # the header with height and width of the image, after that of the thumbnail


@st.composite
def damaged_jpegs(draw: st.DrawFn) -> bytes:
    """A JPEG with some bytes replaced, and often cut off; its sides stay below 256 pixels, so that it is read soon."""
    content = bytearray(WHOLE)
    for position in draw(st.lists(st.integers(0, len(WHOLE) - 1), max_size=5)):
        if position not in (FRAME + 5, FRAME + 7):
            content[position] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, 2 * len(WHOLE)))])


@settings(max_examples=60)
@given(
    damaged_jpegs()
    | st.binary(max_size=200).map(lambda end: b"\xff\xd8" + end)
    | st.lists(st.sampled_from([b"\xff", b"\xc0", b"\xda", b"\xd9", b"\x00", b"\x08"])).map(
        lambda parts: b"\xff\xd8\xff" + b"".join(parts)
    ),
    st.sampled_from([None, 8]),
)
def test_no_bytes_raise_another_error(content: bytes, img_size: int | None) -> None:
    """Whatever a file holds, it is an image whose size does not depend on the scale, or a DataError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jpg"
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            read_mask(path)
        with contextlib.suppress(DataError):
            image, size = read_image(path, img_size)
            whole, whole_size = read_image(path)
            assert size == whole_size == whole.shape[:2]
            assert min(image.shape[:2]) >= min(whole.shape[0], whole.shape[1], img_size or 0)
