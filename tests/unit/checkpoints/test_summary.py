"""What is said of a checkpoint without torch is what torch reads in it, for files that are whole and for no other."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.checkpoints import summary as module
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.summary import CheckpointSummary, rows_of, summarize
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.model.weights_archive import open_verified
from tests.helpers.checkpoints import Stub, content_of, flip_a_byte, original, save, write_content

HISTORY = [{"epoch": epoch, "stage": 1, "iou": 0.1 * epoch, "seconds": 2.0} for epoch in (1, 2, 3)]
PROGRESS = {
    **{"epoch": 3, "samples": 40, "history": HISTORY, "best_epoch": 2, "best_iou": 0.25, "epoch_seconds": 1.5},
    **{"loss_sum": 3.0, "experts_chosen": [[1.0, 2.0]], "target_seconds": None},
}
BEST = {**content_of(Stub()), "history": HISTORY[:2], "scores": {**HISTORY[1]}, "epoch": 2, "config": None}
LAST = {
    **content_of(Stub()),
    "config": to_mapping(Config()),
    "training": {"progress": PROGRESS, "backbone_stages": 1, "training_images": "digest"},
}


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("written") / "last.pth"
    write_content(path, LAST)
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("summaries") / "last.pth"


def summary_of(path: Path) -> CheckpointSummary:
    found = summarize(path)

    assert found is not None
    assert found.size == path.stat().st_size
    assert found.modified == path.stat().st_mtime
    assert (found.intact is True) == (found.problem in ("", "written by another program"))
    json.dumps(asdict(found))
    return found


def test_all_that_a_run_needs(tmp_path: Path) -> None:
    """last.pth says how far the run got, what came out so far, and with which settings."""
    write_content(tmp_path / "last.pth", LAST)
    found = summary_of(tmp_path / "last.pth")

    assert found.intact is True
    assert (found.epoch, found.samples, found.epoch_seconds, found.backbone_stages) == (3, 40, 1.5, 1)
    assert (found.best_epoch, found.best_iou) == (2, 0.25)
    assert list(found.history) == HISTORY
    assert found.config == to_mapping(Config())


def test_weights_alone(tmp_path: Path) -> None:
    """best_model.pth says of which epoch it is and its score; another program's says nothing that is known."""
    write_content(tmp_path / "best_model.pth", BEST)
    best = summary_of(tmp_path / "best_model.pth")
    others = summary_of(save(original(content_of(Stub()), Stub()), tmp_path))

    assert (best.intact, best.epoch, best.samples, best.best_epoch, best.best_iou) == (True, 2, None, 2, 0.2)
    assert len(best.history) == 2
    assert (others.intact, others.epoch, others.problem) == (True, None, "written by another program")


def test_no_best_yet(tmp_path: Path) -> None:
    """Before the first epoch is complete, there is no score."""
    progress = {**PROGRESS, "best_epoch": 0, "best_iou": -1.0, "epoch": 0, "history": []}
    write_content(tmp_path / "last.pth", {**LAST, "training": {"progress": progress}})
    found = summary_of(tmp_path / "last.pth")

    assert (found.epoch, found.best_epoch, found.best_iou, found.history) == (0, None, None, ())


@settings(max_examples=60)
@given(data=st.data())
def test_damage(place: Path, last: bytes, data: st.DataObject) -> None:
    """Cut, flipped or zeroed anywhere: what counts as intact can be read, and says the same."""
    kind = data.draw(st.sampled_from(["cut", "flipped", "zeroed"]))
    at = data.draw(st.integers(0, len(last) - 1))
    content = bytearray(last)
    if kind == "cut":
        del content[at:]
    elif kind == "flipped":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        end = min(len(content), at + data.draw(st.integers(1, 600)))
        content[at:end] = bytes(end - at)
    place.write_bytes(content)
    found = summary_of(place)

    if found.intact is not True:
        with pytest.raises(CheckpointError):
            read_checkpoint(place)
        return
    assert read_checkpoint(place)["training"]["progress"] == PROGRESS
    assert (found.epoch, found.samples, found.best_iou) == (3, 40, 0.25)


@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\3\4", b"PK\5\6", b"\x80\2", b"<html>"]))
def test_anything_else(place: Path, rest: bytes, start: bytes) -> None:
    """Whatever has the name of a checkpoint, something is said about it."""
    place.write_bytes(start + rest)

    assert summary_of(place).intact is not True


ODD: list[Any] = [None, True, -1, 10**5000, 0.5, float("nan"), "text", "7" * 5000, [], ["x"], {}, torch.ones(3)]


