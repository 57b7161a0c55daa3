from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.config.resolve import (
    DEFAULT_ORIGIN,
    from_mapping,
    resolve,
    to_mapping,
    with_absolute_paths,
)
from camoxpert_cli.config.schema import SETTINGS, Config, DataConfig
from camoxpert_cli.errors import ConfigError


def preset(folder: Path, text: str, name: str = "p.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems_of(name: str | None = None, flags: dict[str, Any] | None = None, *assignments: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(name, flags or {}, assignments)
    assert caught.value.exit_code == 2
    assert caught.value.hint.startswith("camox ")
    return caught.value.message.splitlines()


def test_nothing_given_is_all_defaults() -> None:
    """Without preset, flags and assignments every setting is its default and says so."""
    resolved = resolve(None, {})

    assert resolved.config == Config()
    assert set(resolved.origins) == set(SETTINGS)
    assert set(resolved.origins.values()) == {DEFAULT_ORIGIN}
    assert resolved.preset is None


def test_the_later_word_wins_and_is_remembered(tmp_path: Path) -> None:
    """Default, parent, preset, flag, assignment: each overrides those before it, key by key."""
    parent = preset(
        tmp_path, "train:\n  epochs: 51\n  lr: 1e-4\n  seed: 1\n  min_lr: 0\n  batch_size: 3\n", "parent.yaml"
    )
    child = preset(tmp_path, "extends: parent.yaml\ntrain:\n  lr: 2e-4\n  seed: 2\n  min_lr: 1e-9\n", "child.yaml")
    resolved = resolve(child, {"train.seed": 3, "train.min_lr": 2e-9}, ["train.min_lr = 3e-9", "train.min_lr=4e-9"])
    train, origins = resolved.config.train, resolved.origins

    assert (train.epochs, origins["train.epochs"]) == (51, parent)
    assert (train.lr, origins["train.lr"]) == (2e-4, child)
    assert (train.seed, origins["train.seed"]) == (3, "--seed")
    assert (train.min_lr, origins["train.min_lr"]) == (4e-9, "--set")
    assert (train.stage1_epochs, origins["train.stage1_epochs"]) == (30, "default")


def test_origin_of_a_shipped_preset_is_its_name() -> None:
    """What a parent says keeps the parent's name."""
    resolved = resolve("kaggle-2xT4-fast", {"run.gpus": 1})

    assert resolved.preset == "kaggle-2xT4-fast"
    assert resolved.origins["train.lr"] == "preset kaggle-2xT4-fast"
    assert resolved.origins["train.epochs"] == "preset kaggle-2xT4"
    assert resolved.origins["run.gpus"] == "--gpus"


def test_yaml_writes_numbers_and_switches_as_people_do(tmp_path: Path) -> None:
    """`1e-4`, `off` and `null` arrive as number, switch and nothing."""
    name = preset(
        tmp_path,
        "extends: kaggle-2xT4\ntrain:\n  lr: 1e-4\n  use_ema: off\n  scheduler: none\nrun:\n  target_iou: null\n"
        "data:\n  dataset_path: [/a, 2024]\n",
    )
    config = resolve(name, {}, ["train.progressive_unfreeze=no", "run.session_limit=null"]).config

    assert (config.train.lr, config.train.use_ema, config.train.scheduler) == (1e-4, False, "none")
    assert (config.run.target_iou, config.run.session_limit) == (None, None)
    assert config.train.progressive_unfreeze is False
    assert config.data.dataset_path == ("/a", "2024")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train.epoch", "train.epochs"),
        ("epochs", "train.epochs"),
        ("epoch", "train.epochs"),
        ("data.epochs", "train.epochs"),
        ("train.batch-size", "train.batch_size"),
        ("data.workers", "data.num_workers"),
    ],
)
def test_unknown_assignment_names_the_setting_that_was_meant(typed: str, meant: str) -> None:
    """A typo, a missing section and a wrong section all lead to the dotted key."""
    assert problems_of(None, None, f"{typed}=3") == [
        f"--set: unknown setting {typed} (given '3'); did you mean {meant}?"
    ]


