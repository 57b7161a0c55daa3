"""Proves on one GPU, in minutes, that camox works there.

    python -m tests.gpu --out DIR [--minutes 25] [--only NAME ...] [--patience FACTOR] [--device cpu]

Each check is a process of its own with a time-out; what one finds is in DIR/results.jsonl as soon as it ends, its
output in DIR/<check>.log, and a table of all in DIR/table.md. One that fails stops no other, and what no longer fits
into the minutes is skipped. The exit code is 0 where nothing failed, 1 where something did, and 2 for what cannot be
asked. --device cpu runs, in small, what means something without a GPU: that the checks work is known before a GPU is at
hand. It takes about 5 minutes on two cores.

On a machine without internet, with torch, torchvision and timm: gather the wheels of what else pyproject.toml and its
extra `test` name, for the Python and the platform there, such as

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \\
        --dest wheels albumentations==2.0.8 ...

bring them with the repository, and there, in the repository's folder,

    python -m pip install --no-index --no-deps --target /tmp/site wheels/*.whl
    export PYTHONPATH=/tmp/site:.
    python -m tests.gpu --out /tmp/proof

camox itself needs no installation. On an H200 with 16 cores and a cold disk a check took up to two minutes, most of
which went by until its processes had started. Those before `host_waits` but `memory` measure no time and no memory:
they can run side by side, each with its own --out and --patience 3, and OMP_NUM_THREADS=2. The table's numbers are
those of the machine alone where nothing else runs on it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.gpu.patience import PATIENCE
from tests.gpu.run_checks import Check, run_checks
from tests.gpu.table import machine

# In the order in which they are run, with the seconds that they are expected to take there.
CHECKS = {
    "versions": 40,
    "one_step": 60,
    "data_parallel": 60,
    "two_ranks": 120,
    "failing_rank": 90,
    "memory": 120,
    "reproducibility": 100,
    "host_waits": 40,
    "speed": 120,
    "commands": 100,
    "gpu_tests": 100,
    "side_by_side": 240,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="empty folder for results and logs")
    parser.add_argument("--minutes", type=float, default=25, help="how long all may take (default: 25)")
    parser.add_argument(
        "--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="NAME", help=f"some of {', '.join(CHECKS)}"
    )
    parser.add_argument(
        "--patience", type=float, default=1, metavar="FACTOR", help="multiplies every time-out, for a slow machine"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    if asked.device == "cuda" and not has_cuda():
        parser.error("torch finds no GPU here; --device cpu runs what needs none")
    asked.out.mkdir(parents=True, exist_ok=True)
    if any(asked.out.iterdir()):
        parser.error(f"{asked.out} is not empty: choose another --out")
    os.environ[PATIENCE] = str(asked.patience)
    if asked.device == "cpu":
        # More would wait for each other on a machine that does other things as well.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    start, results = [sys.executable, "-m", "tests.gpu.one_check"], str(asked.out.absolute())
    checks = [
        Check(name, seconds, (*start, name, asked.device, results))
        for name, seconds in CHECKS.items()
        if name in asked.only
    ]
    raise SystemExit(run_checks(checks, asked.out, asked.minutes, machine()))


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    main()
