from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.config.diff import changes, keep_global_batches, keep_preset_batches
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import SETTINGS, Config
from camoxpert_cli.errors import ConfigError


def config(**settings: Any) -> Config:
    keys = {setting.name: setting.key for setting in SETTINGS.values()}
    return resolve(None, {keys[name]: value for name, value in settings.items()}).config


def effects(before: Config, after: Config) -> dict[str, str]:
    return {change.key: change.effect for change in changes(before, after)}


def test_nothing_changed() -> None:
    """Equal settings have no changes."""
    assert changes(config(epochs=9, stage1_epochs=2), config(epochs=9, stage1_epochs=2)) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"num_workers": 4}, {"num_workers": 2}, {"data.num_workers": "none"}),
        ({}, {"dataset_path": ["moved"], "time_limit": "1h"}, {"data.dataset_path": "none", "run.time_limit": "none"}),
        ({"device": "cpu"}, {"device": "cuda"}, {"run.device": "rounding"}),
        ({"epochs": 40}, {"epochs": 60}, {"train.epochs": "longer"}),
        ({"epochs": 60}, {"epochs": 40}, {"train.epochs": "another run"}),
        ({"last_epoch_images": 40}, {}, {"train.last_epoch_images": "longer"}),
        ({"last_epoch_images": 40}, {"last_epoch_images": 60}, {"train.last_epoch_images": "longer"}),
        ({"last_epoch_images": 40}, {"last_epoch_images": 20}, {"train.last_epoch_images": "another run"}),
        ({}, {"last_epoch_images": 20}, {"train.last_epoch_images": "another run"}),
        ({"patience": 9}, {"patience": 3}, {"train.patience": "end"}),
        ({"fit": "9h"}, {"fit": "5h"}, {"train.fit": "none"}),
        ({"lr": 1e-3}, {"lr": 2e-3}, {"train.lr": "another run"}),
    ],
)
def test_effects(before: dict[str, Any], after: dict[str, Any], expected: dict[str, str]) -> None:
    """A change is told by what it does to the result."""
    assert effects(config(**before), config(**after)) == expected


def test_batches_by_their_product() -> None:
    """Half the batch in twice the steps is the same but for rounding; half the batch alone is another run."""
    before = config(batch_size=16, stage2_batch_size=12)
    same = config(batch_size=8, stage2_batch_size=6, accumulation_steps=2)
    other = config(batch_size=8, stage2_batch_size=12)

    assert set(effects(before, same).values()) == {"rounding"}
    assert effects(before, other) == {"train.batch_size": "another run"}


