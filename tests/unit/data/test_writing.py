"""Images that camox writes, and how it knows them from those of others."""

from __future__ import annotations

import errno
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camoxpert_cli.data.writing import encoded, is_complete, is_own_image, note_in, write_image
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


TEXTS = st.text(st.characters(exclude_characters="{}"), max_size=20)
NOTES = st.dictionaries(TEXTS, st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), TEXTS))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NOTES, st.sampled_from([".png", ".jpg"]))
def test_notes(tmp_path: Path, note: dict[str, str | int | float | None], suffix: str) -> None:
    """A note is read as it was given, and changes neither the marker nor a pixel."""
    path, pixels = tmp_path / f"a{suffix}", np.zeros((8, 8), np.uint8)
    write_image(path, pixels, "--out", note=note)
    content = path.read_bytes()

    assert is_own_image(path)
    assert (note_in(path), is_complete(path)) == (note, True)
    assert np.array_equal(np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)), pixels)
    path.write_bytes(content[:-1])
    assert (note_in(path), is_complete(path)) == (note, False)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100), st.integers(0, 200), st.sampled_from([".png", ".jpg"]))
def test_notes_that_are_damaged(tmp_path: Path, more: bytes, at: int, suffix: str) -> None:
    """Anything may stand where a note is: nothing is taken for one that is not."""
    path = tmp_path / f"a{suffix}"
    write_image(path, np.zeros((8, 8), np.uint8), "--out", note={"name": "value"})
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + more + whole[at + len(more) :])

    if suffix == ".png":  # it has a checksum
        assert note_in(path) in ({"name": "value"}, {})
    else:
        assert isinstance(note_in(path), dict)
    path.write_bytes(more)
    end = whole[-12:] if suffix == ".png" else whole[-2:]
    assert (note_in(path), is_complete(path)) == ({}, more.endswith(end))


@pytest.mark.parametrize("text", [b'{"a": ' + b"[" * 4000 + b"}", b'{"a": }', b'{"a": "\xff"}'])
def test_notes_that_are_no_json(tmp_path: Path, text: bytes) -> None:
    """A comment of somebody else behind our marker is no note."""
    content = encoded(".jpg", np.zeros((8, 8), np.uint8))
    comment = b"\xff\xfe" + (2 + len(text)).to_bytes(2, "big") + text
    (tmp_path / "a.jpg").write_bytes(content[:29] + comment + content[29:])

    assert note_in(tmp_path / "a.jpg") == {}


def test_a_note_as_others_read_it() -> None:
    """A second chunk of text with a checksum, or a second comment."""
    png, jpeg = (encoded(suffix, np.zeros((8, 8), np.uint8), note={"a": 1}) for suffix in (".png", ".jpg"))

    assert png[59:].startswith(
        b'\0\0\0\x10tEXtComment\0{"a": 1}' + zlib.crc32(b'tEXtComment\0{"a": 1}').to_bytes(4, "big")
    )
    assert jpeg[29:].startswith(b'\xff\xfe\0\x0a{"a": 1}')


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
    with pytest.raises(UsageError, match="in the meantime"):  # it does not say how it was made
        write_image(tmp_path / "a.png", np.ones((8, 8), np.uint8), "--out", new=True)


def test_another_process_did_the_same(tmp_path: Path) -> None:
    """What it wrote says that it is what would be written, and stays."""
    write_image(tmp_path / "a.png", np.zeros((8, 8), np.uint8), "--out", note={"a": 1})
    before = (tmp_path / "a.png").stat()
    write_image(tmp_path / "a.png", np.zeros((8, 8), np.uint8), "--out", new=True, note={"a": 1})
    assert (tmp_path / "a.png").stat() == before

    with pytest.raises(UsageError, match="in the meantime"):
        write_image(tmp_path / "a.png", np.zeros((8, 8), np.uint8), "--out", new=True, note={"a": 2})
