"""How long `camox --help` takes, beside importing Typer alone.

    python -m tests.benchmarks.startup [--pairs 15]

Pairs are interleaved. Aim: at most 3 times as long.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `tests` is, for whoever starts this file by its path

from tests.benchmarks.table import compared, report


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=15)
    asked = parser.parse_args()
    ours = [sys.executable, "-m", "camoxpert_cli", "--help"]
    reference = [sys.executable, "-c", "import typer"]
    pairs = [(seconds(ours), seconds(reference)) for _ in range(asked.pairs)]
    report(compared("`camox --help`", "s", pairs, "import typer", at_most=3))


if __name__ == "__main__":
    main()