def test_unknown_assignment_that_resembles_nothing() -> None:
    """Where no name is close, none is guessed."""
    assert problems_of(None, None, "train.xyzzy=3") == ["--set: unknown setting train.xyzzy (given '3')"]


@pytest.mark.parametrize("text", ["train.lr", "train.lr=", "=3", ""])
def test_malformed_assignment(text: str) -> None:
    """An assignment without name, sign or value is shown beside one that works."""
    assert problems_of(None, None, text) == [f"--set: {text!r}, expected section.name=value, such as train.lr=0.001"]


def test_wrong_value_names_where_it_came_from(tmp_path: Path) -> None:
    """Preset, file, flag and assignment each name themselves, the value and what was expected; a flag says its key."""
    own = preset(tmp_path, "train:\n  lr: fast\n")

    assert problems_of(own) == [f"{own}: train.lr is 'fast', expected a number of at least 0"]
    assert problems_of(None, {"train.stage2_lr": -1.0}) == [
        "--stage2-lr is -1.0, expected a number of at least 0, or null"
    ]
    assert problems_of(None, None, "train.epochs=0") == [
        "--set: train.epochs is '0', expected an integer of at least 1"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train:\n  epoch: 3\n", "unknown setting train.epoch (given '3'); did you mean train.epochs?"),
        ("trian:\n  lr: 1e-4\n", "unknown section 'trian'; did you mean train?"),
        ("epochs: 3\n", "unknown section 'epochs' (given '3'); did you mean train.epochs?"),
        ("extend: baseline\n", "unknown section 'extend' (given 'baseline'); did you mean extends?"),
        ("qqq: 3\n", "unknown section 'qqq' (given '3')"),
        ("train: 3\n", "train is '3', expected a mapping of settings"),
        ("train:\n", "train is '', expected a mapping of settings"),
    ],
)
def test_unknown_part_of_a_preset(tmp_path: Path, text: str, problem: str) -> None:
    """A preset's typo is told with file, key, value and the nearest name."""
    name = preset(tmp_path, text)

    assert problems_of(name) == [f"{name}: {problem}"]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Parent, child, flags and assignments are all read before the error is raised, one line a problem."""
    parent = preset(tmp_path, "train:\n  epochs: many\nmodle: {}\n", "parent.yaml")
    child = preset(tmp_path, "extends: parent.yaml\ntrain:\n  lrr: 1\n", "child.yaml")
    problems = problems_of(child, {"run.gpus": 0}, "train.seed=-1", "epoch=3", "nonsense")

    assert sorted(problems) == sorted(
        [
            f"{parent}: train.epochs is 'many', expected an integer of at least 1",
            f"{parent}: unknown section 'modle'; did you mean model?",
            f"{child}: unknown setting train.lrr (given '1'); did you mean train.lr?",
            "--gpus is 0, expected an integer from 1 to 1024, or all, or null",
            "--set: train.seed is '-1', expected an integer from 0 to 4294967295",
            "--set: unknown setting epoch (given '3'); did you mean train.epochs?",
            "--set: 'nonsense', expected section.name=value, such as train.lr=0.001",
        ]
    )


def test_a_preset_that_cannot_be_read_does_not_hide_the_rest() -> None:
    """An unknown preset is one problem among the others."""
    problems = problems_of("kaggle-3xT4", {"train.epochs": 0})

    assert len(problems) == 2
    assert problems[0].startswith("unknown preset 'kaggle-3xT4'")
    assert problems[1] == "--epochs is 0, expected an integer of at least 1"


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        (
            {"train.epochs": 5},
            [
                "train.stage1_epochs is 30 (default), expected at most the total number of epochs: "
                "train.epochs is 5 (--epochs)"
            ],
        ),
        (
            {"train.epochs": 35, "train.warmup_epochs": 6},
            [
                "train.warmup_epochs is 6 (--warmup-epochs), expected at most 5, the number of epochs of stage 2: "
                "train.epochs is 35 (--epochs), train.stage1_epochs is 30 (default)"
            ],
        ),
        (
            {"train.epochs": 30, "train.skip_stage1": True},
            [
                "train.skip_stage1 is True (--skip-stage1), expected stage 2 to have epochs: "
                "train.epochs is 30 (--epochs), train.stage1_epochs is 30 (default)"
            ],
        ),
        (
            {"train.lr": 0.0, "train.stage2_lr": 1e-4},
            [
                "train.min_lr is 1e-06 (default), expected at most the learning rate it decays from: "
                "train.lr is 0.0 (--lr)"
            ],
        ),
        (
            {"train.min_lr": 1e-3, "train.lr": 1e-4, "train.stage2_lr": 2e-4},
            [
                "train.min_lr is 0.001 (--min-lr), expected at most the learning rate it decays from: "
                "train.lr is 0.0001 (--lr)",
                "train.min_lr is 0.001 (--min-lr), expected at most the learning rate it decays from: "
                "train.stage2_lr is 0.0002 (--stage2-lr)",
            ],
        ),
        (
            {"model.backbone_weights": "w.pth", "model.pretrained": False},
            [
                "model.backbone_weights is 'w.pth' (--backbone-weights), expected null when "
                "model.pretrained is False (--pretrained)"
            ],
        ),
        (
            {"data.images": ["a", "b"], "data.masks": ["c"]},
            ["--images and --masks belong together: --images has 2 folders, --masks has 1 folder"],
        ),
        (
            {"data.val_images": ["a"]},
            ["--val-images and --val-masks belong together: --val-images has 1 folder, --val-masks is missing"],
        ),
    ],
)
def test_impossible_combinations_name_both_sides(given: dict[str, Any], problems: list[str]) -> None:
    """Settings that cannot stand together are told with their values and origins."""
    assert problems_of(None, given) == problems


@pytest.mark.parametrize("key", ["epochs", "stage1_epochs", "warmup_epochs", "last_epoch_images"])
def test_numbers_that_the_fit_chooses(tmp_path: Path, key: str) -> None:
    """Whoever types one of them beside a fit has to omit one of the two; in a preset they are proportions."""
    name = preset(tmp_path, f"train: {{fit: 9h, {key}: 33}}")
    typed = problems_of(preset(tmp_path, "train: {fit: 9h}", "fit.yaml"), {}, f"train.{key}=3")

    assert resolve(name, {}).config.train.fit == "9h"
    assert f"train.{key} is 3 (--set), expected it not to be given when train.fit is 9h ({tmp_path / 'fit.yaml'})" in (
        "\n".join(typed)
    )
    assert resolve(None, {"train.epochs": 40}, saved=({"train": {"fit": "9h"}}, "saved")).config.train.epochs == 40
    assert resolve(name, {"train.fit": "null", f"train.{key}": 34}).config.train.fit is None


def test_impossible_combinations_are_all_told_at_once() -> None:
    """One run shows every combination that is wrong."""
    problems = problems_of(
        None, {"train.epochs": 5, "train.min_lr": 1.0, "model.pretrained": False}, "model.backbone_weights=w"
    )

    assert [line.split(" ")[0] for line in problems] == [
        "train.stage1_epochs",
        "train.min_lr",
        "model.backbone_weights",
    ]


def test_combinations_wait_for_correct_values() -> None:
    """A wrong value is told alone: what it would have done to a combination nobody knows."""
    problems = problems_of(None, {"train.epochs": 5, "train.seed": -1})

    assert problems == ["--seed is -1, expected an integer from 0 to 4294967295"]


@pytest.mark.parametrize(
    "given",
    [
        {"train.epochs": 30},
        {"train.epochs": 40, "train.warmup_epochs": 10},
        {"train.epochs": 31, "train.skip_stage1": True},
        {"train.stage1_epochs": 0},
        {"train.min_lr": 6.5e-4},
        {"train.min_lr": 1.0, "train.scheduler": "none"},
        {"model.pretrained": False},
    ],
)
def test_combinations_at_the_edge_are_possible(given: dict[str, Any]) -> None:
    """Equal is enough, and a minimum rate that nothing uses is no obstacle."""
    mapping = to_mapping(resolve(None, given).config)

    assert {key: mapping[key.split(".")[0]][key.split(".")[1]] for key in given} == given


@pytest.mark.parametrize(("batch", "given", "wanted"), [(8, None, 4), (5, None, 2), (1, None, 1), (8, 8, 8)])
def test_stage2_batch_is_half_where_not_given(batch: int, given: int | None, wanted: int) -> None:
    """Half of stage 1's, rounded down, but at least one image."""
    train = replace(Config().train, batch_size=batch, stage2_batch_size=given)

    assert replace(Config(), train=train).stage2_batch_size == wanted


