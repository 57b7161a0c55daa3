"""How long `camox convert-ckpt` takes for 30 million parameters, against what any program would do by hand.

    python -m tests.benchmarks.convert [--pairs 15] [--parameters 30000000]

Reference: torch.load, the checksums of the archive, another prefix, torch.save, and a flush to the disk. Pairs are
interleaved; the median of their ratios is what counts. Aim: at most 1.3.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `tests` is, for whoever starts this file by its path

from camoxpert_cli.checkpoints.convert import convert_checkpoint
from tests.benchmarks.table import compared, report

TENSORS = 700


def by_hand(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        if archive.testzip() is not None:
            raise SystemExit("damaged")
    state = torch.load(source, map_location="cpu", weights_only=True)
    torch.save({key.removeprefix("module."): value for key, value in state.items()}, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def seconds(convert: Callable[[Path, Path], object], source: Path, target: Path) -> float:
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    convert(source, target)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--parameters", type=int, default=30_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, target = folder / "in.pth", folder / "out.pth"
        size = asked.parameters // TENSORS
        torch.save({f"module.layer{number}.weight": torch.randn(size) for number in range(TENSORS)}, source)
        pairs = []
        for _ in range(asked.pairs):
            reference = seconds(by_hand, source, target)
            pairs.append((seconds(convert_checkpoint, source, target), reference))
        what = f"`camox convert-ckpt`, {asked.parameters / 1e6:g} M parameters, {source.stat().st_size / 2**20:.0f} MiB"
    report(compared(what, "s", pairs, "by hand", at_most=1.3))


if __name__ == "__main__":
    main()
