"""What differs between the settings a run was started with and those it goes on with, and what that means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from camoxpert_cli.config.batches import BATCH_SETTINGS, exact_batches
from camoxpert_cli.config.resolve import Resolved
from camoxpert_cli.config.schema import SETTINGS, Config
from camoxpert_cli.errors import ConfigError

Effect = Literal["none", "rounding", "longer", "another run"]

# Which session it is; not settings of the run.
_NOT_COMPARED = {"run.checkpoint_dir", "run.resume_from"}
# Where a run is and how it is watched changes nothing about its result.
_NO_EFFECT = {
    "data.dataset_path",
    "data.images",
    "data.masks",
    "data.val_images",
    "data.val_masks",
    "data.cache",
    "data.num_workers",
    "model.backbone_weights",
    "run.target_iou",
    "run.max_restarts",
    "run.collective_timeout",
    "run.save_every",
    "run.time_limit",
    "run.session_limit",
    "run.tensorboard",
}
_ROUNDING = {
    *("run.device", "run.gpus", "run.devices", "run.strategy"),
    *("model.gradient_checkpointing", "train.deterministic"),
}
_MEANINGS: dict[Effect, str] = {
    "none": "the result stays what it would have been",
    "rounding": "the same pictures a step in the same order; results differ by rounding, and where batches differ by "
    "what is drawn or averaged within one: BatchNorm, dropout and the balance of experts",
    "longer": "the learning rate of the stage is spread over more epochs from here on",
    "another run": "from here on the run is another one than was started",
}


@dataclass(frozen=True)
class Change:
    """One setting's value before and after, and what the difference does to the result."""

    key: str
    before: Any
    after: Any
    effect: Effect

    @property
    def meaning(self) -> str:
        return _MEANINGS[self.effect]

    def __str__(self) -> str:
        return f"{self.key} {_text(self.before)} -> {_text(self.after)}: {self.meaning}"


def changes(before: Config, after: Config) -> list[Change]:
    """The settings that differ, in the schema's order."""
    same_batches = before.global_batches == after.global_batches
    found = []
    for key, setting in SETTINGS.items():
        old, new = (getattr(getattr(config, setting.section), setting.name) for config in (before, after))
        if old != new and key not in _NOT_COMPARED:
            found.append(Change(key, old, new, _effect(key, old, new, same_batches)))
    return found


def keep_global_batches(before: Config, after: Config, given: Sequence[str]) -> Config:
    """`after` with batch sizes and accumulation that make the global batches of `before` on its number of GPUs.

    `given` are the dotted keys that the user typed: a batch size among them stays. Raises ConfigError where no whole
    numbers do it.
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
        # Both stages shrink alike: where stage 1's batch is no larger than before, neither is stage 2's.
        fitting = [choice for choice in choices if choice[0] <= before.train.batch_size]
    if not fitting:
        pairs = ", ".join(f"{first} and {second}" for first, second, _ in choices) or "none"
        raise ConfigError(
            f"the run's steps of {wanted[0]} and {wanted[1]} pictures (stage 1 and 2) cannot be kept with "
            f"{' and '.join(map(str, typed.values())) or 'the same or smaller batches'} per GPU on {gpus} GPU"
            f"{'s' if gpus > 1 else ''}; what can be is {pairs}",
            "choose one of these with --batch-size, or another run with --set train.batch_size=N",
        )
    first, second, steps = fitting[0]
    train = replace(after.train, batch_size=first, stage2_batch_size=second, accumulation_steps=steps)
    return replace(after, train=train)


def keep_preset_batches(resolved: Resolved) -> Resolved:
    """Where GPUs were typed beside a preset for another number of them, keep the preset's images of a step.

    Its learning rates belong to them. A batch size or accumulation that was typed is left alone. Raises ConfigError as
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
    if key == "train.epochs" and after > before:
        return "longer"
    return "another run"


def _text(value: Any) -> str:
    return "not set" if value is None or value == () else ", ".join(value) if isinstance(value, tuple) else str(value)
