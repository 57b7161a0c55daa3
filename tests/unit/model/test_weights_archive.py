"""What is verified of an archive is enough for torch to read it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.model.weights_archive import open_verified, verify_archive

STATE = {"weight": torch.arange(12.0), "bias": torch.ones(3), "more": torch.zeros(2)}


def archive() -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file)
    return file.getvalue()


WHOLE = archive()
DIRECTORY = WHOLE.index(b"PK\1\2")
RECORD = WHOLE.index(b"PK\6\6")
LOCATOR = WHOLE.index(b"PK\6\7")
END = WHOLE.index(b"PK\5\6")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archives") / "weights.pth"


def is_refused(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        verify_archive(path)
    except CheckpointError as error:
        return error.exit_code == 4 and str(path) in error.message
    return False


def test_whole(place: Path) -> None:
    """It is open for reading from then on."""
    place.write_bytes(WHOLE)
    with place.open("rb") as file:
        names = open_verified(file, place).namelist()

    assert len(names) > len(STATE)
    assert names[0].endswith("/data.pkl")


@given(at=st.integers(DIRECTORY, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_directory(place: Path, at: int, bit: int) -> None:
    """torch reads whatever is not refused, and finds all in it: the newest intact checkpoint is one to resume from."""
    content = bytearray(WHOLE)
    content[at] ^= 1 << bit
    if is_refused(place, bytes(content)):
        return
    read = torch.load(place, weights_only=True)

    assert all(torch.equal(read[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize(
    ("at", "number"),
    [
        (DIRECTORY + 34, 1),  # the disk that a member is on
        (DIRECTORY + 9, 0x20),  # its header is masked
        (DIRECTORY + 20, 0xFF),  # how long it is, packed
        (DIRECTORY + 38, 0x10),  # it is a folder
        (RECORD + 4, 45),  # the size of the record itself
        (RECORD + 16, 1),
        (RECORD + 20, 1),
        (RECORD + 24, 1),  # how many members there are, here and in all
        (RECORD + 32, 1),
        (RECORD + 40, 1),  # how long the directory is
        (LOCATOR + 4, 1),
        (LOCATOR + 8, 1),  # where the record is
        (LOCATOR + 16, 2),
    ],
)
def test_what_the_directory_says(place: Path, at: int, number: int) -> None:
    """A number in it that torch would refuse is refused here."""
    content = bytearray(WHOLE)
    assert content[at] != number
    content[at] = number

    assert is_refused(place, bytes(content))


def test_the_last_name_goes_on_behind_the_directory(place: Path) -> None:
    """zipfile takes what there is of it."""
    content = bytearray(WHOLE)
    content[WHOLE.rindex(b"PK\1\2") + 32] = 1  # the length of the comment behind it

    assert is_refused(place, bytes(content))


def test_two_members_of_one_name(place: Path) -> None:
    """One that was renamed in the directory alone hides behind the other, and a tensor is missing."""
    content = WHOLE.replace(b"/data/0PK\1\2", b"/data/1PK\1\2")
    assert content != WHOLE

    assert is_refused(place, content)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_of_other_programs(place: Path, kind: int) -> None:
    """Packed or not, with comments and without 64-bit records, they are as good."""
    with zipfile.ZipFile(place, "w", kind) as other:
        other.writestr("weights/data.pkl", b"x" * 99)
        other.writestr("weights/data/0", b"")
        other.comment = b"a comment"
    whole = place.read_bytes()
    counts = bytearray(whole)
    counts[whole.rindex(b"PK\5\6") + 10] = 3

    assert not is_refused(place, whole)
    assert is_refused(place, bytes(counts))
