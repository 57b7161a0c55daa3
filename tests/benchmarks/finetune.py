"""How well `camox train --preset finetune` does beside a plain U-Net, for the same images and the same time.

    python -m tests.benchmarks.finetune DATA --backbone-weights FILE [--images 20,50,100,200,400] [--seeds 1,2,3]
        [--out FOLDER] [--unet-images 4800]

DATA has a training set and a test set in one of camox's layouts. For each number of images, the first so many of one
shuffled list, and for each seed: the U-Net, until it has seen `--unet-images` images, 12 epochs of 400; camox; then the
U-Net for the time that camox took. Each is a process of its own, none beside another. Time is that of training, camox's
validation included. The table is over the first test set, as `camox eval` scores it, mean over seeds; every single
result is in FOLDER/results.json, by which the command, run again, leaves out what is done.
Needs `pip install 'camox[benchmarks]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.split import by_name

SHOWN = ("iou", "mae", "s_measure", "weighted_f")
UNET, CAMOX, UNET_LONGER = "U-Net", "camox", "U-Net, camox's time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone-weights", type=Path, required=True, help="of tf_efficientnet_lite0")
    parser.add_argument("--images", default="400", help="numbers of training images, such as 20,50")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--unet-images", type=int, default=4800)
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    results = Results(asked.out / "results.json")
    counts, seeds = ([int(each) for each in text.split(",")] for text in (asked.images, asked.seeds))
    for count in counts:
        data = part_of(asked.data, count, asked.out / f"data{count}")
        for seed in seeds:
            epochs = round(asked.unet_images / count)
            short = results.of(UNET, count, seed, lambda: unet(asked, data, seed, epochs))  # noqa: B023
            own = results.of(CAMOX, count, seed, lambda: camox(asked, data, seed))  # noqa: B023
            same_time = max(1, round(epochs * own["seconds"] / short["seconds"]))
            results.of(UNET_LONGER, count, seed, lambda: unet(asked, data, seed, same_time))  # noqa: B023
    print("\n".join(results.table(counts, seeds)))


def part_of(data: Path, count: int, folder: Path) -> Path:
    """Make a dataset of `count` of the training images, as links: the larger contains the smaller."""
    found = find_data([data])
    pairs = [*by_name(found.train)]
    random.Random(0).shuffle(pairs)
    (name, tests), *_ = found.tests.items()
    for kind, chosen in (("TrainDataset", pairs[:count]), (f"TestDataset/{name}", tests)):
        for pair in chosen:
            for part, path in (("Imgs", pair.image), ("GT", pair.mask)):
                link = folder / kind / part / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(path.resolve())
    return folder


class Results:
    """What has been measured, in a file: measures and seconds by program, number of images and seed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def of(self, program: str, images: int, seed: int, measure: Any) -> dict[str, Any]:
        key = {"program": program, "images": images, "seed": seed}
        for row in self.rows:
            if key.items() <= row.items():
                return row
        row = {**key, **measure()}
        print(row, flush=True)
        self.rows.append(row)
        self.path.write_text(json.dumps(self.rows, indent=1))
        return row

    def table(self, counts: Sequence[int], seeds: Sequence[int]) -> list[str]:
        """Return a Markdown table of means over the seeds, with the lowest and highest IoU."""
        lines = ["| images | program | IoU | MAE | S | weighted F | seconds |", "|---|---|---|---|---|---|---|"]
        for count in counts:
            for program in (UNET, CAMOX, UNET_LONGER):
                rows = [
                    each
                    for each in self.rows
                    if (each["program"], each["images"]) == (program, count) and each["seed"] in seeds
                ]
                iou = [row["iou"] for row in rows]
                means = " | ".join(f"{fmean(row[name] for row in rows):.3f}" for name in SHOWN[1:])
                seconds = fmean(row["seconds"] for row in rows)
                spread = f" ({min(iou):.3f} to {max(iou):.3f})" if len(iou) > 1 else ""
                lines.append(f"| {count} | {program} | {fmean(iou):.3f}{spread} | {means} | {seconds:.0f} |")
        return lines


def unet(asked: argparse.Namespace, data: Path, seed: int, epochs: int) -> dict[str, Any]:
    out = asked.out / f"unet-{data.name}-{seed}-{epochs}"
    printed = run(
        *("-m", "tests.benchmarks.unet", data, "--out", out, "--backbone-weights", asked.backbone_weights),
        *("--epochs", epochs, "--seed", seed),
    )
    (seconds,) = re.findall(r"(\d+) s$", printed, re.MULTILINE)
    return {"seconds": int(seconds), **score("--predictions", out, "--masks", masks_of(data))}


def camox(asked: argparse.Namespace, data: Path, seed: int) -> dict[str, Any]:
    folder = asked.out / f"camox-{data.name}-{seed}"
    printed = run(
        *("-m", "camoxpert_cli", "train", "--preset", "finetune", "--dataset-path", data, "--seed", seed),
        *("--backbone", "tf_efficientnet_lite0", "--backbone-weights", asked.backbone_weights),
        *("--checkpoint-dir", folder, "--no-report", "--json"),
    )
    scores = score(folder / "best_model.pth", "--images", masks_of(data).with_name("Imgs"), "--masks", masks_of(data))
    return {"seconds": json.loads(printed)["seconds"], **scores}


def masks_of(data: Path) -> Path:
    """Return the folder of the masks of the test set."""
    (folder,) = data.glob("TestDataset/*/GT")
    return folder


def score(*arguments: object) -> dict[str, float]:
    """Return the measures of a checkpoint or of predictions, by the same command."""
    (scores,) = json.loads(run("-m", "camoxpert_cli", "eval", *arguments, "--json"))["sets"].values()
    return {name: scores[name] for name in SHOWN}


def run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with exit code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