@pytest.mark.parametrize(("given", "wanted"), [(None, 1e-3), (2e-4, 2e-4), (0.0, 0.0)])
def test_stage2_rate_is_that_of_stage1_where_not_given(given: float | None, wanted: float) -> None:
    """A given rate counts even when it is zero."""
    train = replace(Config().train, lr=1e-3, stage2_lr=given)

    assert replace(Config(), train=train).stage2_rate == wanted


def test_a_mapping_holds_only_plain_types() -> None:
    """Lists stand for tuples, and every setting is there."""
    mapping = to_mapping(resolve(None, {"data.dataset_path": ("/a", "/b")}).config)

    assert mapping["data"]["dataset_path"] == ["/a", "/b"]
    assert [f"{section}.{name}" for section, values in mapping.items() for name in values] == list(SETTINGS)


def test_a_mapping_is_checked_as_strictly_as_a_preset() -> None:
    """A run folder's file that someone edited is told wrong with its name, all problems at once."""
    with pytest.raises(ConfigError) as values:
        from_mapping({"train": {"epochs": 2.5, "lrr": 1}, 5: 3}, "runs/a/config.yaml")
    with pytest.raises(ConfigError) as combination:
        from_mapping({"train": {"epochs": 5, "stage1_epochs": 6}}, "runs/a/config.yaml")

    assert values.value.message.splitlines() == [
        "runs/a/config.yaml: unknown section 5 (given 3)",
        "runs/a/config.yaml: unknown setting train.lrr (given 1); did you mean train.lr?",
        "runs/a/config.yaml: train.epochs is 2.5, expected an integer of at least 1",
    ]
    assert combination.value.message == (
        "train.stage1_epochs is 6 (runs/a/config.yaml), expected at most the total number of epochs: "
        "train.epochs is 5 (runs/a/config.yaml)"
    )


