"""Two equal runs, and one that is cut in the middle of an epoch and goes on: the same to the last bit.

On a GPU with --deterministic; how far two runs are apart without it is a number.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.data.cores import usable_cores
from tests.gpu.distance import distance
from tests.gpu.report import Report
from tests.gpu.run_command import run_command, run_well
from tests.helpers.cut_runs import SETTINGS, differing
from tests.helpers.processes import camox, train_command
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import tiny_run, write_tiny_data

_SECONDS = 70
_STEP = 3  # the first of two steps of the second epoch


def check(report: Report) -> None:
    data = write_tiny_data(report.folder / "data")
    deterministic = {"deterministic": True} if report.on_card else {}
    with ThreadPoolExecutor(16 if usable_cores() >= 16 else 2) as pool:
        asked = {}
        for precision in ("fp16", "bf16") if report.on_card else ("fp32",):
            settings = {**_settings(report), "precision": precision}
            folder = report.folder / precision
            folder.mkdir()
            for name in ("first", "second"):
                asked[precision, name] = pool.submit(train, data, folder / name, {**settings, **deterministic})
            asked[precision, "cut"] = pool.submit(train_in_two, data, folder / "cut", {**settings, **deterministic})
            if report.on_card:
                for name in ("free", "free again"):
                    asked[precision, name] = pool.submit(train, data, folder / name, settings)
        for precision in dict.fromkeys(precision for precision, _ in asked):
            compare(report, precision, {name: run for (each, name), run in asked.items() if each == precision})


def compare(report: Report, precision: str, runs: dict[str, Future[Path]]) -> None:
    for name, why in (("second", "two equal runs"), ("cut", "a run that was cut")):
        with report.part(f"{precision}: {why}", seconds=2 * _SECONDS):
            differ = differing(runs["first"].result(), runs[name].result())
            report.number(f"{precision}, {why}: tensors and values that differ", len(differ))
            assert not differ, f"{len(differ)} tensors and values differ, such as {differ[0]}"
    if "free" in runs:
        with report.part(f"{precision}: without --deterministic", seconds=2 * _SECONDS):
            first, second = (weights_of(runs[name].result()) for name in ("free", "free again"))
            apart = distance(first, second)
            report.number(f"{precision}: weights of two runs without --deterministic differ by, of their norm", apart)


def train(data: Path, folder: Path, settings: dict[str, Any]) -> Path:
    run_well(_beside(folder, "command"), train_command(tiny_run(data, folder, **settings)), seconds=_SECONDS)
    return folder


def train_in_two(data: Path, folder: Path, settings: dict[str, Any]) -> Path:
    """Asked to end in the middle of the second epoch, and resumed."""
    command = train_command(tiny_run(data, folder, **settings))
    asked_to_end = sabotage(_beside(folder, "start"), 0, _STEP, kill("self", "SIGTERM"))
    environment = {"RANK": "0", **asked_to_end}
    ended = run_command(_beside(folder, "command"), command, seconds=_SECONDS, environment=environment)
    assert ended.code == 143, f"exit code {ended.code} of the run that was asked to end"
    progress = read_checkpoint(folder / "last.pth")["training"]["progress"]
    assert (progress["epoch"], progress["samples"]) == (1, 4), f"saved at {progress}"
    run_well(_beside(folder, "resumed"), camox("resume", str(folder)), seconds=_SECONDS)
    return folder


def weights_of(run: Path) -> list[Tensor]:
    return list(read_checkpoint(run / "last.pth")["network"].values())


def _settings(report: Report) -> dict[str, Any]:
    backbone = "edgenext_xx_small" if report.on_card else "test_resnet"
    return {**SETTINGS, "backbone": backbone, "device": report.device}


def _beside(folder: Path, name: str) -> Path:
    return folder.with_name(f"{folder.name} {name}")
