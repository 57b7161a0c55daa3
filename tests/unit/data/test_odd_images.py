"""Files that are called as images, and are none, or larger than they look."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.data import reading
from camoxpert_cli.data.check import check
from camoxpert_cli.data.reading import read_image, read_mask, within_memory
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import jpeg, noise, square_mask, write, write_pairs


def png_of(width: int, height: int) -> bytes:
    """The beginning and the end of a grey PNG of this size, with pixels for its first rows only."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(999))) + part(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    """Files of 100 bytes to some kilobytes that ask for 2.7 GB and more."""
    flat = np.zeros((16, 16, 3), np.uint8)
    bmp, gif, tiff = (bytearray(cv2.imencode(f".{ending}", flat)[1].tobytes()) for ending in ("bmp", "gif", "tiff"))
    bmp[18:26] = struct.pack("<ii", 30000, -30000)
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    for tag in (256, 257):
        at = tiff.index(struct.pack("<H", tag), struct.unpack_from("<I", tiff, 4)[0])
        tiff[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 30000)
    picture = bytearray(jpeg(flat))
    at = picture.index(b"\xff\xc0")
    picture[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return {
        "png": png_of(30000, 30000),
        "bmp": bytes(bmp),
        "gif": bytes(gif),
        "tiff": bytes(tiff),
        "jpg": bytes(picture),
    }


BOMBS = bombs()


@pytest.mark.parametrize("ending", BOMBS)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_more_pixels_than_the_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: object, ending: str
) -> None:
    """They are refused by what the header says, before a decoder sees the file."""
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: pytest.fail("it was decoded"))
    path = tmp_path / f"bomb.{ending}"
    path.write_bytes(BOMBS[ending])

    side = {"gif": 65535, "jpg": 65500}.get(ending, 30000)
    most, wanted = (200, side**2) if read is read_image else (100, 2 * side**2)
    with pytest.raises(DataError) as caught:
        read(path)  # type: ignore[operator]

    assert caught.value.message == f"{path} has {side}×{side} pixels, expected at most {most} million"
    assert caught.value.hint.endswith(f"export OPENCV_IO_MAX_IMAGE_PIXELS={wanted}")


def test_opencv_is_told_the_same_bound() -> None:
    """For formats whose headers nobody else reads; it looks for it when it is loaded."""
    assert os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] == str(reading.MOST_PIXELS)


def test_what_opencv_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a format whose header says nothing that we read; its own words would say nothing to most."""

    def refuse(*arguments: object) -> None:
        raise cv2.error("(-215:Assertion failed) pixels <= CV_IO_MAX_IMAGE_PIXELS in function 'validateInputImageSize'")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    with pytest.raises(DataError, match=r"a\.webp has too many pixels, expected at most 200 million"):
        reading.decode(Path("a.webp"), b"RIFF", cv2.IMREAD_COLOR)


def test_bound_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many pixels as it says can be read, and one row more cannot."""
    monkeypatch.setattr(reading, "MOST_PIXELS", 24 * 32)
    content = write(tmp_path / "a.png", noise(0)).read_bytes()

    assert reading.decode(tmp_path, content, cv2.IMREAD_COLOR, 24 * 32).shape == (24, 32, 3)
    with pytest.raises(DataError, match="32×24 pixels"):
        reading.decode(tmp_path, content, cv2.IMREAD_COLOR, 24 * 32 - 1)


def test_a_part_of_a_png_that_says_it_has_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV would take them before it finds that they are not there."""
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: pytest.fail("it was decoded"))
    content = png_of(40, 40)
    at = content.index(b"IDAT")
    path = tmp_path / "a.png"
    path.write_bytes(content[: at - 4] + b"\xaa" + content[at - 3 :])

    with pytest.raises(DataError, match="cannot be decoded as an image"):
        read_image(path)


def test_passes_of_a_jpeg(tmp_path: Path) -> None:
    """Each takes as long as the whole image, in a file that a few bytes make longer."""
    content = jpeg(noise(0), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = content[content.rindex(b"\xff\xda") : -2]
    path = tmp_path / "a.jpg"
    path.write_bytes(content)

    assert read_image(path)[1] == (24, 32)
    path.write_bytes(content[:-2] + 200 * last + content[-2:])
    with pytest.raises(DataError, match="is a progressive JPEG with 210 scans, expected at most 100"):
        read_image(path)


@pytest.mark.parametrize("size", [(1, 1), (1, 10000), (10000, 1)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    """A line or a dot is an image too."""
    path = write(tmp_path / "a.png", np.zeros((*size, 3), np.uint8))

    assert resize_image(read_image(path, 64)[0], 64).shape == (64, 64, 3)


def test_pipes_and_devices(tmp_path: Path) -> None:
    """Nothing is waited for, and nothing read without an end."""
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")

    for name, kind in (("a.png", "a named pipe"), ("b.png", "a device")):
        with pytest.raises(DataError, match=f"cannot read .*{name}: it is {kind}, expected a regular file"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")])
def test_too_little_memory(error: Exception) -> None:
    """It is the image's fault, which is named; other errors stay what they are."""
    with pytest.raises(DataError, match="not enough memory for a"), within_memory(Path("a.png")):
        raise error
    with pytest.raises(RuntimeError, match="ours"), within_memory(Path("a.png")):
        raise RuntimeError("ours")


def test_odd_files_of_a_data_set_are_faults(tmp_path: Path) -> None:
    """One file that cannot be read is a finding, and all others are looked at."""
    pairs = write_pairs(tmp_path, 4)
    pairs[0].image.write_bytes(BOMBS["png"])
    pairs[1].mask.unlink()
    os.mkfifo(pairs[1].mask)
    pairs[2].image.unlink()
    pairs[2].image.symlink_to("nowhere")
    report = check([tmp_path], include_noncam=False, progress=lambda total: lambda count, note: None)

    assert [(fault.kind, fault.path) for fault in report.faults] == [
        ("unreadable", pairs[1].mask),
        ("unreadable", pairs[0].image),
        ("unreadable", pairs[2].image),
    ]
    assert [pair.name for pair in report.clean[0]] == ["003"]


VALID = [
    cv2.imencode(f".{ending}", pixels)[1].tobytes()
    for ending in ("jpg", "png", "bmp", "gif", "webp", "tiff")
    for pixels in (noise(0), np.dstack([square_mask(0)] * 3))
]


@settings(max_examples=30)
@given(st.sampled_from(VALID), st.data())
def test_damaged_files(content: bytes, data: st.DataObject) -> None:
    """Bytes changed, left out or put in anywhere: an image, or an error of ours."""
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        path.write_bytes(damaged or b"x")
        for read in (lambda: read_image(path, 8), lambda: read_mask(path)):
            with contextlib.suppress(DataError):
                read()
