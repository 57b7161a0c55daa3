from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.data.headers import jpeg_header, png_is_whole, stated_size
from tests.helpers.image_files import noise

ENDINGS = ("jpg", "png", "bmp", "gif", "tiff")


def encoded(ending: str, height: int = 24, width: int = 32) -> bytes:
    return cv2.imencode(f".{ending}", noise(0, height, width))[1].tobytes()


CONTENTS = {ending: encoded(ending) for ending in ENDINGS}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (70, 20)])
def test_size(ending: str, size: tuple[int, int]) -> None:
    """Height and width, as OpenCV finds them when it decodes the file."""
    content = encoded(ending, *size)
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None

    assert stated_size(content) == size == pixels.shape[:2]


def test_other_kinds_of_bmp_and_tiff() -> None:
    """Rows from above, the header of OS/2, and numbers that begin with their highest byte."""
    rows_down = bytearray(CONTENTS["bmp"])
    rows_down[22:26] = (-24).to_bytes(4, "little", signed=True)
    os2 = CONTENTS["bmp"][:14] + b"\x0c\0\0\0" + b"\x20\0\x18\0" + bytes(4)
    entries = b"\1\0\0\4\0\0\0\1\0\0\0\x20" + b"\1\1\0\3\0\0\0\1\0\x18\0\0"

    assert stated_size(bytes(rows_down)) == (24, 32)
    assert stated_size(os2) == (24, 32)
    assert stated_size(b"MM\0*\0\0\0\x08\0\2" + entries) == (24, 32)


def test_what_lies_between_the_segments_of_a_jpeg() -> None:
    """A decoder passes over it, so that no size can hide behind it."""
    content = CONTENTS["jpg"]

    assert jpeg_header(content[:2] + b"junk\xff\xff\x01" + content[2:]).size == (24, 32)
    assert jpeg_header(content).pixels == content.index(b"\xff\xda")


@given(st.sampled_from(ENDINGS), st.data())
def test_damage(ending: str, data: st.DataObject) -> None:
    """Whatever a file holds behind its first bytes, there is a size or none, and nothing is raised."""
    content = bytearray(CONTENTS[ending])
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(4, 60))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(4, len(content)))])

    assert stated_size(cut) is None or min(stated_size(cut) or ()) >= 0
    assert jpeg_header(cut).pixels <= len(content) + 2**16
    assert png_is_whole(cut) in (True, False)


def test_parts_of_a_png() -> None:
    """They have to lead to the end: one that says it has gigabytes would get them."""
    content = CONTENTS["png"]
    at = content.index(b"IDAT")
    gigabytes = content[: at - 4] + b"\xaa" + content[at - 3 :]

    assert png_is_whole(content)
    assert png_is_whole(content + b"a film")
    assert not png_is_whole(content[: content.index(b"IEND")])
    assert not png_is_whole(gigabytes)
