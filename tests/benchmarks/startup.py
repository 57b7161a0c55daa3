"""Time of `camox --help` against importing Typer alone. Prints the medians and their ratio.

python tests/benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 15


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    ours = [str(Path(sys.executable).with_name("camox")), "--help"]
    reference = [sys.executable, "-c", "import typer"]
    pairs = [(seconds(ours), seconds(reference)) for _ in range(REPEATS)]
    ratios = sorted(mine / theirs for mine, theirs in pairs)
    print(f"camox --help    {statistics.median(mine for mine, _ in pairs):.3f} s")
    print(f"import typer    {statistics.median(theirs for _, theirs in pairs):.3f} s")
    print(f"ratio           {statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f}); aim: at most 3")


if __name__ == "__main__":
    main()
