"""Ranks that lose each other: who fails ends at once, and who waits learns of it, before GPUs wait for each other."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.engine.run import enter_phase, prepare
from camoxpert_cli.engine.training_steps import backward
from camoxpert_cli.parallel import gradients
from camoxpert_cli.parallel.strategy import Ddp
from camoxpert_cli.parallel.worker import worker_environment, write_job
from camoxpert_cli.parallel.world import World
from tests.helpers.forked import RealPopen
from tests.helpers.places import ROOT
from tests.helpers.processes import wait_for
from tests.helpers.tiny_data import tiny_plan

TIMEOUT = 120

# A process group in which leaving takes as long as with NCCL while another rank waits in a collective. Rank 1 ends as a
# command does whose error has been told.
FAILING = """
import sys, time
import torch.distributed as dist
from camoxpert_cli.parallel.world import joined
from camoxpert_cli.parallel.worker import ending_at_once

dist.destroy_process_group = lambda *group: time.sleep(600)
with ending_at_once(), joined(timeout=60) as world:
    world.require_all()
    if world.rank == 1:
        sys.exit(3)
    world.require_all()
"""


def test_a_rank_that_fails_ends_at_once(tmp_path: Path) -> None:
    """It does not take leave of the others, which may never come; its exit code is its own. They miss it."""
    write_job(tmp_path)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", FAILING],
            env=worker_environment(tmp_path, rank, 2, threads=1),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=TIMEOUT)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()

    assert [process.returncode for process in ranks] == [1, 3], errors
    assert "PeerLostError: this process lost the connection to the other ranks" in errors[0]
    assert errors[1] == ""


# What the interpreter would destroy at its exit stands for what threads of torch still use then.
SUCCEEDING = """
import atexit, os, sys, threading, time
from camoxpert_cli.parallel.worker import ending_at_once

class Fatal:
    def __del__(self):
        os.abort()

fatal = Fatal()
with ending_at_once():
    threading.Thread(target=lambda: (time.sleep(0.5), print("thread"))).start()
    atexit.register(print, "handler")
    {last}
"""


@pytest.mark.parametrize("last", ["pass", "sys.exit()", "sys.exit(0)"])
def test_a_rank_that_succeeds_is_not_taken_down(tmp_path: Path, last: str) -> None:
    """Its threads and exit handlers are waited for, and what it printed is complete."""
    write_job(tmp_path)
    command = [sys.executable, "-c", SUCCEEDING.format(last=last)]
    environment = worker_environment(tmp_path, 0, 1, threads=1)
    # A fork of ours would not be taken down either.
    with RealPopen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        output = process.communicate(timeout=TIMEOUT)

    assert (process.returncode, *output) == (0, "thread\nhandler\n", "")


@dataclass(frozen=True)
class RecordingWorld(World):
    """A world of two ranks of which the other has no image; remembers what was summed on which device."""

    size: int = 2
    calls: list[str] = field(default_factory=list)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        self.calls.append(tensor.device.type if tensor.numel() > 1 or tensor.device.type != "cpu" else "require_all")
        return tensor


def test_the_used_mask_stays_on_the_cpu() -> None:
    """Ranks agree on which gradients there are before GPUs sum them, so that one that is gone is missed there."""
    weights = [nn.Parameter(torch.empty(3, device="meta")) for _ in range(2)]
    for weight in weights:
        weight.grad = torch.empty(3, device="meta")
    world = RecordingWorld()
    gradients.sum_over_ranks(weights, [], world)

    assert world.calls == ["cpu", "meta"]


def test_all_are_there_before_the_losses_are_summed(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first collective of each batch is the one whose time-out names a rank that does not come."""
    calls: list[str] = []
    honest = {name: getattr(World, name) for name in ("require_all", "all_reduce")}
    for name in honest:

        def call(world: World, *arguments: Any, name: str = name) -> Any:
            calls.append(name)
            return honest[name](world, *arguments)

        monkeypatch.setattr(World, name, call)
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run"))
    enter_phase(run, run.phases[0])
    calls.clear()
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    backward(run, images, images[:, :1], 0, 1, 1.0)

    assert calls[:2] == ["require_all", "all_reduce"]
    assert len(calls) > 2


def test_all_are_there_before_batchnorm_is_synchronised(tiny_data: Path, tmp_path: Path) -> None:
    """torch's layers have collectives of their own, which no time-out of ours looks after."""
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run"))
    world = RecordingWorld()
    strategy = Ddp(run.strategy.step, run.state.network, [run.device], world, sync_batchnorm=True)
    with strategy.batch(2):
        assert world.calls == ["require_all"]


WAITING = """
import signal, sys
from pathlib import Path
from camoxpert_cli import signals
import torch.distributed as dist
from camoxpert_cli.parallel.world import joined

for number in signals.ASKING:
    signal.signal(number, signals.interrupt)
init = dist.init_process_group

def waiting(*arguments, **named):
    Path(sys.argv[1]).touch()
    init(*arguments, **named)

dist.init_process_group = waiting
with joined(timeout=600):
    pass
"""


def test_a_signal_while_others_are_missing(tmp_path: Path) -> None:
    """A rank that waits for the others to come ends when it is asked to, and not when it has waited for long enough."""
    write_job(tmp_path)
    at = tmp_path / "waiting"
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(at)], env=worker_environment(tmp_path, 0, 2, threads=1), text=True
    )
    wait_for(at.exists, process)
    time.sleep(0.2)  # it is in code that runs no Python a moment later
    process.send_signal(signal.SIGTERM)

    assert process.wait(TIMEOUT) == -signal.SIGTERM
