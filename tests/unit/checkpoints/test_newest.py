from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from camoxpert_cli.checkpoints.newest import find_checkpoint
from camoxpert_cli.errors import CheckpointError
from tests.helpers.checkpoints import Stub, content_of, flip_a_byte, write_content


def write_run(folder: Path, *names: str) -> Path:
    """A run folder with these checkpoints, each of another epoch."""
    folder.mkdir(parents=True)
    for epoch, name in enumerate(names):
        write_content(folder / name, {**content_of(Stub()), "epoch": epoch, "more": torch.zeros(10_000)})
    return folder


@pytest.mark.parametrize(
    ("damaged", "taken"),
    [((), "last.pth"), (("last.pth",), "previous.pth"), (("last.pth", "previous.pth"), "best_model.pth")],
)
def test_the_newest_that_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: tuple[str, ...], taken: str
) -> None:
    """Damaged ones are named and passed over, in the order in which they were written."""
    names = ["best_model.pth", "previous.pth", "last.pth"]
    run = write_run(tmp_path / "run", *names)
    for name in damaged:
        flip_a_byte(run / name)
    path, content = find_checkpoint(run)
    said = capsys.readouterr().err

    assert (path, content["epoch"]) == (run / taken, names.index(taken))
    assert [f"{run / name} is corrupt" in said for name in names] == [name in damaged for name in names]
    assert said.count("; skipped") == len(damaged)


def test_none_that_is_whole(tmp_path: Path) -> None:
    """Where all are damaged, all are named."""
    run = write_run(tmp_path / "run", "last.pth", "previous.pth")
    for path in run.iterdir():
        flip_a_byte(path)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*run can be read: last\.pth, previous\.pth"):
        find_checkpoint(run)


def test_a_damaged_file(tmp_path: Path) -> None:
    """A file that was asked for by its name is taken or refused, with a hint to what else is there."""
    run = write_run(tmp_path / "run", "last.pth", "previous.pth")
    flip_a_byte(run / "last.pth")
    with pytest.raises(CheckpointError, match="is corrupt") as caught:
        find_checkpoint(run / "last.pth")

    assert caught.value.hint == f"camox resume {run}, which uses the newest intact checkpoint there"
    assert find_checkpoint(run / "previous.pth").path == run / "previous.pth"


def test_a_damaged_file_alone(tmp_path: Path) -> None:
    """Where nothing else is there, nothing else is promised."""
    run = write_run(tmp_path / "run", "last.pth")
    flip_a_byte(run / "last.pth")
    with pytest.raises(CheckpointError, match="is corrupt") as caught:
        find_checkpoint(run / "last.pth")

    assert "camox resume" not in caught.value.hint


def test_the_only_run_below_a_folder(tmp_path: Path) -> None:
    """A run is found up to four folders below the one given; of two, none is taken."""
    run = write_run(tmp_path / "runs" / "a" / "b" / "c", "last.pth")
    assert find_checkpoint(tmp_path).path == run / "last.pth"

    write_run(tmp_path / "runs" / "second", "best_model.pth")
    with pytest.raises(CheckpointError, match=r"contains 2 runs: .*second"):
        find_checkpoint(tmp_path)


def test_folders_that_cannot_be_looked_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named and passed over; the run beside them is found."""
    run = write_run(tmp_path / "runs" / "first", "last.pth")
    closed = tmp_path / "runs" / "closed"
    closed.mkdir()
    iterdir = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)

    assert find_checkpoint(tmp_path).path == run / "last.pth"
    assert f"{closed} cannot be read: Permission denied; skipped" in capsys.readouterr().err
    with pytest.raises(PermissionError):
        find_checkpoint(closed)


def test_links(tmp_path: Path) -> None:
    """A run that several paths lead to is one, by the shortest of them; a circle ends, and a broken link is nothing."""
    run = write_run(tmp_path / "a" / "b", "last.pth")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "c").symlink_to("b")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    assert find_checkpoint(tmp_path).path == run / "last.pth"

    (tmp_path / "direct").symlink_to(run)
    assert find_checkpoint(tmp_path).path == tmp_path / "direct" / "last.pth"


@pytest.mark.parametrize("kind", ["pipe", "folder", "broken link"])
def test_what_is_no_checkpoint_file(tmp_path: Path, kind: str) -> None:
    """A pipe, a folder or a broken link of a checkpoint's name is none; nothing waits for what comes out of it."""
    run = write_run(tmp_path / "run", "previous.pth")
    other = tmp_path / "other"
    for folder in (run, other):
        folder.mkdir(exist_ok=True)
        path = folder / "last.pth"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("nowhere")

    assert find_checkpoint(run).path == run / "previous.pth"
    assert find_checkpoint(tmp_path).path == run / "previous.pth"
    with pytest.raises(CheckpointError, match="contains no checkpoint"):
        find_checkpoint(other)


def test_a_pipe_in_the_place_of_a_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="is neither a file nor a folder"):
        find_checkpoint(tmp_path / "pipe")


def test_no_run(tmp_path: Path) -> None:
    """A folder too deep, an empty one, and a name that is nearly right."""
    write_run(tmp_path / "1" / "2" / "3" / "4" / "5", "last.pth")
    with pytest.raises(CheckpointError, match="contains no checkpoint"):
        find_checkpoint(tmp_path)
    (tmp_path / "first").mkdir()
    with pytest.raises(CheckpointError, match="run folder or checkpoint not found") as caught:
        find_checkpoint(tmp_path / "frist")

    assert caught.value.hint == f"{tmp_path / 'first'}, which has a similar name"
