"""Runs all benchmarks, one after the other, and writes one table of what they measured.

    python -m tests.benchmarks [--out FILE.md] [--only step,loader] [--quick]

Takes about an hour on two cores, during which the machine should do nothing else. A script that fails leaves a row
that says so, and the exit code is 1. The table is written anew after each script. --quick runs each at its smallest, to
see that all of them work: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from camoxpert_cli.data.cores import usable_cores
from camoxpert_cli.run_folder import versions
from tests.benchmarks.table import ROWS, Outcome, markdown, read_rows

ROOT = Path(__file__).parents[2]
_SMALL_STEP = "--backbone test_resnet --img-size 64 --batch-size 2 --num-experts 3 --pairs 2"
# Each script, and the arguments that make it quick.
SCRIPTS = {
    "startup": "--pairs 2",
    "convert": "--pairs 2 --parameters 1000000",
    "loader": "16 --pairs 2",
    "measures": "1",
    "overhead": "--pairs 1 --backbone test_resnet --img-size 64 --pictures 8",
    "counts": "--backbone test_resnet --img-size 64 --batch-size 3 --num-experts 3 --no-plain",
    "step": _SMALL_STEP,
    "ddp": f"{_SMALL_STEP} --steps 1",
    "fit": "--seeds 1 --time 1m --recipes quickstart",
}
_VERSIONS = ("camox", "python", "torch", "timm", "opencv-python-headless", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="where to write the table as well")
    parser.add_argument("--only", type=names, default=list(SCRIPTS), metavar="NAME,NAME", help=", ".join(SCRIPTS))
    parser.add_argument("--quick", action="store_true", help="as little as possible: the figures mean nothing")
    asked = parser.parse_args()
    scripts = [
        ["-m", f"tests.benchmarks.{name}", *(SCRIPTS[name].split() if asked.quick else [])] for name in asked.only
    ]
    raise SystemExit(run_all(scripts, asked.out))


def names(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in SCRIPTS]:
        raise argparse.ArgumentTypeError(f"no benchmark {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    return chosen


def run_all(scripts: Sequence[Sequence[str]], out: Path | None) -> int:
    """Run each, given as what follows `python`; print the table, and write it to `out`. Returns the exit code."""
    about, outcomes = machine(), []
    for script in scripts:
        print(f"\n== {shlex.join(['python', *script])}", flush=True)
        outcomes.append(run(script))
        print(f"({outcomes[-1].seconds:.0f} s)", flush=True)
        if out is not None:
            out.write_text(markdown(about, outcomes), encoding="utf-8")
    print(f"\n{markdown(about, outcomes)}", end="")
    return int(any(each.code for each in outcomes))


def run(script: Sequence[str]) -> Outcome:
    """One script to its end; what it prints goes to the screen."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        started = time.perf_counter()
        code = subprocess.run([sys.executable, *script], cwd=ROOT, env={**os.environ, ROWS: str(rows)}).returncode
        return Outcome(shlex.join(["python", *script]), code, time.perf_counter() - started, read_rows(rows))


def machine() -> list[tuple[str, str]]:
    """What the figures depend on: the head of the table."""
    import torch  # the scripts' own processes each load it, this one only asks

    found = versions()
    return [
        ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("processor", f"{processor()}, {usable_cores()} cores"),
        ("GPU", torch.cuda.get_device_name() if torch.cuda.is_available() else "none"),
        ("versions", ", ".join(f"{name} {found.get(name, 'not installed')}" for name in _VERSIONS)),
    ]


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Its model name, where the system tells."""
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else "unknown processor"


if __name__ == "__main__":
    main()
