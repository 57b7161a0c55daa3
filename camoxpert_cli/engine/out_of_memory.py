"""A run that ran out of GPU memory: the settings to continue with."""

from __future__ import annotations

import gc
from dataclasses import replace

import torch

from camoxpert_cli.config.batches import batch_flags, batches_within, own_batches
from camoxpert_cli.config.schema import Config
from camoxpert_cli.errors import TrainingError
from camoxpert_cli.run_folder import RunFolder

# The hint if there is no checkpoint to resume from.
SMALLER = (
    "smaller --batch-size and --stage2-batch-size, a smaller --img-size, or --gradient-checkpointing; "
    "see camox guide troubleshooting"
)


class OutOfMemory(TrainingError):
    """The run in `folder` ran out of GPU memory in stage `stage` with the settings `config`; `details` quotes CUDA.

    `smaller` are the settings to continue with, None if nothing is left to reduce.
    """

    def __init__(self, message: str, folder: RunFolder, config: Config, stage: int, details: str = "") -> None:
        self.smaller = smaller(config, stage)
        hint = SMALLER
        if self.smaller is None:
            hint = "a smaller --img-size or --backbone, which is a new run, or a GPU with more memory"
        elif folder.last.exists():
            hint = f"{folder.resume_command} {batch_flags(config, self.smaller, assigned=True)}"
        super().__init__(message, hint, details)

    def let_go(self) -> None:
        """Drop the references to the failed run (its stack frames), and free the memory of its tensors."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def smaller(config: Config, stage: int) -> Config | None:
    """Halve the batch size of the stage at the same global batch size; at one image, turn on activation checkpointing.

    Returns None if that is already on.
    """
    first, second = own_batches(config)
    if (first, second)[stage - 1] > 1:
        return batches_within(config, (first // 2, second) if stage == 1 else (first, second // 2))
    if config.model.gradient_checkpointing:
        return None
    return replace(config, model=replace(config.model, gradient_checkpointing=True))
