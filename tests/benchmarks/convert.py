"""How long `camox convert-ckpt` takes for 30 million parameters, against what any program would do by hand.

    python tests/benchmarks/convert.py

Reference: torch.load, the checksums of the archive, another prefix, torch.save, and a flush to the disk. Pairs are
interleaved; the median of their ratios is what counts. Aim: at most 1.3.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

import torch

from camoxpert_cli.engine.convert_checkpoint import convert_checkpoint

PARAMETERS = 30_000_000
TENSORS = 700
PAIRS = 15


def by_hand(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        if archive.testzip() is not None:
            raise SystemExit("damaged")
    state = torch.load(source, map_location="cpu", weights_only=True)
    torch.save({key.removeprefix("module."): value for key, value in state.items()}, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def seconds(work: object, *arguments: Path) -> float:
    started = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, target = folder / "in.pth", folder / "out.pth"
        size = PARAMETERS // TENSORS
        torch.save({f"module.layer{number}.weight": torch.randn(size) for number in range(TENSORS)}, source)
        pairs = []
        for _ in range(PAIRS):
            target.unlink(missing_ok=True)
            reference = seconds(by_hand, source, target)
            target.unlink()
            pairs.append((seconds(convert_checkpoint, source, target), reference))
        ratios = sorted(ours / reference for ours, reference in pairs)
        ours, reference = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{PARAMETERS / 1e6:.0f} M parameters in {TENSORS} tensors, {source.stat().st_size / 2**20:.0f} MiB")
        print(f"camox {ours:.3f} s, by hand {reference:.3f} s, {PAIRS} interleaved pairs")
        print(f"ratio {statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f}); aim: at most 1.3")


if __name__ == "__main__":
    main()
