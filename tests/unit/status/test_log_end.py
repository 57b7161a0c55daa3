"""How far a run got, as its log says, however long and damaged that is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.status.log_end import LogEnd, read_log_end


def step(epoch: int, samples: int) -> dict[str, Any]:
    return {"event": "step", "time": 1.0, "epoch": epoch, "samples": samples, "total": 0.5}


def epoch(number: int) -> dict[str, Any]:
    return {"event": "epoch", "time": 1.0, "epoch": number, "iou": 0.5}


def resume(epoch: int, samples: int) -> dict[str, Any]:
    return {"event": "resume", "time": 1.0, "checkpoint": "last.pth", "epoch": epoch, "samples": samples}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "metrics.jsonl"


def read(log: Path, *rows: dict[str, Any] | str, most: int = 2**20) -> LogEnd:
    log.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return read_log_end(log, most)


FIRST = [step(1, 4), step(1, 8), epoch(1)]


def test_positions(log: Path) -> None:
    """Within an epoch, at its end, and where a run was resumed."""
    assert read(log, step(1, 4)) == LogEnd((0, 4), None)
    assert read(log, *FIRST) == LogEnd((1, 0), 8)
    assert read(log, *FIRST, step(2, 4)) == LogEnd((1, 4), 8)
    assert read(log, *FIRST, step(2, 4), resume(1, 4)) == LogEnd((1, 4), 8)
    assert read(log, resume(0, 4), step(1, 8)) == LogEnd((0, 8), None)
    assert read(log, step(1, 8), resume(0, 8), epoch(1)) == LogEnd((1, 0), 8)


def test_images_of_the_same_epoch_alone(log: Path) -> None:
    """A step of an earlier epoch says nothing of how many images an epoch has."""
    assert read(log, step(1, 4), epoch(2)) == LogEnd((2, 0), None)


def test_odd_lines(log: Path) -> None:
    """A line that is still being written, or means nothing, is left out."""
    odd = ['{"event": "st', "", "null", "[]", "3", "\0\0\0", "[" * 5000, '{"event": "step"}', "{}"]
    odd += [json.dumps({**step(2, 4), name: value}) for name in ("epoch", "samples") for value in (None, -1, True, "2")]
    odd += [json.dumps({**step(2, 4), "epoch": 0}), json.dumps({**step(2, 4), "event": "other"})]

    assert read(log, *FIRST, *odd) == LogEnd((1, 0), 8)
    assert read(log, *FIRST, step(2, 4), *odd) == LogEnd((1, 4), 8)


def test_the_end_alone(log: Path) -> None:
    """Of a long log, only the end is read; what begins before it is not taken for a line."""
    rows = [step(number, samples) for number in range(1, 400) for samples in (4, 8)]
    length = len(json.dumps(rows[-1])) + 1

    assert read(log, *rows, epoch(399), most=4 * length) == LogEnd((399, 0), 8)
    assert read(log, epoch(1), *rows, most=4 * length) == LogEnd((398, 8), None)
    assert read(log, *rows, most=length // 2) == LogEnd()


def test_no_log(tmp_path: Path) -> None:
    """A log that is missing or is not a file says nothing, and nothing waits for it."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()

    assert {read_log_end(tmp_path / name) for name in ("missing", "pipe", "folder", "empty")} == {LogEnd()}


@given(content=st.binary(max_size=200), most=st.integers(1, 400))
def test_anything(log: Path, content: bytes, most: int) -> None:
    """Whatever is in the file, there is a position or none."""
    log.write_bytes(b"".join(f"{json.dumps(row)}\n".encode() for row in FIRST) + content)

    assert read_log_end(log, most).position in ((1, 0), None)
