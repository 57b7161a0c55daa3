"""A run that ran out of GPU memory on its way: what it goes on with."""

from __future__ import annotations

import gc
from dataclasses import replace

import torch

from camoxpert_cli.config.batches import batch_flags, batches_within, own_batches
from camoxpert_cli.config.schema import Config
from camoxpert_cli.errors import TrainingError
from camoxpert_cli.run_folder import RunFolder

# What to type where nothing is known of the run that could go on.
SMALLER = "smaller --batch-size and --stage2-batch-size, smaller --img-size, or --gradient-checkpointing"


class OutOfMemory(TrainingError):
    """The run in `folder` ran out of memory in stage `stage`, with the settings `config`; `details` say in which words.

    `smaller` are those to go on with, None where nothing is left to make smaller.
    """

    def __init__(self, message: str, folder: RunFolder, config: Config, stage: int, details: str = "") -> None:
        self.smaller = smaller(config, stage)
        hint = SMALLER
        if self.smaller is None:
            hint = "a smaller --img-size or --backbone, which is another run, or a GPU with more memory"
        elif folder.last.exists():
            hint = f"{folder.resume_command} {batch_flags(config, self.smaller, assigned=True)}"
        super().__init__(message, hint, details)

    def let_go(self) -> None:
        """Drop what holds the run that failed: the frames of its calls, and with them the memory of its tensors."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def smaller(config: Config, stage: int) -> Config | None:
    """Half the batch of the stage at the same images a step; where it is one image, gradient checkpointing.

    None where it has that already.
    """
    first, second = own_batches(config)
    if (first, second)[stage - 1] > 1:
        return batches_within(config, (first // 2, second) if stage == 1 else (first, second // 2))
    if config.model.gradient_checkpointing:
        return None
    return replace(config, model=replace(config.model, gradient_checkpointing=True))