def test_a_key_of_an_earlier_version(tmp_path: Path) -> None:
    """What 0.1 stored and presets written for it are read under the new name; the command line has the new one only."""
    old = {"data": {"generated_pictures": 9}, "train": {"seed": 3}}
    path = preset(tmp_path, "data:\n  generated_pictures: 7\n")
    resolved = resolve(path, {})

    assert from_mapping(old, "runs/a/config.yaml") == from_mapping(
        {"data": {"generated_images": 9}, "train": {"seed": 3}}, "runs/a/config.yaml"
    )
    assert (resolved.config.data.generated_images, resolved.origins["data.generated_images"]) == (7, path)
    assert resolve(None, {"data.generated_images": "8"}, saved=(old, "x")).config.data.generated_images == 8
    assert problems_of(preset(tmp_path, "data:\n  generated_pictures: -1\n")) == [
        f"{path}: data.generated_images is '-1', expected an integer of at least 0"
    ]
    assert problems_of(None, None, "data.generated_pictures=3") == [
        "--set: unknown setting data.generated_pictures (given '3'); did you mean data.generated_images?"
    ]


@pytest.mark.parametrize("content", [None, [], "text"])
def test_a_mapping_that_is_none(content: object) -> None:
    """An empty or foreign file is an error of that file, not a crash."""
    with pytest.raises(ConfigError) as caught:
        from_mapping(content, "config.yaml")

    assert caught.value.message == (
        f"config.yaml is {content!r}, expected sections such as train that contain settings"
    )


