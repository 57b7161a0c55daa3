"""Machines that come and go under torchrun: workers and agents are killed, agents come back, and the run goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.config.resolve import from_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.errors import CheckpointError
from tests.helpers.at_start import at_start
from tests.helpers.cut_runs import SETTINGS, history, steps
from tests.helpers.places import ROOT
from tests.helpers.processes import TIMEOUT, all_signals_heard, train_command
from tests.helpers.tiny_data import tiny_run

# What every process runs when it starts: steps take a moment, in which something can happen to the machine, and a
# worker says who it is. In a world of so many processes it makes one step, and in the next one waits to be stopped: a
# machine that comes finds a run that is not over.
_SITE = """
import os, time
from pathlib import Path
from camoxpert_cli.engine import training_steps

original, made = training_steps.optimizer_step, 0

def step(run, *rest):
    global made
    Path(os.environ["WORKERS"], str(os.getppid())).write_text(str(os.getpid()))
    time.sleep(0.2)
    made += 1
    late = time.monotonic() + 120
    while made > 1 and str(run.world.size) == os.environ["WAITS_IN"] and run.clock.stopping.due(0.0) is None:
        assert time.monotonic() < late, "no machine came"
        time.sleep(0.02)
    return original(run, *rest)

training_steps.optimizer_step = step
"""


class Machines:
    """torchrun agents, as on machines of their own, that run `command` and meet at the first one."""

    def __init__(self, command: list[str], folder: Path, waits_in: int) -> None:
        self._command, self._folder = command, folder
        self._agents: list[subprocess.Popen[bytes]] = []
        (folder / "workers").mkdir()
        self._environment = {
            **at_start(folder / "site", _SITE),
            "WORKERS": str(folder / "workers"),
            "WAITS_IN": str(waits_in),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            # As the guide has it: torch would not let a machine join otherwise.
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]

    @property
    def output(self) -> str:
        return (self._folder / "output.txt").read_text(encoding="utf-8", errors="replace")

    def add(self, workers: int = 1) -> subprocess.Popen[bytes]:
        """A machine more, with so many workers."""
        settings = f"is_host={int(not self._agents)},last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=8"
        launcher = [
            *[sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", f"--nproc-per-node={workers}"],
            *["--max-restarts=3", "--monitor-interval=0.2", "--rdzv-backend=c10d", f"--rdzv-conf={settings}"],
            *[f"--rdzv-endpoint=127.0.0.1:{self._port}", "--rdzv-id=test", "--local-addr=127.0.0.1"],
        ]
        with all_signals_heard(), (self._folder / "output.txt").open("ab") as output:
            agent = subprocess.Popen(
                [*launcher, *self._command[1:]],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=ROOT,
                env={**os.environ, **self._environment},
            )
        self._agents.append(agent)
        return agent

    def kill_worker(self, agent: subprocess.Popen[bytes]) -> None:
        os.kill(int((self._folder / "workers" / str(agent.pid)).read_text()), signal.SIGKILL)

    def kill(self, agent: subprocess.Popen[bytes]) -> None:
        """The agent with its worker, as if the power was gone."""
        agent.kill()
        self.kill_worker(agent)
        agent.wait(TIMEOUT)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        late = time.monotonic() + TIMEOUT
        while not condition():
            assert self._agents[0].poll() is None, self.output
            assert time.monotonic() < late, self.output
            time.sleep(0.02)

    def end(self) -> list[int]:
        """How all of them exit."""
        return [each.wait(TIMEOUT) for each in self._agents]

    def remove(self) -> None:
        for each in self._agents:
            each.kill()
            each.wait(TIMEOUT)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Callable[[list[str], int], Machines]]:
    made: list[Machines] = []

    def make(command: list[str], waits_in: int) -> Machines:
        made.append(Machines(command, tmp_path, waits_in))
        return made[-1]

    yield make
    for each in made:
        each.remove()


def settings_of(folder: Path) -> Config:
    """Those of the last save; between two files of that name there is none for a moment."""
    late = time.monotonic() + TIMEOUT
    while True:
        try:
            return from_mapping(read_checkpoint(folder / "last.pth")["config"], "last.pth")
        except CheckpointError:
            assert time.monotonic() < late
            time.sleep(0.02)


def seams(folder: Path) -> list[tuple[int, int]]:
    """Where the run was resumed: epochs that were complete, and images of the next one."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["epoch"], row["samples"]) for row in rows if row["event"] == "resume"]


def made(folder: Path) -> int:
    """How many steps there are from which the run could be resumed."""
    there = all((folder / name).exists() for name in ("last.pth", "metrics.jsonl"))
    return len(steps(folder)) if there else 0


def test_machines_that_come_and_go(
    tiny_data: Path, tmp_path: Path, machines: Callable[[list[str], int], Machines]
) -> None:
    """A worker is killed; then a machine, and the other goes on alone; then the machine comes back. No step is lost."""
    folder = tmp_path / "run"
    chosen = {**SETTINGS, "num_experts": 1, "batch_size": 1, "stage2_batch_size": 1}  # 4 images per step of 2 processes
    cluster = machines(train_command(tiny_run(tiny_data, folder, **chosen)), 1)
    cluster.add()
    other = cluster.add()
    cluster.wait_for(lambda: made(folder) >= 1)
    cluster.kill_worker(other)
    cluster.wait_for(lambda: len(seams(folder)) == 1 and made(folder) >= 3)
    assert settings_of(folder).run.gpus == 2

    cluster.kill(other)
    cluster.wait_for(lambda: len(seams(folder)) == 2 and settings_of(folder).gpu_count == 1)
    alone = settings_of(folder)
    cluster.add()
    codes = cluster.end()
    output = " ".join(cluster.output.split())

    assert codes == [0, -signal.SIGKILL, 0], cluster.output
    assert f"Continuing the run in {folder}" in output
    assert (alone.gpu_count, alone.train.accumulation_steps, alone.global_batches) == (1, 4, (4, 4))
    assert settings_of(folder).gpu_count == 2
    assert settings_of(folder).global_batches == (4, 4)
    assert [row["epoch"] for row in history(folder)] == [1, 2, 3, 4]
    assert steps(folder) == [(epoch, samples) for epoch in (1, 2, 3, 4) for samples in (4, 8)]
    assert len(seams(folder)) == 3
    assert seams(folder) == sorted(seams(folder))
    assert (folder / "results.json").exists()
    assert list(folder.glob(".*")) == []


def test_a_world_that_does_not_divide(
    tiny_data: Path, tmp_path: Path, machines: Callable[[list[str], int], Machines]
) -> None:
    """A third process joins two with 8 images per step: the run goes on with 9, and says so."""
    folder = tmp_path / "run"
    chosen = {**SETTINGS, "num_experts": 1, "stage2_batch_size": 2}
    cluster = machines(train_command(tiny_run(tiny_data, folder, **chosen)), 2)
    cluster.add(workers=2)
    cluster.wait_for(lambda: made(folder) >= 1)
    assert settings_of(folder).global_batches == (8, 8)
    cluster.add()
    codes = cluster.end()
    output = " ".join(cluster.output.split())

    assert codes == [0, 0], cluster.output
    words = "the global batch sizes 8 and 8 (stages 1 and 2) cannot be kept on 3 processes: continuing with 9 and 9"
    assert output.count(words) == 1, cluster.output
    assert settings_of(folder).global_batches == (9, 9)
    assert [row["epoch"] for row in history(folder)] == [1, 2, 3, 4]
    assert steps(folder) == [(epoch, 8) for epoch in (1, 2, 3, 4)]
    assert len(seams(folder)) == 1