# A value of every setting that a run compares, and what it means to resume with it instead of the default.
MEANT: dict[str, dict[str, Any]] = {
    # Where a run takes place, what it prints, and when it stops.
    "none": {
        **{"data.dataset_path": ["moved"], "data.images": ["moved"], "data.masks": ["moved"]},
        **{"data.val_images": ["moved"], "data.val_masks": ["moved"], "data.cache": "moved", "data.num_workers": 1},
        **{"data.negatives": ["moved"]},
        **{"model.backbone_weights": "moved.pth", "run.target_iou": 0.7, "run.max_restarts": 3},
        **{"run.collective_timeout": "1h", "run.save_every": "5m", "run.time_limit": "1h", "run.session_limit": "12h"},
        **{"run.unfinished_exit_code": 85, "run.report": False, "run.tensorboard": True, "train.fit": "9h"},
        **{"run.tracker": "wandb"},
    },
    # The same sums, added up in another order.
    "rounding": {
        **{"run.device": "cpu", "run.gpus": 1, "run.devices": "0", "run.strategy": "dp"},
        **{"model.gradient_checkpointing": True, "train.compile": "on", "train.deterministic": True},
    },
    "end": {"train.patience": 9},
    "longer": {"train.epochs": 999},
    # Whatever is drawn or learned otherwise.
    "another run": {
        **{"model.backbone": "resnet18", "model.num_experts": 3, "model.pretrained": False},
        **{"model.deep_supervision": False, "data.img_size": 352, "data.eval_img_size": 352, "data.val_fraction": 0.2},
        **{"data.min_epoch_images": 9, "data.upright": True},
        **{"data.negatives_share": 0.1, "data.empty_as_negatives": True},
        **{"data.include_noncam": True, "data.generated_images": 9, "train.stage1_epochs": 3, "train.lr": 1e-3},
        **{"train.batch_size": 3, "train.stage2_batch_size": 3, "train.accumulation_steps": 3},
        **{"train.stage2_lr": 1e-3, "train.backbone_lr_factor": 0.5, "train.weight_decay": 0.1},
        **{"train.scheduler": "none", "train.min_lr": 1e-7, "train.warmup_epochs": 1, "train.t_mult": 3},
        **{"train.last_epoch_images": 9},
        **{"train.progressive_unfreeze": False, "train.skip_stage1": True, "train.use_ema": False},
        **{"train.ema_decay": 0.9, "train.sync_batchnorm": True, "train.precision": "fp16", "train.seed": 7},
    },
}
# These say which session it is.
NOT_COMPARED = {
    **{"run.checkpoint_dir": "moved", "run.resume_from": "moved.pth", "run.continue": True},
    **{"model.init_from": "other.pth"},
}
# Folders that belong together.
PARTNERS = {
    **{"data.images": "data.masks", "data.masks": "data.images"},
    **{"data.val_images": "data.val_masks", "data.val_masks": "data.val_images"},
}


def effects_of(key: str, value: Any) -> dict[str, str]:
    partner = {PARTNERS[key]: value} if key in PARTNERS else {}
    found = effects(Config(), resolve(None, {**partner, key: value}).config)
    return {name: effect for name, effect in found.items() if name not in partner}


def test_every_setting_was_given_its_effect() -> None:
    """A setting that nobody thought about makes another run, with a warning; a new one has to be entered above."""
    meant = [key for keys in MEANT.values() for key in keys]

    assert sorted([*meant, *NOT_COMPARED]) == sorted(SETTINGS)


@pytest.mark.parametrize("effect", MEANT)
def test_effect_of_each_setting(effect: str) -> None:
    """Changed alone, each setting has the effect that it was given."""
    assert {key: effects_of(key, value) for key, value in MEANT[effect].items()} == {
        key: {key: effect} for key in MEANT[effect]
    }


def test_what_is_not_compared() -> None:
    """Another folder, or another file to resume from, is no change of the run."""
    assert [effects_of(key, value) for key, value in NOT_COMPARED.items()] == [{}] * len(NOT_COMPARED)


def test_a_change_in_words() -> None:
    """A change names the setting, both values and what it means."""
    (change,) = changes(config(lr=1e-3), config(lr=2e-3))

    assert str(change) == "train.lr 0.001 -> 0.002: from here on, this is no longer the run that was started"


@given(
    batch=st.integers(1, 24),
    stage2=st.integers(1, 24),
    steps=st.integers(1, 4),
    gpus=st.sampled_from([1, 2, 4]),
    new_gpus=st.sampled_from([1, 2, 3, 4]),
)
def test_global_batches_are_kept(batch: int, stage2: int, steps: int, gpus: int, new_gpus: int) -> None:
    """On any number of GPUs the steps have the images they had, on no GPU more than before, or it is refused."""
    before = config(batch_size=batch, stage2_batch_size=stage2, accumulation_steps=steps, gpus=gpus)
    after = config(batch_size=batch, stage2_batch_size=stage2, accumulation_steps=steps, gpus=new_gpus)
    wanted = before.global_batches
    possible = any(
        wanted[0] % (new_gpus * count) == wanted[1] % (new_gpus * count) == 0
        for count in range(1, 97)
        if wanted[0] <= batch * new_gpus * count and wanted[1] <= stage2 * new_gpus * count
    )
    if not possible:
        with pytest.raises(
            ConfigError, match=f"^global batch sizes {wanted[0]} and {wanted[1]} .* cannot be kept on {new_gpus} GPU"
        ):
            keep_global_batches(before, after, ["run.gpus"])
        return
    kept = keep_global_batches(before, after, ["run.gpus"])

    assert kept.global_batches == wanted
    assert kept.train.batch_size <= batch
    assert kept.stage2_batch_size <= stage2
    assert kept.run.gpus == new_gpus


