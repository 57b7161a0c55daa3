from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from camoxpert_cli.config import presets
from camoxpert_cli.config.diff import keep_preset_batches
from camoxpert_cli.config.lr_scaling import StageLr, follows_scaling, lr_scaling_warning
from camoxpert_cli.config.presets import preset_names
from camoxpert_cli.config.resolve import Resolved, resolve, to_mapping
from camoxpert_cli.config.schema import SETTINGS, Config
from camoxpert_cli.errors import ConfigError

KEYS = {setting.flag: setting.key for setting in SETTINGS.values()}
BATCH = st.integers(1, 256)
RATE = st.floats(1e-7, 10)
TYPED = st.fixed_dictionaries(
    {},
    optional={
        "train.batch_size": BATCH,
        "train.stage2_batch_size": BATCH,
        "train.accumulation_steps": st.integers(1, 16),
        "train.lr": RATE,
        "train.stage2_lr": RATE,
        "run.gpus": st.sampled_from([1, 2, 4]),
    },
)
# The others are for any machine, and do not say on how many GPUs.
RECIPES = [name for name in preset_names() if name not in ("quickstart", "finetune")]
every_recipe = pytest.mark.parametrize("name", RECIPES)
STARTS = st.sampled_from([None, *preset_names()])


@pytest.fixture(autouse=True, scope="module")
def _files_are_read_once() -> Iterator[None]:
    """Hundreds of examples start from the same few files."""
    read = cache(presets._parse)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "_parse", lambda path: deepcopy(read(path)))
        yield


def started(preset: str | None, flags: dict[str, Any], assignments: list[str] | None = None) -> Resolved:
    """What `camox train` would start with; minimum rates are out of the way of rates that may be anything."""
    words = ["train.min_lr=0", *(assignments or [])]
    return keep_preset_batches(resolve(preset, {key: str(value) for key, value in flags.items()}, words))


def advice(warning: str) -> list[str]:
    """The lines of words to be typed."""
    return re.findall(r"^  (?:to scale the learning rate|or, to keep it): (.*)$", warning, re.MULTILINE)


def follow(line: str) -> tuple[dict[str, Any], list[str]]:
    """The flags and assignments that a line of advice names."""
    words = shlex.split(line)
    pairs = list(zip(words[::2], words[1::2], strict=True))
    flags = {KEYS[word]: value for word, value in pairs if word != "--set"}
    return flags, [value for word, value in pairs if word == "--set"]


@pytest.mark.parametrize("preset", [None, *preset_names()])
def test_a_recipe_as_it_is(preset: str | None) -> None:
    """A preset, or no word at all, is no reason to warn."""
    assert lr_scaling_warning(resolve(preset, {})) is None


@every_recipe
@pytest.mark.parametrize("gpus", ["1", "2", "4"])
def test_a_recipe_on_other_gpus(name: str, gpus: str) -> None:
    """Other GPUs make the recipe's steps, by accumulation or smaller batches: nothing to warn of."""
    resolved = resolve(name, {"run.gpus": gpus})
    kept = keep_preset_batches(resolved)

    assert kept.config.global_batches == resolved.base.global_batches
    assert lr_scaling_warning(kept) is None


@every_recipe
def test_a_recipe_in_words(name: str) -> None:
    """Each recipe typed in flags, without its preset, fits: it is one that comes with camox."""
    config = to_mapping(resolve(name, {}).config)
    keys = ["batch_size", "stage2_batch_size", "lr", "stage2_lr", "epochs", "stage1_epochs"]
    flags = {f"train.{key}": str(config["train"][key]) for key in keys} | {"run.gpus": str(config["run"]["gpus"])}

    assert lr_scaling_warning(resolve(None, flags)) is None