def test_an_empty_mapping_is_all_defaults() -> None:
    """What a mapping leaves out keeps its default."""
    assert from_mapping({}, "config.yaml") == Config()


def test_auto_is_a_word_of_the_command_line(tmp_path: Path) -> None:
    """It leaves the recipe's number in place, which says how many images a step has; a preset cannot say it."""
    resolved = resolve("kaggle-2xT4", {"train.batch_size": "auto"}, ["train.stage2_batch_size=auto"])
    later = resolve("kaggle-2xT4", {"train.batch_size": "auto"}, ["train.batch_size=9"])
    found = problems_of(preset(tmp_path, "train:\n  batch_size: auto\n"))

    assert resolved.auto == {"train.batch_size", "train.stage2_batch_size"}
    assert resolved.config == resolve("kaggle-2xT4", {}).config
    assert resolved.typed == set()
    assert (later.auto, later.config.train.batch_size) == (frozenset(), 9)
    assert len(found) == 1
    assert "'auto', expected an integer of at least 1, or auto on the command line" in found[0]
    assert "--epochs is 'auto'" in problems_of(None, {"train.epochs": "auto"})[0]


def test_auto_that_is_typed_last_wins() -> None:
    """An assignment of auto takes back what a flag said."""
    resolved = resolve("kaggle-2xT4", {"train.batch_size": "9"}, ["train.batch_size=auto"])

    assert (resolved.auto, resolved.config.train.batch_size) == (frozenset({"train.batch_size"}), 16)


def test_a_preset_wins_over_what_was_saved(tmp_path: Path) -> None:
    """What a checkpoint saved stands below a preset, key by key, and what is typed below neither."""
    name = preset(tmp_path, "train:\n  seed: 2\n  t_mult: 3\n")
    saved = ({"train": {"seed": 1, "t_mult": 5, "epochs": 51}}, "the checkpoint")
    resolved = resolve(name, {"train.t_mult": 4}, saved=saved)
    train = resolved.config.train

    assert (train.seed, train.t_mult, train.epochs) == (2, 4, 51)
    assert (resolved.base.train.seed, resolved.base.train.t_mult) == (2, 3)
    assert [resolved.origins[f"train.{key}"] for key in ("seed", "t_mult", "epochs")] == [
        name,
        "--t-mult",
        "the checkpoint",
    ]


def test_folders_are_the_same_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, and those below the home folder, become absolute; the words for a cache stay words."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    data = DataConfig(dataset_path=("a", "~/b"), images=("i",), masks=("m",), cache="c")

    assert with_absolute_paths(data) == DataConfig(
        dataset_path=(f"{tmp_path}/a", f"{tmp_path}/home/b"),
        images=(f"{tmp_path}/i",),
        masks=(f"{tmp_path}/m",),
        cache=f"{tmp_path}/c",
    )
    for word in ("auto", "off"):
        assert with_absolute_paths(DataConfig(cache=word)).cache == word


def test_another_image_size_than_that_of_the_preset(tmp_path: Path) -> None:
    """The preset's size for scoring belongs to its own; images are scored as they are trained on, or as was typed."""
    alone, both = (
        resolve("finetune", {"data.img_size": 320, **more}).config.data for more in ({}, {"data.eval_img_size": 448})
    )

    assert (alone.eval_img_size, alone.scored_size) == (None, 320)
    assert both.scored_size == 448
    assert resolve("finetune", {}).config.data.scored_size > resolve("finetune", {}).config.data.img_size
