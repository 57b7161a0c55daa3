"""A data set of a few small images in the layout of the COD papers, and the settings that train on it in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.config.resolve import Resolved, resolve
from camoxpert_cli.config.schema import SETTINGS
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.launch.decide import decide

TEST_SET = "TINY"
TRAINING_IMAGES = 11
TEST_IMAGES = 3
# Of the run that tests share, beside the settings of `tiny_run`: it saves after the second of an epoch's steps too.
PLAIN = {"save_every": "2"}

_KEYS = {setting.name: setting.key for setting in SETTINGS.values()}


def write_tiny_data(root: Path) -> Path:
    """Write `TrainDataset` and `TestDataset/TINY`, each with `Imgs` and `GT`; returns `root`."""
    _write_pairs(root / "TrainDataset", "train", TRAINING_IMAGES)
    _write_pairs(root / "TestDataset" / TEST_SET, "test", TEST_IMAGES)
    return root


def tiny_run(data: Path, folder: Path, **settings: Any) -> Resolved:
    """Settings of a run over `data` in `folder`: 64 pixels, the smallest network, two epochs, one of them stage 1.

    `settings` go by their own names (`epochs=3`) and win.
    """
    chosen = {
        "backbone": "test_resnet",
        "num_experts": 2,
        "pretrained": False,
        "dataset_path": [str(data)],
        "img_size": 64,
        "val_fraction": 0.25,
        "num_workers": 0,
        "cache": "off",
        "epochs": 2,
        "stage1_epochs": 1,
        "batch_size": 4,
        "stage2_batch_size": 3,
        "lr": 1e-3,
        "stage2_lr": 5e-4,
        "device": "cpu",
        "report": False,
        "checkpoint_dir": str(folder),
        **settings,
    }
    return resolve(None, {_KEYS[name]: value for name, value in chosen.items()})


def tiny_plan(data: Path, folder: Path, **settings: Any) -> Plan:
    """The plan of such a run."""
    return decide(tiny_run(data, folder, **settings))


def _write_pairs(folder: Path, stem: str, count: int) -> None:
    for name in ("Imgs", "GT"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        image, mask = _pair(index, stem)
        cv2.imwrite(str(folder / "Imgs" / f"{stem}-{index:02d}.png"), image)
        cv2.imwrite(str(folder / "GT" / f"{stem}-{index:02d}.png"), mask)


def _pair(index: int, stem: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image (H, W, 3) of noise with a brighter ellipse, and its mask (H, W); no two have the same size."""
    draw = np.random.default_rng([index, len(stem)])
    height, width = 60 + index, 90 - 2 * index
    mask = np.zeros((height, width), np.uint8)
    centre = (int(draw.integers(25, 45)), int(draw.integers(20, 40)))
    axes = (int(draw.integers(12, 22)), int(draw.integers(10, 18)))
    cv2.ellipse(mask, centre, axes, float(draw.integers(0, 180)), 0, 360, 255, -1)
    image = draw.integers(0, 120, (height, width, 3)) + (mask[..., None] > 0) * draw.integers(60, 130)
    return image.astype(np.uint8), mask
