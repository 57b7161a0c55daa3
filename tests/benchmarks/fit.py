"""How near to its time a fitted run ends, and how good it is beside runs that the time cuts off.

    python -m tests.benchmarks.fit [--seeds 5] [--time 2m]

For each seed, the quickstart is trained with `--fit TIME`, and with `--time-limit TIME` and a schedule that is too long
for it: with as many epochs as the defaults have, and with twice as many as the preset. The time of a run is that of its
whole process. Aims: it ends in time, at most 5 % early, and is better than the cut runs with at least four of five
seeds. The figures mean something only if the machine does nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `tests` is, for whoever starts this file by its path

from camoxpert_cli.config.parse import parse_duration
from camoxpert_cli.config.resolve import resolve
from tests.benchmarks.table import Row, compared, report

QUICKSTART = resolve("quickstart", {}).config.train
DEFAULT_EPOCHS = resolve(None, {}).config.train.epochs
# Whatever the machine needs to become quiet again after a run.
_GAP = 3.0


class Ended(NamedTuple):
    """A run: seconds of its process, complete epochs, the rate of its last step, its best IoU, and whether it ended."""

    seconds: float
    epochs: float
    rate: float
    iou: float
    complete: bool


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--time", default="2m")
    asked = parser.parse_args()
    limit = parse_duration(asked.time)
    ways = {
        "fitted": ["--fit", asked.time],
        f"{DEFAULT_EPOCHS} epochs, cut": ["--epochs", str(DEFAULT_EPOCHS), "--time-limit", asked.time],
        f"{2 * QUICKSTART.epochs} epochs, cut": ["--epochs", str(2 * QUICKSTART.epochs), "--time-limit", asked.time],
    }
    print(f"{'seed':<6}{'':<20}{'seconds':>8}{'of limit':>10}{'epochs':>8}{'last lr':>10}{'IoU':>8}", flush=True)
    found: dict[str, list[Ended]] = {name: [] for name in ways}
    for seed in range(asked.seeds):
        for name, flags in ways.items():
            ended = train(["--seed", str(seed), *flags])
            found[name].append(ended)
            told = "" if ended.complete or name != "fitted" else "  stopped"
            print(
                f"{seed:<6}{name:<20}{ended.seconds:>8.1f}{ended.seconds / limit:>10.1%}{ended.epochs:>8.2f}"
                f"{ended.rate:>10.1e}{ended.iou:>8.4f}{told}",
                flush=True,
            )
            time.sleep(_GAP)
    fitted = found.pop("fitted")
    times = [(each.seconds, float(limit)) for each in fitted]
    in_time = all(each.complete and each.seconds <= limit for each in fitted)
    report(compared(f"quickstart --fit {asked.time}", "s", times, "its time", at_least=0.95 if in_time else math.inf))
    for name, cut in found.items():
        pairs = [(own.iou, other.iou) for own, other in zip(fitted, cut, strict=True)]
        better = sum(own > other for own, other in pairs)
        report(
            compared(
                f"IoU of quickstart --fit {asked.time}, better with {better} of {len(pairs)} seeds", "", pairs, name
            )
        )
    report(Row("lowest rate of the preset beside the last one", "", QUICKSTART.min_lr, fitted[-1].rate, "fitted"))


def train(flags: list[str]) -> Ended:
    """Train the quickstart in a folder that is removed."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        command = [sys.executable, "-m", "camoxpert_cli", "train", "--preset", "quickstart", "--quiet", *flags]
        started = time.monotonic()
        subprocess.run([*command, "--checkpoint-dir", str(run)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        steps = [row for row in rows if row["event"] == "step"]
        scored = [row["iou"] for row in rows if row["event"] == "epoch"]
        part = steps[-1]["epoch"] - 1 + steps[-1]["samples"] / max(row["samples"] for row in steps)
        return Ended(seconds, part, steps[-1]["lr"], max(scored), (run / "results.json").exists())


if __name__ == "__main__":
    main()
