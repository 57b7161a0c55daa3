"""`camox benchmark`: what it prints, writes and exits with."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from camoxpert_cli.app import app

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
SMALL = (
    "--device cpu --backbone test_resnet --no-pretrained --img-size 64 --num-experts 2 --skip-stage1 --num-workers 0"
)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


@NO_GPU
@pytest.mark.parametrize("arguments", [["--gpus", "1,2"], ["--gpus", "1"], ["--device", "cuda"]])
def test_more_gpus_than_there_are(arguments: list[str]) -> None:
    """One sentence says how many there are, one what to do, before anything is generated."""
    outcome = run(*arguments)

    assert outcome.exit_code == 5
    message, hint = outcome.stderr.splitlines()
    assert message.endswith("requested, but this machine has none")
    assert "--device cpu --gpus 1,2" in hint
    assert "accelerator" in hint
    assert outcome.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--gpus two", "--gpus is 'two', expected distinct positive counts"),
        ("--gpus 1,1", "--gpus is '1,1', expected"),
        ("--gpus 0,1", "--gpus is '0,1', expected"),
        ("--gpus 1,", "--gpus is '1,', expected"),
        ("--gpus -1", "--gpus is '-1', expected"),
        ("--strategy fsdp", "--strategy is 'fsdp', expected one or both of dp and ddp"),
        ("--strategy ddp,ddp", "--strategy is 'ddp,ddp', expected"),
        ("--strategy dp --device cpu --gpus 1,2", "strategy dp needs GPUs"),
        ("--sync-batchnorm --device cpu --gpus 1,2", "--sync-batchnorm needs GPUs"),
        ("--out nowhere/x.md", "x.md cannot be written: folder nowhere does not exist"),
        ("--out .", "is a folder"),
        ("--img-size 1", "--img-size is '1'"),
        ("--preset kaggle", "unknown preset 'kaggle'"),
    ],
)
def test_bad_input(arguments: str, expected: str) -> None:
    """A wrong flag exits with 2 and one sentence that holds the value."""
    outcome = run(*arguments.split())

    assert outcome.exit_code == 2
    assert expected in outcome.stderr
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.output


def test_a_page_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk refuses at the end, the tables were printed, and one sentence says so."""

    def refuse(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("camoxpert_cli.benchmark.benchmark.benchmark", lambda *_, **__: None)
    monkeypatch.setattr("camoxpert_cli.benchmark.report.to_text", lambda _: "the tables")
    monkeypatch.setattr("camoxpert_cli.benchmark.report.to_markdown", lambda _: "# the tables")
    monkeypatch.setattr("camoxpert_cli.atomic.write_text", refuse)
    outcome = run("--device", "cpu", "--out", tmp_path / "speed.md")

    assert outcome.exit_code == 2
    assert outcome.stdout == "the tables\n"
    assert f"Error: --out {tmp_path / 'speed.md'} cannot be written: No space left on device\n" in outcome.stderr


def test_no_data_where_it_was_said_to_be(tmp_path: Path) -> None:
    """A folder that is not there exits with 3."""
    assert run(*SMALL.split(), "--dataset-path", tmp_path / "gone").exit_code == 3