def test_the_collapse() -> None:
    """A batch of 128 instead of 8 with a lower rate: both values, the recipe's, how far off, and what to type."""
    warning = lr_scaling_warning(
        resolve("baseline", {"train.batch_size": "128", "train.lr": "2.6e-4", "train.stage2_batch_size": "8"})
    )

    assert warning is not None
    assert warning.splitlines() == [
        "the learning rate does not match the batch size, so training may collapse:",
        "  stage 1: 0.00026 at a global batch size of 128 is 2.03e-06 per image, 40 times less than in preset baseline "
        "(0.00065 at 8: 8.12e-05)",
        "  to scale the learning rate: --lr 0.0104",
        "  AdamW's learning rate is usually scaled with the batch size or its root; training continues unchanged.",
        "  See camox guide several-gpus.",
    ]


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        ({"train.batch_size": 2, "train.stage2_batch_size": 2}, ["--lr 0.000162 --stage2-lr 3.75e-05", 4]),
        (
            {"train.batch_size": 1, "train.stage2_batch_size": 1, "train.accumulation_steps": 2},
            ["--lr 0.000162 --stage2-lr 3.75e-05", 8],
        ),
        ({"train.lr": 6.5e-3}, ["--lr 0.00065"]),
        ({"train.stage2_lr": 1.5e-5}, ["--stage2-lr 0.00015"]),
        ({"train.accumulation_steps": 4}, ["--lr 0.0026 --stage2-lr 0.0006", 1]),
        # Nothing but a batch per GPU would do, which accumulation cannot make smaller.
        ({"train.batch_size": 64}, ["--lr 0.0052"]),
    ],
)
def test_advice(flags: dict[str, Any], lines: list[Any]) -> None:
    """Rates always; accumulation steps where a batch was typed and whole steps mend it."""
    warning = lr_scaling_warning(started("baseline", flags))
    expected = [line if isinstance(line, str) else f"--accumulation-steps {line}" for line in lines]

    assert warning is not None
    assert advice(warning) == expected


def test_advice_for_one_stage_leaves_the_other() -> None:
    """Where stage 2 takes its rate from stage 1 and fits, the advice names it, so that it stays."""
    warning = lr_scaling_warning(started(None, {"train.batch_size": 256, "train.stage2_batch_size": 4}))

    assert warning is not None
    assert advice(warning) == ["--lr 0.0052 --stage2-lr 0.00065"]


def test_advice_beside_gpus_alone() -> None:
    """Accumulation that is typed would end the keeping of the preset's steps on other GPUs: only rates are advised."""
    warning = lr_scaling_warning(started("kaggle-2xT4", {"run.gpus": 4, "train.lr": 2.6e-3, "train.stage2_lr": 6e-4}))

    assert warning is not None
    assert advice(warning) == ["--lr 0.00065 --stage2-lr 0.00015"]


@given(st.integers(1, 512), st.integers(1, 512), st.floats(1e-6, 1))
def test_both_ways_of_scaling_fit(images: int, others: int, rate: float) -> None:
    """Linear scaling and its root fit, and so does a factor of two beside the former; a factor of nine does not."""
    recipe = StageLr(rate, images)
    scale = others / images

    for change in (scale, math.sqrt(scale), scale * 2, scale / 2):
        assert follows_scaling(StageLr(rate * change, others), recipe)
    for change in (9 * max(scale, math.sqrt(scale)), min(scale, math.sqrt(scale)) / 9):
        assert not follows_scaling(StageLr(rate * change, others), recipe)


@settings(max_examples=30)
@given(STARTS, BATCH, BATCH, st.integers(1, 8), st.sampled_from([1, 2, 4]), st.floats(0.51, 1.96))
def test_proportional_changes_never_warn(
    preset: str | None, batch: int, stage2: int, steps: int, gpus: int, off: float
) -> None:
    """Any batch, accumulation and number of GPUs with rates that follow, within a factor of two."""
    base = resolve(preset, {}).config
    scales = [size * steps * gpus / before for size, before in zip((batch, stage2), base.global_batches, strict=True)]
    flags = {
        "train.batch_size": batch,
        "train.stage2_batch_size": stage2,
        "train.accumulation_steps": steps,
        "run.gpus": gpus,
        "train.lr": base.train.lr * scales[0] * off,
        "train.stage2_lr": (base.train.stage2_lr or base.train.lr) * scales[1] * off,
    }

    assert lr_scaling_warning(started(preset, flags)) is None


