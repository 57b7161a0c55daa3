"""What is told before training starts, and by which of several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from camoxpert_cli.config.resolve import resolve, to_mapping
from camoxpert_cli.errors import UsageError
from camoxpert_cli.launch import start
from camoxpert_cli.parallel.worker import MEETING_POINT

WORDS = "the learning rate does not fit the batch"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `start` does in place of training: launch processes, or train in this one."""
    seen: list[str] = []
    monkeypatch.setattr("camoxpert_cli.engine.train.train", lambda *arguments, **rest: seen.append("train"))
    monkeypatch.setattr(start, "_print", lambda outcome, as_json: None)

    def launch(*arguments: object, **rest: object) -> int:
        seen.append("launch")
        return 0

    monkeypatch.setattr("camoxpert_cli.launch.processes.launch", launch)
    return seen


def warnings(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()

    assert captured.out == ""
    return [line for line in captured.err.splitlines() if line.startswith("Warning: ")]


def test_a_rate_out_of_proportion(trained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is told once, and training starts all the same."""
    start.start(resolve("quickstart", {"train.stage2_batch_size": "128"}), ["train"])

    assert trained == ["train"]
    (warning,) = warnings(capsys)
    assert WORDS in warning


def test_a_preset_as_it_is(trained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is told of a preset, nor of one whose two GPUs became one process on the CPU."""
    start.start(resolve("quickstart", {}), ["train"])
    start.start(resolve("kaggle-2xT4", {"run.gpus": "1", "run.device": "cpu"}), ["train"])

    assert trained == ["train", "train"]
    assert warnings(capsys) == []


def test_refused_before_anything_is_measured(trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """DataParallel cannot synchronise BatchNorm: that is told before minutes of measuring memory."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(start, "_within_memory", lambda *arguments: trained.append("measured"))
    flags = {"train.sync_batchnorm": True, "run.gpus": "2", "run.strategy": "dp", "run.device": "cuda"}
    with pytest.raises(UsageError, match="--sync-batchnorm works between processes"):
        start.start(resolve("quickstart", flags), ["train"])

    assert trained == []


def test_a_run_that_goes_on(trained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A run with any rates goes on without a word, however far from the defaults; a new rate is told."""
    odd = resolve("quickstart", {"train.lr": "0.5"}).config
    start.start(resolve(None, {}, saved=(to_mapping(odd), "last.pth")), ["resume"])
    before = warnings(capsys)
    start.start(resolve(None, {}, ["train.lr=5"], saved=(to_mapping(odd), "last.pth")), ["resume"])

    assert before == []
    assert len(warnings(capsys)) == 1


def test_several_processes_are_told_once(
    trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The process that starts others tells it, and the workers that run the same command do not."""
    resolved = resolve("quickstart", {"run.gpus": "2", "train.lr": "1"})
    start.start(resolved, ["train"])
    by_launcher = warnings(capsys)
    monkeypatch.setenv(MEETING_POINT, str(tmp_path))
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(start, "joined", lambda timeout: open(tmp_path / "world", "w"))  # noqa: PTH123, SIM115
    start.start(resolved, ["train"])

    assert trained == ["launch", "train"]
    assert len(by_launcher) == 1
    assert warnings(capsys) == []
