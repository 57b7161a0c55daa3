"""How near to its time a fitted run ends, and how good it is beside the same run when the time cuts it off.

    python -m tests.benchmarks.fit [--seeds 5] [--time 2m] [--recipes default,quickstart]

Trains on the quickstart's generated images, with its network, by two recipes: `default` has the default numbers of
epochs, 140 of which 30 are stage 1, and `quickstart` twice those of the preset. For each seed, a recipe is trained with
`--fit TIME`, and with `--time-limit TIME` instead, which stops it in the middle of its schedule. The time of a run is
that of its whole process. Aims: it ends in time, at most 5 % early, and is better than the cut run with at least four
of five seeds. The figures mean something only if the machine does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `tests` is, for whoever starts this file by its path

from camoxpert_cli.config.parse import parse_duration
from camoxpert_cli.config.resolve import resolve
from tests.benchmarks.table import compared, report

_DEFAULT, _PRESET = resolve(None, {}).config.train, resolve("quickstart", {}).config.train
# Epochs, those of stage 1, and those of its warmup.
RECIPES = {
    "default": (_DEFAULT.epochs, _DEFAULT.stage1_epochs, _DEFAULT.warmup_epochs),
    "quickstart": (2 * _PRESET.epochs, 2 * _PRESET.stage1_epochs, 2 * _PRESET.warmup_epochs),
}
# Seconds for the machine to become quiet after a run.
_GAP = 3.0


class Ended(NamedTuple):
    """A run: seconds of its process, epochs, the rate of its last step, its best IoU, and whether it was complete."""

    seconds: float
    epochs: float
    rate: float
    iou: float
    complete: bool

    def line(self, limit: float) -> str:
        return (
            f"{self.seconds:8.1f}{self.seconds / limit:9.1%}{self.epochs:8.2f}{self.rate:10.1e}{self.iou:8.4f}"
            f"{'' if self.complete else '  not complete'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--time", default="2m")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    asked = parser.parse_args()
    limit = float(parse_duration(asked.time))
    for recipe in asked.recipes.split(","):
        print(f"{recipe:<12}seed {'':<8}{'seconds':>8}{'of time':>9}{'epochs':>8}{'last lr':>10}{'IoU':>8}", flush=True)
        fitted: list[Ended] = []
        cut: list[Ended] = []
        for seed in range(asked.seeds):
            for way, found in (("fit", fitted), ("time-limit", cut)):
                found.append(train(recipe, seed, way, asked.time))
                print(f"{'':<12}{seed:<5}{way:<11}{found[-1].line(limit)}", flush=True)
                time.sleep(_GAP)
        judge(f"{recipe}, {asked.time}", limit, fitted, cut)


def judge(what: str, limit: float, fitted: list[Ended], cut: list[Ended]) -> None:
    late = sum(each.seconds > limit or not each.complete for each in fitted)
    times = [(each.seconds, limit) for each in fitted]
    title = f"end of a fitted run, {what}, {late} of {len(fitted)} late"
    report(compared(title, "s", times, "its time", at_least=0.95))
    better = sum(own.iou > other.iou for own, other in zip(fitted, cut, strict=True))
    pairs = [(own.iou, other.iou) for own, other in zip(fitted, cut, strict=True)]
    title = f"validation IoU of a fitted run, {what}, better with {better} of {len(fitted)} seeds"
    report(compared(title, "", pairs, "the same run, cut off", at_least=1))


def train(recipe: str, seed: int, way: str, limit: str) -> Ended:
    """Train in a folder that is removed, with `--fit` or `--time-limit`."""
    epochs, first, warmup = RECIPES[recipe]
    with tempfile.TemporaryDirectory() as name:
        run, preset = Path(name) / "run", Path(name) / "recipe.yaml"
        numbers = f"{{epochs: {epochs}, stage1_epochs: {first}, warmup_epochs: {warmup}}}"
        preset.write_text(f"extends: quickstart\ntrain: {numbers}\n", encoding="utf-8")
        command = [sys.executable, "-m", "camoxpert_cli", "train", "--preset", str(preset), "--quiet"]
        command += [f"--{way}", limit, "--seed", str(seed), "--checkpoint-dir", str(run)]
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        steps = [row for row in rows if row["event"] == "step"]
        scored = [row["iou"] for row in rows if row["event"] == "epoch"]
        part = steps[-1]["epoch"] - 1 + steps[-1]["samples"] / max(row["samples"] for row in steps)
        return Ended(seconds, part, steps[-1]["lr"], max(scored), (run / "results.json").exists())


if __name__ == "__main__":
    main()
