"""What becomes of a `last.pth` that is whole and holds something else than camox writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.checkpoints.format import Checkpoint, read_checkpoint
from camoxpert_cli.checkpoints.load import fitting_weights, load_weights, uses_ema, validated_size
from camoxpert_cli.checkpoints.program_layouts import architecture_of, outline
from camoxpert_cli.checkpoints.saved_settings import saved_settings
from camoxpert_cli.config.resolve import from_mapping
from camoxpert_cli.engine.build import check_images
from camoxpert_cli.engine.restoring import restore
from camoxpert_cli.engine.run import Run, prepare
from camoxpert_cli.errors import CheckpointError, ConfigError
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.tiny_data import tiny_plan

Keys = tuple[Any, ...]

MISSING = object()
EXPANDED = torch.zeros(1).expand(10**12)
OTHERS: list[Any] = [
    MISSING,
    None,
    True,
    -1,
    10**9,
    10**5000,
    0.5,
    float("nan"),
    float("inf"),
    "text",
    "7" * 5000,
    [],
    ["text"],
    {},
    {"text": "text"},
    torch.ones(3),
    torch.tensor([float("nan")]),
    torch.ones(2, 2, device="meta"),
    torch.eye(3).to_sparse(),
    torch.tensor([1, 2, 3]),
    torch.zeros(0),
    EXPANDED,
]


@pytest.fixture(scope="module")
def saved(plain_run: RunFolder) -> Checkpoint:
    return Checkpoint(plain_run.last, read_checkpoint(plain_run.last))


@pytest.fixture(scope="module")
def run(saved: Checkpoint, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run that tries to go on from everything."""
    return prepare(tiny_plan(tiny_data, tmp_path_factory.mktemp("run"), epochs=3), saved)[0]


def places(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    """Every entry of a content, and the first and last of many alike."""
    if keys:
        yield keys
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else [])
    if len(items) > 30:
        items = [*items[:2], items[-1]]
    for key, each in items:
        yield from places(each, (*keys, key))


@pytest.fixture(scope="module")
def entries(saved: Checkpoint) -> list[Keys]:
    """As they were read: whoever goes on from a content may add to it."""
    return list(places(saved.content))


def changed(content: Any, keys: Keys, value: Any) -> Any:
    """A copy with another value in a place."""
    if not keys:
        return value
    if isinstance(content, Mapping):
        result = {**content, keys[0]: changed(content.get(keys[0]), keys[1:], value)}
        return {key: each for key, each in result.items() if each is not MISSING}
    items = [changed(each, keys[1:], value) if at == keys[0] else each for at, each in enumerate(content)]
    return [each for each in items if each is not MISSING]


def go_on(run: Run, checkpoint: Checkpoint) -> None:
    """All that reads a checkpoint when a run goes on from it, or when its network is loaded."""
    path, content = checkpoint
    architecture = architecture_of(content)
    if architecture is not None:
        fitting_weights(outline(*architecture), content, path, uses_ema(content, path, None), tells=False)
    from_mapping(*saved_settings(checkpoint))
    validated_size(content, path)
    load_weights(run.state.network, content, path)
    check_images(checkpoint, run.data, run.folder)
    restore(run, checkpoint)


# Contents of an otherwise whole file, by the entry that is wrong, and what is said of it.
WRONG: list[tuple[str, Any, str]] = [
    ("history", "text", "history is 'text', expected a list"),
    ("history", [{"epoch": "one", "seconds": 1.0}], "history.0.epoch is 'one', expected a number"),
    ("config", [1], "config is [1], expected a dictionary"),
    ("config.train.lr", "fast", "train.lr is 'fast'"),
    ("scores.iou", "best", "scores.iou is 'best', expected a number"),
    ("training.progress.samples", -1, "training.progress.samples is -1, expected an integer from 0"),
    (
        "training.progress.samples",
        10**6,
        "training.progress.samples is 1000000, expected at most 8, the number of images in epoch 3",
    ),
    ("training.progress.epoch", 10**6, "training.progress.epoch is 1000000, expected 2"),
    ("training.progress.epoch", True, "training.progress.epoch is True, expected an integer"),
    ("training.progress.best_iou", "best", "training.progress.best_iou is 'best', expected a number"),
    (
        "config.train.lr",
        {},
        "config.train.lr is {}, expected one of: true or false, an integer, a number, text, a list",
    ),
    ("training.progress.rate", float("nan"), "training.progress.rate is nan, expected a number from 0"),
    ("training.progress.experts_chosen", [[1.0]], "training.progress.experts_chosen has rows of [1] numbers"),
    ("training.ema_updates", 10**400, "0000, expected an integer"),
    ("training.backbone_stages", 9, "training.backbone_stages is 9, expected an integer from 0 to 4"),
    ("training.optimizer", MISSING, "training.optimizer is missing"),
    ("training.optimizer.state", [], "training.optimizer.state is [], expected a dictionary"),
    ("training.optimizer.state.0.exp_avg", torch.ones(3), "training.optimizer.state.0.exp_avg has shape (3,)"),
    ("training.optimizer.state.0.exp_avg", EXPANDED, "a tensor with more elements than are stored"),
    ("training.optimizer.state.0.step", torch.tensor(float("nan")), "state.0.step (1 of 1 NaN or infinite)"),
    ("training.optimizer.state.99999", {}, "training.optimizer.state.99999.step is missing"),
    ("training.optimizer.param_groups.0.params", [0], "training.optimizer lists"),
    ("training.optimizer.param_groups.0.params.0", 1, "training.optimizer lists"),
    ("training.optimizer.param_groups.0.lr", float("nan"), "param_groups.0.lr is nan, expected a number from 0"),
    ("training.optimizer.param_groups.0.betas", [0.9], "param_groups.0.betas is [0.9], expected 2 values"),
    ("training.scaler", {"scale": -1.0}, "training.scaler.scale is -1.0, expected a number from"),
]


