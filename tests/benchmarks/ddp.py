"""Images/s of camox's own training in two processes on the CPU, beside a bare DistributedDataParallel loop.

    python -m tests.benchmarks.ddp [--backbone edgenext_base] [--img-size 224] [--batch-size 4] [--pairs 10] [--steps 1]

Both train the same network with the same losses, AdamW and clipping on the same images, which lie in memory, with the
whole backbone unfrozen, one thread a process. The bare loop averages over ranks what DistributedDataParallel with
find_unused_parameters=True averages, and nothing else; camox also sums its losses, watches for steps that overflow,
seeds each step, and where --ema asks for it keeps a moving average. Pairs are interleaved within the same processes;
the median of their ratios is what counts. Aim: at least 0.97. The speed-up compares with one process, alone on the
machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from camoxpert_cli.config.resolve import Resolved
from camoxpert_cli.parallel.worker import is_worker, shared_folder, worker_environment, write_job
from camoxpert_cli.parallel.world import World, joined
from tests.benchmarks.loops import (
    arguments,
    bare_steps,
    camox_run,
    camox_steps,
    format_arguments,
    interleaved,
    noise,
    settings,
)
from tests.benchmarks.table import compared, report


def main() -> None:
    parser = arguments(img_size=224, pairs=10)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--ema", action="store_true")
    asked = parser.parse_args()
    if is_worker():
        with joined(timeout=600) as world:
            pairs = measure(world, settings(asked, processes=world.size, ema=asked.ema), asked.pairs, asked.steps)
        folder = shared_folder()
        if world.is_main and folder is not None:
            (folder / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
        return

    alone, together = in_processes(1), in_processes(2)
    what = f"{format_arguments(asked)} a process, CPU"
    for name, pairs, aim in (("1 process", alone, None), ("2 processes", together, 0.97)):
        report(compared(f"training in {name}, {what}", "images/s", pairs, "bare loop", at_least=aim))
    ours, bare = (
        statistics.median(pair[at] for pair in together) / statistics.median(pair[at] for pair in alone)
        for at in (0, 1)
    )
    report(compared(f"speed-up of 2 processes, {what}", "×", [(ours, bare)], "bare loop"))


def in_processes(count: int) -> list[tuple[float, float]]:
    """What `measure` returns, in so many processes with the arguments of this one."""
    with tempfile.TemporaryDirectory() as folder:
        write_job(Path(folder))
        command = [sys.executable, "-m", "tests.benchmarks.ddp", *sys.argv[1:]]
        workers = [
            subprocess.Popen(command, env=worker_environment(Path(folder), rank, count, threads=1))
            for rank in range(count)
        ]
        codes = [worker.wait() for worker in workers]
        if any(codes):
            raise SystemExit(f"the processes ended with {codes}")
        return [(ours, bare) for ours, bare in json.loads((Path(folder) / "pairs.json").read_text(encoding="utf-8"))]


def measure(world: World, resolved: Resolved, pairs: int, steps: int) -> list[tuple[float, float]]:
    """Images/s of camox and of the bare loop, pair by pair, over all ranks."""
    torch.manual_seed(world.rank)
    config = resolved.config
    images, masks = noise(config.train.stage2_batch_size or 1, config.data.img_size)
    with tempfile.TemporaryDirectory() as folder:
        run = camox_run(config, world, Path(folder))
        bare = bare_steps(run, images, masks)
        ours = camox_steps(run, images, masks)
        image_count = steps * len(images) * world.size
        found = interleaved([ours, bare], pairs, steps, world)
    return [(image_count / own, image_count / other) for own, other in found]


if __name__ == "__main__":
    main()