@pytest.mark.parametrize("entry", ["epoch", "samples", "history", "best_epoch", "best_iou", "epoch_seconds"])
def test_odd_progress(tmp_path: Path, entry: str) -> None:
    """A crafted value is not shown; without a position, the file is no checkpoint."""
    for odd in ODD:
        write_content(tmp_path / "last.pth", {**LAST, "training": {"progress": {**PROGRESS, entry: odd}}})
        found = summary_of(tmp_path / "last.pth")
        assert found.intact is (entry not in ("epoch", "samples"))
        assert found.history == (tuple(HISTORY) if found.intact and entry != "history" else ())
        assert found.epoch_seconds in (1.5, 0.5, 0.0)
        assert found.best_iou in (0.25, 0.5, -1.0, None)


@pytest.mark.parametrize("entry", ["training", "scores", "config", "network", "history"])
def test_odd_entries(tmp_path: Path, entry: str) -> None:
    """Nor is an odd entry of the whole."""
    for odd in ODD:
        write_content(tmp_path / "last.pth", {**LAST, entry: odd})
        summary_of(tmp_path / "last.pth")
    write_content(tmp_path / "last.pth", {**LAST, "network": {}})

    assert summary_of(tmp_path / "last.pth").problem == "not a valid checkpoint: it contains no weights"


def test_odd_rows() -> None:
    """Rows of the history without an epoch or its time are left out."""
    odd = [{"epoch": 0, "seconds": 1.0}, {"epoch": 1}, {"epoch": 1, "seconds": -1.0}, {"epoch": True, "seconds": 1.0}]

    assert rows_of([*odd, *HISTORY, None, 3]) == tuple(HISTORY)
    assert rows_of(None) == rows_of({}) == ()


class Hostile:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickled_objects(tmp_path: Path) -> None:
    """They are refused, and nothing in them is run."""
    write_content(tmp_path / "last.pth", {**LAST, "more": Hostile(tmp_path / "made")})
    found = summary_of(tmp_path / "last.pth")

    assert found.intact is False
    assert found.problem == f"not a valid checkpoint: it contains pickled objects ({os.mkdir.__module__}.mkdir)"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "intact", "problem"),
    [
        (b"", False, "empty"),
        (b"version https://git-lfs", False, "not a weights file"),
        (b"PK\3\4" + bytes(100), False, "corrupt or truncated: File is not a zip file"),
        (b"\x80\x02}q\x00.", None, "in a format that cannot be verified here"),
        (b"\x10\0\0\0\0\0\0\0{}", None, "in a format that cannot be verified here"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, intact: bool | None, problem: str) -> None:
    """What is wrong is said; formats without checksums are neither intact nor damaged."""
    (tmp_path / "last.pth").write_bytes(content)
    found = summary_of(tmp_path / "last.pth")

    assert (found.intact, found.problem) == (intact, problem)


def test_damage_is_named(tmp_path: Path) -> None:
    """Without the path, which whoever shows it has."""
    write_content(tmp_path / "last.pth", {**LAST, "more": torch.zeros(10_000)})
    flip_a_byte(tmp_path / "last.pth")
    found = summary_of(tmp_path / "last.pth")

    assert found.problem.startswith("corrupt: ")
    assert found.problem.endswith("in the archive is damaged")


def test_no_file(tmp_path: Path) -> None:
    """Nothing, a folder and a pipe are no checkpoints."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    assert [summarize(tmp_path / name) for name in ("nothing", "folder", "pipe")] == [None] * 3


def test_replaced_while_it_is_read(tmp_path: Path, last: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened is read to its end; on a network disk, where that may fail, once more from the beginning."""
    path, opened = tmp_path / "last.pth", open_verified
    path.write_bytes(last)

    def replacing(*arguments: Any) -> Any:
        (tmp_path / "new").write_bytes(b"another file")
        (tmp_path / "new").replace(path)
        return opened(*arguments)

    monkeypatch.setattr(module, "open_verified", replacing)
    found = summarize(path)
    failures = [OSError(errno.ESTALE, "Stale file handle")] * 2

    def stale(*arguments: Any) -> Any:
        if failures:
            raise CheckpointError("it is corrupt") from failures.pop()
        return opened(*arguments)

    path.write_bytes(last)
    monkeypatch.setattr(module, "open_verified", stale)
    again = summarize(path)
    failures[:] = [OSError(errno.ESTALE, "Stale file handle")] * 9
    never = summarize(path)

    assert found is not None
    assert (found.intact, found.epoch, found.size) == (True, 3, len(last))
    assert again is not None
    assert again.intact is True
    assert never is not None
    assert (never.intact, never.problem) == (None, "cannot be read: Stale file handle")


def test_removed_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that vanishes was none; one that may not be read is neither intact nor damaged."""

    def refused(path: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    def removed(path: Path) -> Any:
        path.unlink()
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "last.pth").write_bytes(b"PK")
    monkeypatch.setattr(module, "open_regular", refused)
    found = summary_of(tmp_path / "last.pth")
    monkeypatch.setattr(module, "open_regular", removed)

    assert (found.intact, found.problem) == (None, "cannot be read: Permission denied")
    assert summarize(tmp_path / "last.pth") is None
