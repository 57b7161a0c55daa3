"""A report with everything in it, from generated images, with predictions like those of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.data.synthetic import generate_image
from camoxpert_cli.report.content import MeasureWords, Report, ReportSet, ShownImage

MEASURES = {
    "iou": MeasureWords("IoU"),
    "dice": MeasureWords("Dice"),
    "mae": MeasureWords("MAE", lower_is_better=True),
    "f": MeasureWords("F"),
    "e": MeasureWords("E"),
}
PLACES = ("worst", "worst", "median", "best")


def example_report(size: int = 96, sets: tuple[str, ...] = ("CAMO", "COD10K")) -> Report:
    """Images of so many pixels a side; the same each time."""
    return Report(
        title="CamoXpert on two datasets",
        subtitle="best_model.pth, epoch 38 of 40",
        sets=[_set(name, position, size) for position, name in enumerate(sets)],
        published={
            "COD10K": [
                ("SINet-V2", "TPAMI 2022", {"S": 0.815, "wF": 0.68, "mae": 0.037}),
                ("ZoomNeXt", "TPAMI 2024", {"S": 0.898, "wF": 0.827, "mae": 0.018}),
            ]
        },
        history=example_history(40),
        configuration={
            "model": {"backbone": "edgenext_base", "num_experts": 7},
            "train": {"epochs": 40, "lr": 0.00065, "resume": None},
        },
        environment={"torch": "2.10.0", "gpus": ["Tesla T4", "Tesla T4"]},
        notes=["Predictions are scored at the original size of each image."],
        measures=MEASURES,
    )


def example_history(epochs: int) -> list[dict[str, Any]]:
    """Rows as in history.json: stage 2 starts after three tenths of the epochs."""
    rng = np.random.default_rng(0)
    rows = []
    for epoch in range(1, epochs + 1):
        stage = 1 if epoch <= 0.3 * epochs else 2
        learned = 1 - math.exp(-epoch / 12) + (0.06 if stage == 2 else 0)
        iou = 0.68 * learned + float(rng.normal(0, 0.008))
        rate = 6.5e-4 if stage == 1 else 1.5e-4
        rows.append(
            {
                "epoch": epoch,
                "stage": stage,
                "train_loss": 2.1 - 1.35 * learned + float(rng.normal(0, 0.015)),
                "iou": iou,
                "dice": iou + 0.09,
                "mae": 0.09 - 0.06 * learned + float(rng.normal(0, 0.001)),
                "lr": rate * 0.5 * (1 + math.cos(math.pi * epoch / (epochs + 1))),
                "seconds": 180.0,
            }
        )
    return rows


def shown_image(name: str, place: str, index: int, size: int) -> ShownImage:
    """A generated image, wide or high, with a prediction that fits the better, the better the place."""
    image, mask = generate_image(0, index, "val", size)
    image, mask = (image[: size * 3 // 4], mask[: size * 3 // 4]) if index % 2 else (image, mask)
    rng = np.random.default_rng(index)
    off = {"worst": 0.16, "median": 0.05, "best": 0.01}[place]
    moved = np.roll(mask, int(off * size), axis=1).astype(np.float64)
    noise = cv2.GaussianBlur(rng.standard_normal(mask.shape), (0, 0), size / 24)
    soft = cv2.GaussianBlur(moved, (0, 0), size / 40) + 900 * off * noise / noise.std() / 4
    found = np.clip(soft, 0, 255).astype(np.uint8)
    true = mask > 0
    overlap = float((true & (found > 127)).sum() / max((true | (found > 127)).sum(), 1))
    return ShownImage(
        place, name, image, true, found, {"iou": overlap, "mae": float(np.abs(found / 255 - true).mean())}
    )


def _set(name: str, position: int, size: int) -> ReportSet:
    shown = [
        shown_image(f"{name}-{index:04d}.jpg", place, 10 * position + index, size) for index, place in enumerate(PLACES)
    ]
    foreground, background = _grey_levels(shown)
    means = {"S": 0.842, "wF": 0.751, "iou": 0.688, "dice": 0.779, "mae": 0.031}
    return ReportSet(
        name=name,
        images=250,
        means=means,
        curves=_curves(foreground, background),
        foreground=foreground,
        background=background,
        slices=[
            ("Aquatic", 61, _scaled(means, 0.97)),
            ("Flying", 44, _scaled(means, 1.02)),
            ("area under 3 %", 52, _scaled(means, 0.8)),
        ],
        shown=shown,
    )


def _grey_levels(shown: list[ShownImage]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    objects = [each.prediction[each.mask] for each in shown]
    rest = [each.prediction[~each.mask] for each in shown]
    foreground, background = (np.bincount(np.concatenate(parts), minlength=256) for parts in (objects, rest))
    return foreground, background


def _curves(foreground: NDArray[np.int64], background: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """As if all pixels were one image's."""
    hits, alarms = (np.cumsum(counts[::-1])[::-1].astype(np.float64) for counts in (foreground, background))
    precision, recall = hits / np.maximum(hits + alarms, 1), hits / foreground.sum()
    iou = hits / (foreground.sum() + alarms)
    f = 1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-9)
    return {
        "precision": precision,
        "recall": recall,
        "f": f,
        "e": 0.5 + 0.5 * f,
        "iou": iou,
        "dice": 2 * iou / (1 + iou),
    }


def _scaled(means: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: min(value * factor, 1.0) for name, value in means.items()}
