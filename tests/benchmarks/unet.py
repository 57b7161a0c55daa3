"""A plain U-Net on a dataset in camox's layouts: what `camox train --preset finetune` has to beat.

    python -m tests.benchmarks.unet DATA --out FOLDER [--backbone-weights FILE] [--epochs 12] [--seed 1]

A U-Net of segmentation_models.pytorch, trained as its examples do: cross-entropy and Dice, AdamW with one cycle, flips,
quarter turns and color jitter, everything in memory, the last weights scored. It prints the time of training and the
measures over the first test set, and writes its predictions to FOLDER, where `camox eval --predictions` reads them.
Needs `pip install 'camox[benchmarks]'`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_image
from camoxpert_cli.data.resizing import read_resized, resize_image
from camoxpert_cli.data.split import by_name

BACKBONE, MEAN, STD = "tf_efficientnet_lite0", 0.5, 0.5
PEAK_RATE, WEIGHT_DECAY = 1e-3, 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone-weights", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--img-size", type=int, default=160)
    parser.add_argument("--eval-img-size", type=int, help="for the test images; --img-size if not given")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    found = find_data([asked.data])
    network = build(asked.backbone_weights)
    started = time.perf_counter()
    images, masks = read(by_name(found.train), asked.img_size)
    steps = train(network, images, masks, asked.epochs, asked.batch_size, np.random.default_rng(asked.seed))
    for _ in steps:
        pass
    seconds = time.perf_counter() - started
    (tests, *_) = found.tests.values()
    predict(network, tests, asked.eval_img_size or asked.img_size, asked.out)
    parameters = sum(each.numel() for each in network.parameters())
    print(f"{parameters / 1e6:.1f} M parameters, {len(images)} images, {asked.epochs} epochs: {seconds:.0f} s")


def build(weights: Path | None) -> nn.Module:
    network = smp.Unet(f"tu-{BACKBONE}", encoder_weights=None, classes=1)
    if weights is not None:
        given = timm.create_model(
            BACKBONE, features_only=True, pretrained=True, pretrained_cfg_overlay={"file": str(weights)}
        ).state_dict()
        # smp's encoder takes one more feature map, of the same network.
        network.encoder.model.load_state_dict(given, strict=True)
    return network


def read(pairs: tuple[Pair, ...], size: int) -> tuple[Tensor, Tensor]:
    """Return images uint8 (N, 3, S, S) and masks uint8 (N, 1, S, S)."""
    images, masks = zip(*(read_resized(pair, size) for pair in pairs), strict=True)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(masks)[:, None])


def train(
    network: nn.Module, images: Tensor, masks: Tensor, epochs: int, batch_size: int, draw: np.random.Generator
) -> Iterator[float]:
    """Make all steps, and yield the loss after each."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    per_epoch = -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=epochs * per_epoch)
    dice = smp.losses.DiceLoss("binary")
    network.train()
    for _ in range(epochs):
        for indices in np.array_split(draw.permutation(len(images)), per_epoch):
            batch = [augment(images[at], masks[at], draw) for at in indices]
            pixels, targets = torch.stack([one for one, _ in batch]), torch.stack([one for _, one in batch]).float()
            logits = network((pixels - MEAN) / STD)
            loss = F.binary_cross_entropy_with_logits(logits, targets) + dice(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            yield loss.item()


def augment(image: Tensor, mask: Tensor, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Flips, quarter turns and jitter of brightness, contrast and saturation; pixels 0 to 1."""
    pixels = image.float() / 255
    if draw.random() < 0.5:
        pixels, mask = pixels.flip(-1), mask.flip(-1)
    if draw.random() < 0.2:
        turns = int(draw.integers(1, 4))
        pixels, mask = pixels.rot90(turns, (1, 2)), mask.rot90(turns, (1, 2))
    brightness, contrast, saturation = draw.uniform(0.8, 1.2, 3)
    pixels = pixels * brightness
    pixels = pixels.mean() + (pixels - pixels.mean()) * contrast
    gray = pixels.mean(0, keepdim=True)
    return (gray + (pixels - gray) * saturation).clamp(0, 1), mask


@torch.inference_mode()
def predict(network: nn.Module, pairs: tuple[Pair, ...], size: int, out: Path) -> None:
    network.eval()
    out.mkdir(parents=True, exist_ok=True)
    for pair in pairs:
        image, (height, width) = read_image(pair.image)
        small = resize_image(image, size)
        logits = network((torch.from_numpy(small).permute(2, 0, 1)[None] / 255 - MEAN) / STD)
        full = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False).sigmoid()
        cv2.imwrite(str(out / f"{pair.image.stem}.png"), (full[0, 0].numpy() * 255).round().astype(np.uint8))


if __name__ == "__main__":
    main()
