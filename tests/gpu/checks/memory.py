"""A card that is too small: batches that fit are found, and a run that runs out of memory goes on with smaller ones.

On a GPU another process takes most of its memory; on the CPU a step of too many images runs out by decree.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.launch.autobatch import fit_batches, on_devices
from camoxpert_cli.model.routing import spread
from camoxpert_cli.parallel.world import World
from tests.benchmarks.loops import camox_run, camox_steps, noise
from tests.gpu.report import Report
from tests.gpu.run_command import Ended, run_well
from tests.helpers.processes import train_command
from tests.helpers.sabotage import sabotage
from tests.helpers.small_card import room
from tests.helpers.tiny_data import tiny_run, write_tiny_data

_GIB = 2**30
_LEFT = 12 * _GIB  # of the card, for the first part
_STEPS = 20
_HELD = 200e6  # bytes that a run that failed may leave behind
_SECONDS = 60

# Two epochs of two steps of 4 images, saved after each; the third step is the one that fails.
_SETTINGS: dict[str, Any] = {
    **{"epochs": 2, "stage1_epochs": 1, "batch_size": 4, "stage2_batch_size": 4, "save_every": "1"},
}
_LARGE: dict[str, Any] = {
    **{"backbone": "edgenext_base", "num_experts": 7, "img_size": 320, "device": "cuda"},
    **{**_SETTINGS, "skip_stage1": True, "progressive_unfreeze": False, "epochs": 3},
}
_STEP = 3

# As the run that failed lets go of its memory, what is left of it is written down.
_WATCH_LETTING_GO = """
from camoxpert_cli.engine import out_of_memory

let_go = out_of_memory.OutOfMemory.let_go


def watched(error):
    import torch

    let_go(error)
    with open({path!r}, "w") as file:
        file.write(str(torch.cuda.memory_allocated()))


out_of_memory.OutOfMemory.let_go = watched
"""
# Has the ballast leave three quarters of what the largest step took beside what the run holds between steps.
_GROW = """
import pathlib, time, torch
folder = pathlib.Path({folder!r})
room = str((torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()) * 3 // 4)
torch.cuda.empty_cache()
(folder / "leave").write_text(room)
while (folder / "left").read_text() != room: time.sleep(0.02)
"""
# What cuDNN says where no algorithm's workspace fits.
_CUDNN = "raise RuntimeError('GET was unable to find an engine to execute this computation')"


def check(report: Report) -> None:
    data = write_tiny_data(report.folder / "data")
    with report.part("auto", seconds=_SECONDS):
        if report.on_card:
            largest_batch(report, data)
        else:
            largest_batch_by_decree(report, data)
    with report.part("out of memory", seconds=_SECONDS):
        if report.on_card:
            ballast_grows(report, data)
        else:
            out_of_memory_by_decree(report, data)
    with report.part("cuDNN's words", seconds=_SECONDS):
        folder = report.folder / "cudnn"
        faulty = sabotage(folder, 0, _STEP, _CUDNN)
        resolved = tiny_run(data, folder / "run", device=report.device, **_SETTINGS)
        expect_restart(
            run_well(folder / "command", train_command(resolved), seconds=_SECONDS, environment={"RANK": "0", **faulty})
        )


def largest_batch(report: Report, data: Path) -> None:
    """With 12 GiB left, stage 2 trains at the batch that auto takes, every expert in use, and stays within that."""
    folder = report.folder / "auto"
    batches = {"batch_size": "auto", "stage2_batch_size": "auto", "accumulation_steps": 8}
    asked = tiny_run(data, folder, **{**_LARGE, **batches, "skip_stage1": False})
    with ballast(report.folder / "ballast", _LEFT):
        free, _ = torch.cuda.mem_get_info()
        config = fit_batches(asked, on_devices([torch.device("cuda", 0)])).config
        batch = config.train.stage2_batch_size or 0
        report.number("auto: images at a time in 12 GiB", batch)
        run = camox_run(replace(config, train=replace(config.train, skip_stage1=True)), World(), folder)
        with spread(run.state.network):
            steps = camox_steps(run, *noise(batch, config.data.img_size))
            for _ in range(_STEPS):
                next(steps)
        peak = torch.cuda.max_memory_reserved()
        report.number("auto: peak in GiB", peak / _GIB)
        assert peak < free, f"{peak / _GIB:.2f} GiB were taken, and {free / _GIB:.2f} were free"


def largest_batch_by_decree(report: Report, data: Path) -> None:
    """Of the images of a step, 8 in stage 1 and 4 in stage 2, the card holds 3 at a time."""
    folder = report.folder / "auto"
    command = train_command(tiny_run(data, folder / "run", **{**_SETTINGS, "epochs": 1}))
    for flag in ("--batch-size", "--stage2-batch-size"):
        command[command.index(flag) + 1] = "auto"
    start = room(folder, most_images=3, measured=True)
    run_well(folder / "command", command, seconds=_SECONDS, environment=start)
    train = read_checkpoint(folder / "run" / "last.pth")["config"]["train"]
    batches = f"{train['batch_size']} and {train['stage2_batch_size']}, {train['accumulation_steps']} accumulated"
    report.number("auto: images at a time", batches)
    assert train["batch_size"] <= 3, "more than the card holds"


def ballast_grows(report: Report, data: Path) -> None:
    """In the middle of a run another process takes the memory that its steps need."""
    folder = report.folder / "growing"
    command = train_command(tiny_run(data, folder / "run", **_LARGE))
    with ballast(report.folder / "ballast-that-grows", 2 * _LEFT) as other:
        grow = _GROW.format(folder=str(other))
        left = report.folder / "memory-held"
        faulty = sabotage(folder, 0, _STEP, grow, _WATCH_LETTING_GO.format(path=str(left)))
        expect_restart(run_well(folder / "command", command, seconds=_SECONDS, environment={"RANK": "0", **faulty}))
    held = int(left.read_text(encoding="ascii"))
    report.number("MB held by the run that failed", held / 1e6)
    assert held < _HELD, f"{held / 1e6:.0f} MB, and {_HELD / 1e6:.0f} are allowed"


def out_of_memory_by_decree(report: Report, data: Path) -> None:
    """From the third step on there is room for half of its images."""
    folder = report.folder / "decree"
    start = room(folder, most_images=2, measured=False, calls=_STEP)
    command = train_command(tiny_run(data, folder / "run", **_SETTINGS))
    expect_restart(run_well(folder / "command", command, seconds=_SECONDS, environment=start))


def expect_restart(ended: Ended) -> None:
    """One, with half the batch of stage 2."""
    said = " ".join(ended.stderr.split())
    assert said.count("Restarting from the last checkpoint, using batch sizes") == 1, "not one restart"
    assert "and 2 (stages 1 and 2) with 2 accumulation steps" in said, "not with half the batch"


@contextmanager
def ballast(folder: Path, leave: int) -> Iterator[Path]:
    """Inside, another process leaves so many bytes of the GPU free, or as many as the file `leave` in the folder says.

    `folder` must not exist.
    """
    folder.mkdir()
    (folder / "leave").write_text(str(leave), encoding="ascii")
    process = subprocess.Popen([sys.executable, "-m", "tests.gpu.ballast", str(folder)])
    try:
        while not (folder / "left").exists():
            assert process.poll() is None, "the ballast could not be taken"
            time.sleep(0.05)
        yield folder
    finally:
        process.kill()
        process.wait()
