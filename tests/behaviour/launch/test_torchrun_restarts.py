"""torchrun restarts its workers, with what it does by default: they find each other, and continue the run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.helpers.cut_runs import history, steps
from tests.helpers.processes import run, train_command
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import tiny_run

# Rank 0 is late: the other one comes to a store in which it may find what the killed processes left.
LATE = "import os, time; time.sleep(1 if os.environ.get('RANK') == '0' else 0)"
TORCHRUN = "-m torch.distributed.run --standalone --nproc-per-node=2 --local-addr=127.0.0.1 --monitor-interval=0.1"


def test_a_worker_is_killed(tiny_data: Path, tmp_path: Path) -> None:
    """The same command goes on from the last checkpoint: no option says that it is to be continued."""
    folder = tmp_path / "run"
    chosen = {"batch_size": 2, "epochs": 1, "num_experts": 1, "save_every": "1"}
    command = train_command(tiny_run(tiny_data, folder, **chosen))
    launcher = [sys.executable, *TORCHRUN.split(), "--max-restarts=1", *command[1:]]
    killed = sabotage(tmp_path / "site", 1, 2, kill("self", "SIGKILL"), LATE)
    code, output = run(launcher, GLOO_SOCKET_IFNAME="lo", **killed)

    assert code == 0, output
    assert f"Continuing the run in {folder} (TORCHELASTIC_MAX_RESTARTS is set)" in " ".join(output.split())
    assert re.search("0 epochs complete, [48] images into epoch 1", output)  # rank 0 may have saved the step
    assert steps(folder) == [(1, 4), (1, 8)]
    assert [row["epoch"] for row in history(folder)] == [1]
    assert (folder / "results.json").exists()