@settings(max_examples=25)
@given(STARTS, TYPED, st.booleans(), st.sampled_from(["0", "1e-6", "1e-4"]))
def test_advice_that_is_followed_silences(
    preset: str | None, flags: dict[str, Any], assigned: bool, min_lr: str
) -> None:
    """Each line of advice, added to what was typed, is a possible configuration that fits."""
    given_flags = {key: str(value) for key, value in flags.items()}
    words = [f"train.min_lr={min_lr}"]
    if assigned and "train.lr" in given_flags:
        words.append(f"train.lr={given_flags.pop('train.lr')}")
    try:
        resolved = keep_preset_batches(resolve(preset, given_flags, words))
    except ConfigError:  # a minimum rate above the rate, GPUs that cannot make the steps
        reject()
    warning = lr_scaling_warning(resolved)
    assume(warning is not None)
    lines = advice(str(warning))

    assert lines
    for line in lines:
        more, assignments = follow(line)
        followed = keep_preset_batches(resolve(preset, given_flags | more, [*words, *assignments]))
        assert lr_scaling_warning(followed) is None


@settings(max_examples=30)
@given(TYPED)
def test_a_run_that_goes_on(flags: dict[str, Any]) -> None:
    """A run of any rates goes on without a word; a rate that changes tenfold is told beside the run so far."""
    saved = (
        to_mapping(resolve(None, {key: str(value) for key, value in flags.items()}, ["train.min_lr=0"]).config),
        "x",
    )
    same = resolve(None, {}, saved=saved)
    before = same.config.train
    warning = lr_scaling_warning(resolve(None, {}, [f"train.lr={before.lr * 10!r}"], saved=saved))

    assert lr_scaling_warning(same) is None
    assert warning is not None
    assert "10 times more than in the run so far" in warning
    assert f"to scale the learning rate: --set train.lr={float(f'{before.lr:.3g}')!r}" in warning


def test_stages_that_do_not_train() -> None:
    """A rate that nothing uses is not judged."""
    lost = {"train.lr": "1", "train.stage2_lr": "1.5e-4"}

    assert lr_scaling_warning(resolve("baseline", lost)) is not None
    assert lr_scaling_warning(resolve("baseline", lost | {"train.skip_stage1": True})) is None
    assert (
        lr_scaling_warning(
            resolve("baseline", {"train.stage2_lr": "1", "train.stage1_epochs": "140"}, ["train.warmup_epochs=0"])
        )
        is None
    )


@pytest.mark.parametrize("asks", ["gpus: all", "devices: 0,1,2,3"])
def test_a_preset_without_a_number_of_gpus(tmp_path: Path, asks: str) -> None:
    """Its batches are those of the GPUs that are found."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"train:\n  lr: 1e-3\nrun:\n  {asks}\n")
    resolved = resolve(str(path), {})
    found = replace(resolved, config=replace(resolved.config, run=replace(resolved.config.run, gpus=4)))

    assert lr_scaling_warning(found) is None


def test_extreme_rates() -> None:
    """Rates at the ends of what a number holds are told, or passed over where they come to nothing; never a crash."""
    flags = {"train.batch_size": "1000000", "train.scheduler": "none"}

    assert lr_scaling_warning(resolve("baseline", flags | {"train.lr": "1e308"})) is not None
    assert lr_scaling_warning(resolve("baseline", flags | {"train.lr": "1e-300"})) is not None
    assert (
        lr_scaling_warning(resolve("baseline", flags | {"train.lr": "5e-324", "train.stage2_batch_size": "8"})) is None
    )
    assert lr_scaling_warning(resolve("baseline", flags | {"train.lr": "0", "train.stage2_batch_size": "8"})) is None


def test_the_defaults_are_a_base() -> None:
    """What stands below the user's words is the preset, what was saved, or the defaults."""
    saved = (to_mapping(resolve("baseline", {}).config), "x")

    assert resolve(None, {"train.lr": "1"}).base == Config()
    assert resolve("baseline", {"train.lr": "1"}).base == resolve("baseline", {}).config
    assert resolve(None, {"train.lr": "1"}, saved=saved).base == resolve("baseline", {}).config