def test_no_batch_size_fits() -> None:
    """Where no per-GPU batch size keeps the global ones, the hint names none."""
    with pytest.raises(ConfigError, match=r"\(stage 1/stage 2\): none\n") as caught:
        keep_global_batches(config(batch_size=16), config(batch_size=16, gpus=3), ["run.gpus"])

    assert caught.value.hint.startswith("change the global batch size with --set train.batch_size=N")


def test_from_two_gpus_to_one() -> None:
    """The Kaggle recipe of 16 and 12 on two GPUs goes on with one in two steps of the same size."""
    two = resolve("kaggle-2xT4", {}).config
    one = resolve("kaggle-2xT4", {"run.gpus": 1}).config
    kept = keep_global_batches(two, one, ["run.gpus"]).train

    assert (kept.batch_size, kept.stage2_batch_size, kept.accumulation_steps) == (16, 12, 2)


def test_a_batch_size_that_was_typed_stays() -> None:
    """`--batch-size 8` of 16 and 12 makes two steps, with 6 in stage 2; what does not divide is refused."""
    before = config(batch_size=16, stage2_batch_size=12)
    typed = config(batch_size=8, stage2_batch_size=12)
    kept = keep_global_batches(before, typed, ["train.batch_size"]).train
    with pytest.raises(
        ConfigError, match="cannot be kept on 1 GPU with per-GPU batch size 5; possible per-GPU batch sizes "
    ) as caught:
        keep_global_batches(before, config(batch_size=5, stage2_batch_size=12), ["train.batch_size"])

    assert (kept.batch_size, kept.stage2_batch_size, kept.accumulation_steps) == (8, 6, 2)
    assert caught.value.message.endswith(" per-GPU batch sizes (stage 1/stage 2): 16/12, 8/6, 4/3")
    assert "--batch-size N --stage2-batch-size N, or change" in caught.value.hint


@pytest.mark.parametrize(
    ("preset", "flags", "expected"),
    [
        ("kaggle-2xT4", {"run.gpus": "1"}, (16, 12, 2)),
        ("kaggle-2xT4", {"run.gpus": "4"}, (8, 6, 1)),
        ("kaggle-2xT4", {"run.gpus": "2"}, (16, 12, 1)),
        ("kaggle-2xT4", {}, (16, 12, 1)),
        ("kaggle-2xT4", {"run.gpus": "1", "train.batch_size": "10"}, (10, 12, 1)),
        ("kaggle-2xT4", {"run.gpus": "1", "train.batch_size": "auto"}, (16, 12, 2)),
        ("quickstart", {"run.gpus": "2"}, (12, 12, 1)),
        (None, {"run.gpus": "2"}, (8, 4, 1)),
    ],
)
def test_preset_on_other_gpus(preset: str | None, flags: dict[str, str], expected: tuple[int, int, int]) -> None:
    """A preset for two GPUs keeps the images of a step on one or four, unless a batch size says otherwise."""
    kept = keep_preset_batches(resolve(preset, flags)).config

    assert (kept.train.batch_size, kept.stage2_batch_size, kept.train.accumulation_steps) == expected


def test_preset_on_gpus_that_do_not_divide() -> None:
    """Where no batch makes the preset's images of a step, that is the error, with what can be typed."""
    with pytest.raises(ConfigError, match="cannot be kept"):
        keep_preset_batches(resolve("kaggle-2xT4", {"run.gpus": "5"}))
