"""Images that camox writes, and how it knows them from those of others."""

from __future__ import annotations

import errno
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camoxpert_cli.data.writing import encoded, is_own_image, write_image
from camoxpert_cli.errors import UsageError

SIDES = st.integers(1, 40)
SHAPES = st.one_of(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES, st.just(3)))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SHAPES, st.integers(0, 99), st.sampled_from([".png", ".jpg"]))
def test_the_mark(tmp_path: Path, shape: tuple[int, ...], seed: int, suffix: str) -> None:
    """It is in every image of ours and in none that OpenCV writes alone, and changes no pixel."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    ours, theirs = tmp_path / f"ours{suffix}", tmp_path / f"theirs{suffix}"
    write_image(ours, pixels, "--out")
    cv2.imwrite(str(theirs), pixels)

    assert (is_own_image(ours), is_own_image(theirs)) == (True, False)
    assert np.array_equal(*(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (ours, theirs)))  # type: ignore[arg-type]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100), st.sampled_from([".png", ".jpg"]))
def test_files_of_others(tmp_path: Path, content: bytes, suffix: str) -> None:
    """Anything may have an image's name."""
    (tmp_path / f"a{suffix}").write_bytes(content)

    assert not is_own_image(tmp_path / f"a{suffix}")


def test_the_mark_as_others_read_it() -> None:
    """A chunk of text with a checksum, and a comment, as the formats have them."""
    png, jpeg = (encoded(suffix, np.zeros((8, 8), np.uint8)) for suffix in (".png", ".jpg"))

    assert png[33:59] == b"\0\0\0\x0etEXtSoftware\0camox" + bytes.fromhex("09ee516c")
    assert jpeg[:4] == b"\xff\xd8\xff\xe0"
    assert jpeg[20:29] == b"\xff\xfe\0\x07camox"


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence that names the file and the flag, and nothing is left."""

    def full(_: Path, __: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match=r"a\.png cannot be written: No space left on device") as caught:
        write_image(tmp_path / "a.png", np.zeros((8, 8), np.uint8), "--save-predictions")

    assert "--save-predictions" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_another_process_was_faster(tmp_path: Path) -> None:
    """What was not there before the work, and is there after it, is somebody else's."""
    (tmp_path / "a.png").write_bytes(b"theirs")
    with pytest.raises(UsageError, match=r"another process wrote .*a\.png in the meantime"):
        write_image(tmp_path / "a.png", np.zeros((8, 8), np.uint8), "--out", new=True)
    assert (tmp_path / "a.png").read_bytes() == b"theirs"

    write_image(tmp_path / "a.png", np.zeros((8, 8), np.uint8), "--out")
    assert is_own_image(tmp_path / "a.png")
