"""What a run costs beside its training steps: its start, the validation and saving of an epoch, and its end.

    python -m tests.benchmarks.overhead [--backbone edgenext_base] [--img-size 128] [--images 32] [--pairs 3]

`camox train` trains for an epoch on generated images of 737×964, a quarter as many again are held out, on the CPU,
batches of 2, and its run folder tells when what was done. Its start is compared with that of a program that imports
torch and timm and makes one step of the same backbone; validation with the training it follows; saving with torch.save
of what `last.pth` and `best_model.pth` hold and a flush. The end is all that comes after the epoch: scores by all
measures, the report and its charts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from camoxpert_cli.data.synthetic import write_photographs
from tests.benchmarks.table import Row, compared, report

BATCH = 2


class Seconds(NamedTuple):
    """Of the parts of a run."""

    start: float  # from the command to the end of its first step
    training: float
    validation: float
    saving: float
    end: float  # after the epoch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="edgenext_base")
    parser.add_argument("--img-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held_out = asked.images // 4
        write_data(folder, asked.images + held_out)
        runs, starts, plain_saves = [], [], []
        for number in range(asked.pairs):
            run = folder / f"run{number}"
            starts.append(plain_start(asked.backbone, asked.img_size))
            runs.append(train(folder, run, asked.backbone, asked.img_size))
            plain_saves.append(plain_save(run))
        size = sum((run / file).stat().st_size for file in ("last.pth", "best_model.pth")) / 1e6
    what = f"{asked.backbone}, {asked.img_size} px, CPU"
    report(
        compared(
            f"from `camox train` to its first step, {what}",
            "s",
            [(each.start, plain) for each, plain in zip(runs, starts, strict=True)],
            "import torch and timm, a step of the backbone",
        )
    )
    report(
        compared(
            f"validation with {held_out} images of 737×964, {what}",
            "s",
            [(each.validation, each.training) for each in runs],
            f"the epoch's training, {asked.images} images",
        )
    )
    report(
        compared(
            f"saving an epoch, {size:.0f} MB, {what}",
            "s",
            [(each.saving, plain) for each, plain in zip(runs, plain_saves, strict=True)],
            "torch.save and a flush",
        )
    )
    end = statistics.median(each.end for each in runs)
    report(Row(f"the end of a run, scores and report of {held_out} images, {what}", "s", end))


def write_data(folder: Path, count: int) -> None:
    """A folder of images and one of masks."""
    for pair in write_photographs(folder / "drawn", count):
        for path, kind in ((pair.image, "images"), (pair.mask, "masks")):
            (folder / kind).mkdir(exist_ok=True)
            path.rename(folder / kind / path.name)


def plain_start(backbone: str, img_size: int) -> float:
    command = [sys.executable, str(Path(__file__).with_name("plain_start.py")), backbone, str(img_size), str(BATCH)]
    started = time.time()
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) - started


def train(data: Path, run: Path, backbone: str, img_size: int) -> Seconds:
    """One epoch with the whole backbone, of a run in the folder `run`."""
    flags = f"--backbone {backbone} --img-size {img_size} --batch-size {BATCH} --stage2-batch-size {BATCH} --epochs 1"
    flags += " --skip-stage1 --stage1-epochs 0 --val-fraction 0.2 --cache off --device cpu --quiet"
    places = ["--images", str(data / "images"), "--masks", str(data / "masks"), "--checkpoint-dir", str(run)]
    command = [sys.executable, "-m", "camoxpert_cli", "train", *flags.split(), *places, "--set", "model.pretrained=off"]
    started = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ended = time.time()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row["time"] for row in rows if row["event"] == "step"]
    (epoch,) = [row for row in rows if row["event"] == "epoch"]
    validation = epoch["time"] - steps[-1]
    # Written when both checkpoints are.
    saved = (run / "history.json").stat().st_mtime
    return Seconds(
        start=steps[0] - started,
        training=epoch["seconds"] - validation,
        validation=validation,
        saving=saved - epoch["time"],
        end=ended - saved,
    )


def plain_save(run: Path) -> float:
    """Seconds to save what the run's checkpoints hold."""
    contents = [torch.load(run / name, weights_only=True) for name in ("last.pth", "best_model.pth")]
    started = time.perf_counter()
    for number, content in enumerate(contents):
        path = run / f"plain{number}.pth"
        torch.save(content, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