@pytest.mark.parametrize(
    ("entry", "value", "said"), WRONG, ids=[f"{entry} {at}" for at, (entry, *_) in enumerate(WRONG)]
)
def test_the_entry_is_named(run: Run, saved: Checkpoint, entry: str, value: Any, said: str) -> None:
    """A content that camox would not have written is refused, by the entry and what was expected in it."""
    keys = tuple(int(key) if key.isdecimal() else key for key in entry.split("."))
    with pytest.raises(CheckpointError) as caught:
        go_on(run, Checkpoint(saved.path, changed(saved.content, keys, value)))

    assert said in caught.value.message
    assert caught.value.exit_code == 4
    assert str(saved.path) in caught.value.message


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("entry", [("history",), ("training", "progress", "history")])
def test_an_impossible_time(saved: Checkpoint, entry: Keys, seconds: float) -> None:
    """Of an epoch: those of all are added up."""
    with pytest.raises(CheckpointError) as caught:
        _ = Checkpoint(saved.path, changed(saved.content, (*entry, 0, "seconds"), seconds)).own

    assert f"{'.'.join(entry)}.0.seconds is {seconds}, expected a number from 0" in caught.value.message


@settings(max_examples=25)
@given(st.data())
def test_anything_anywhere(run: Run, saved: Checkpoint, entries: list[Keys], data: st.DataObject) -> None:
    """Whatever lies in an entry's place, or nothing, a run goes on as before or the entry is named."""
    keys = data.draw(st.sampled_from(entries))
    other = OTHERS[data.draw(st.integers(0, len(OTHERS) - 1))]
    content = changed(saved.content, keys, other)
    try:
        go_on(run, Checkpoint(saved.path, content))
    except (CheckpointError, ConfigError) as error:
        said = error.message + error.details
        # "training" alone is a word of other sentences, too.
        named = any(str(key) in said for key in keys[keys[0] == "training" :]) or "checkpoint: training" in said
        others = (
            "image size of its validation, from 64",
            "was trained on different images",
            "contains weights but no settings",
        )
        assert named or any(each in said for each in others)
    else:
        assert run.state.progress.epoch == 2
        assert run.state.progress.seconds >= 0


def test_numbers_that_are_none(run: Run, saved: Checkpoint) -> None:
    """NaN in the average or in the moments is told with how many, and in which of its tensors."""
    name = next(name for name in saved.content["ema"] if name.endswith("weight"))
    value = torch.full_like(saved.content["ema"][name], float("nan"))
    moments = torch.full_like(saved.content["training"]["optimizer"]["state"][0]["exp_avg"], float("inf"))
    for keys, tensor, said in (
        (("ema", name), value, f"{name} ({value.numel()} of"),
        (("training", "optimizer", "state", 0, "exp_avg"), moments, f"state.0.exp_avg ({moments.numel()} of"),
        (("training", "optimizer", "state", 0, "exp_avg"), moments.to(torch.float8_e5m2), "state.0.exp_avg ("),
    ):
        with pytest.raises(CheckpointError) as caught:
            go_on(run, Checkpoint(saved.path, changed(saved.content, keys, tensor)))
        assert f"1 tensor: {'training.optimizer.' if said.startswith('state') else ''}{said}" in caught.value.message
