"""How many images and optimizer steps an epoch has, and the learning rate of each step."""

from __future__ import annotations

import math

from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.schedule import learning_rate
from camoxpert_cli.engine.stages import Stage


def epoch_images(config: Config, epoch: int, images: int) -> int:
    """Return the number of images that `epoch` (from 0) trains on, for a training set of `images` images.

    That is all of them, but fewer in the last epoch of a run with `train.last_epoch_images`.
    """
    last = config.train.last_epoch_images
    return min(images, last) if last is not None and epoch + 1 == config.train.epochs else images


def step_images(config: Config, stage: Stage) -> int:
    """Return the number of images per optimizer step of `stage`, its global batch size."""
    return stage.batch_size * config.train.accumulation_steps * config.gpu_count


def steps_in_epoch(config: Config, stage: Stage, epoch: int, images: int) -> int:
    """Return the optimizer steps in `epoch`, which belongs to `stage`, for a training set of `images` images."""
    return math.ceil(epoch_images(config, epoch, images) / step_images(config, stage))


def rate_at(config: Config, stage: Stage, images: int, epoch: int, step: int) -> float:
    """Return the learning rate of optimizer step `step` (from 0) of `epoch` for a training set of `images` images.

    The schedule of a stage ends with its last step, also if the last epoch does not train on all images.
    """
    train, steps = config.train, math.ceil(images / step_images(config, stage))
    return learning_rate(
        (epoch - stage.first) * steps + step,
        (stage.end - 1 - stage.first) * steps + steps_in_epoch(config, stage, stage.end - 1, images),
        scheduler=train.scheduler,
        peak=stage.lr,
        minimum=train.min_lr,
        warmup_steps=stage.warmup_epochs * steps,
        t_mult=train.t_mult,
    )
