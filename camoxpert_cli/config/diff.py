"""Differences between the settings of a run and those it is resumed with, and their effect on the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from camoxpert_cli import console
from camoxpert_cli.config.batches import BATCH_SETTINGS, exact_batches
from camoxpert_cli.config.resolve import Resolved
from camoxpert_cli.config.schema import SECTIONS, SETTINGS, Config, field_of
from camoxpert_cli.errors import ConfigError

Effect = Literal["none", "rounding", "end", "longer", "another run"]

# These identify a session; they are not settings of the run.
_NOT_COMPARED = {"run.checkpoint_dir", "run.resume_from", "run.continue", "model.init_from"}
# Where a run takes place and how it is monitored does not affect its result.
_NO_EFFECT = {
    "data.dataset_path",
    "data.images",
    "data.masks",
    "data.val_images",
    "data.val_masks",
    "data.negatives",
    "data.cache",
    "data.num_workers",
    "model.backbone_weights",
    "train.fit",  # its epochs were chosen when the run was started
    "run.target_iou",
    "run.max_restarts",
    "run.collective_timeout",
    "run.save_every",
    "run.time_limit",
    "run.session_limit",
    "run.unfinished_exit_code",
    "run.report",
    "run.tracker",
    "run.tensorboard",
}
_ROUNDING = {
    *("run.device", "run.gpus", "run.devices", "run.strategy"),
    *("model.gradient_checkpointing", "train.compile", "train.deterministic"),
}
_MEANINGS: dict[Effect, str] = {
    "none": "does not affect the result",
    "rounding": "the same images per optimizer step in the same order; results differ by rounding and, if per-GPU "
    "batch sizes differ, in everything that is computed per batch: BatchNorm statistics, dropout and the "
    "load-balancing loss",
    "end": "only decides how soon the run ends",
    "longer": "from here on, the stage's learning-rate schedule is stretched over more epochs",
    "another run": "from here on, this is no longer the run that was started",
}


@dataclass(frozen=True)
class Change:
    """One setting's value before and after, and its effect on the result."""

    key: str
    before: Any
    after: Any
    effect: Effect

    @property
    def meaning(self) -> str:
        """Return the effect in words."""
        return _MEANINGS[self.effect]

    @property
    def old(self) -> str:
        """Return the value before, as text."""
        return _text(self.before)

    @property
    def new(self) -> str:
        """Return the value after, as text."""
        return _text(self.after)

    def __str__(self) -> str:
        return f"{self.key} {self.old} -> {self.new}: {self.meaning}"


def changes(before: Config, after: Config) -> list[Change]:
    """Return the settings that differ, in schema order."""
    same_batches = before.global_batches == after.global_batches
    found = []
    for key, setting in SETTINGS.items():
        old, new = setting.of(before), setting.of(after)
        if old != new and key not in _NOT_COMPARED:
            found.append(Change(key, old, new, _effect(key, old, new, same_batches)))
    return found


def with_machine_of(run: Config, command: Config) -> Config:
    """Return the settings `run` with those of `command` that only say where and how it is trained.

    Batch sizes stay. So does activation checkpointing that an earlier lack of memory turned on.
    """
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for key in _NO_EFFECT | _ROUNDING:
        setting = SETTINGS[key]
        sections[setting.section][field_of(setting.name)] = setting.of(command)
    sections["model"]["gradient_checkpointing"] |= run.model.gradient_checkpointing
    return Config(**{name: replace(getattr(run, name), **values) for name, values in sections.items()})


def keep_global_batches(before: Config, after: Config, given: Sequence[str]) -> Config:
    """Return `after` with the batch sizes and accumulation that keep the global batch sizes of `before`.

    `given` are the dotted keys that the user typed: a batch size among them is kept. Raises ConfigError if there is no
    integer solution for the number of GPUs of `after`.
    """
    gpus = after.gpu_count
    wanted = before.global_batches
    choices = exact_batches(wanted, gpus)
    typed = {
        index: value
        for index, (key, value) in enumerate(
            [("train.batch_size", after.train.batch_size), ("train.stage2_batch_size", after.stage2_batch_size)]
        )
        if key in given
    }
    if typed:
        fitting = [choice for choice in choices if all(choice[index] == value for index, value in typed.items())]
    else:
        # Both stages shrink alike: if stage 1's batch is no larger than before, neither is stage 2's.
        fitting = [choice for choice in choices if choice[0] <= before.train.batch_size]
    if not fitting:
        pairs = ", ".join(f"{first}/{second}" for first, second, _ in choices) or "none"
        tried = f"per-GPU batch size{'' if len(typed) == 1 else 's'} {' and '.join(map(str, typed.values()))}"
        choose = "choose one of these with --batch-size N --stage2-batch-size N, or "
        raise ConfigError(
            f"global batch sizes {wanted[0]} and {wanted[1]} (stages 1 and 2) cannot be kept on "
            f"{console.counted(gpus, 'GPU')} with {tried if typed else 'the same or smaller per-GPU batch sizes'}; "
            f"possible per-GPU batch sizes (stage 1/stage 2): {pairs}",
            f"{choose if choices else ''}change the global batch size with --set train.batch_size=N; "
            "see camox guide several-gpus",
        )
    first, second, steps = fitting[0]
    train = replace(after.train, batch_size=first, stage2_batch_size=second, accumulation_steps=steps)
    return replace(after, train=train)


def keep_preset_batches(resolved: Resolved) -> Resolved:
    """Keep a preset's global batch sizes if the user typed another number of GPUs than the preset has.

    Its learning rates depend on them. A typed batch size or accumulation is left alone. Raises ConfigError as
    `keep_global_batches` does.
    """
    typed = resolved.typed
    if resolved.preset is None or typed & BATCH_SETTINGS or not typed & {"run.gpus", "run.devices"}:
        return resolved
    before = resolved.base
    if not isinstance(before.run.gpus, int) or before.run.gpus == resolved.config.run.gpus:
        return resolved
    return replace(resolved, config=keep_global_batches(before, resolved.config, []))


def _effect(key: str, before: Any, after: Any, same_batches: bool) -> Effect:
    if key in _NO_EFFECT:
        return "none"
    if key in _ROUNDING or (key in BATCH_SETTINGS and same_batches):
        return "rounding"
    if key == "train.patience":
        return "end"
    if key == "train.epochs" and after > before:
        return "longer"
    if key == "train.last_epoch_images" and (after is None or (before is not None and after > before)):
        return "longer"
    return "another run"


def _text(value: Any) -> str:
    return "not set" if value is None or value == () else ", ".join(value) if isinstance(value, tuple) else str(value)
