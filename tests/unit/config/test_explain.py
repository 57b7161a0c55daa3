from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.commands.presets import to_json
from camoxpert_cli.config.explain import Entry, Value, account, catalogue, explain, recipe
from camoxpert_cli.config.presets import preset_names, read_preset
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import SETTINGS
from camoxpert_cli.errors import ConfigError


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", preset_names())
def test_a_recipe_stands_alone(name: str, tmp_path: Path) -> None:
    """Saved as a file, what is shown needs no parent and resolves to the same; comment, summary and hardware stay."""
    shown = recipe(explain(name))
    copy = write(tmp_path / "copy.yaml", shown)
    before, after = read_preset(name), read_preset(copy)

    assert resolve(copy, {}).config == resolve(name, {}).config
    assert after.extends is None
    assert (after.summary, after.hardware) == (before.summary, before.hardware)
    assert shown.startswith(before.path.read_text(encoding="utf-8").split("\n\n")[0])


values = st.fixed_dictionaries(
    {},
    optional={
        "model.backbone_weights": st.none() | st.sampled_from(["w: x.pth", "#1", "~/w", "1e3", "yes", "ü 'q' \"q\""]),
        "data.cache": st.sampled_from(["auto", "off", "/a b", "null/1"]),
        "data.images": st.lists(st.sampled_from(["a", "- b", "2024", "{c}"]), min_size=1, max_size=1),
        "data.num_workers": st.integers(0, 9) | st.just("auto"),
        "train.lr": st.floats(1e-2, 1e3),
        "train.stage2_lr": st.none() | st.floats(1e-2, 1e3),
        "train.use_ema": st.booleans(),
        "run.save_every": st.sampled_from(["30s", "10", "1h"]) | st.none(),
        "run.target_iou": st.floats(0, 1),
    },
)


@settings(max_examples=15)
@given(values)
def test_any_recipe_stands_alone(tmp_path_factory: pytest.TempPathFactory, said: dict[str, Any]) -> None:
    """Whatever a preset says, what is shown of it resolves to the same configuration."""
    folder = tmp_path_factory.mktemp("presets")
    sections: dict[str, dict[str, Any]] = {}
    for key, value in said.items():
        sections.setdefault(SETTINGS[key].section, {})[SETTINGS[key].name] = value
    if "images" in sections.get("data", {}):
        sections["data"]["masks"] = ["m"]
    write(folder / "parent.yaml", "train:\n  seed: 3\n")
    name = write(folder / "own.yaml", "extends: parent.yaml\n" + (yaml.safe_dump(sections) if sections else ""))
    copy = write(folder / "copy.yaml", recipe(explain(name)))

    assert resolve(copy, {}).config == resolve(name, {}).config


def test_every_value_tells_where_it_came_from(tmp_path: Path) -> None:
    """All settings are there in the schema's order: by the preset itself, by a parent, by default."""
    name = write(tmp_path / "mine.yaml", "extends: kaggle-1xT4\ntrain:\n  lr: 1e-4\n  use_ema: off\n")
    found = {value.key: value for value in explain(name).values}

    assert list(found) == list(SETTINGS)
    assert found["train.lr"] == Value("train.lr", 1e-4, name, inherited=False)
    assert found["train.use_ema"] == Value("train.use_ema", False, name, inherited=False)
    assert found["run.gpus"] == Value("run.gpus", 1, "preset kaggle-1xT4", inherited=True)
    assert found["train.epochs"].source == "preset kaggle-2xT4 (inherited)"
    assert (found["train.seed"].source, found["train.seed"].inherited) == ("default", False)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), (["a", "b"], "[a, b]"), (6.5e-4, "0.00065"), ("a: b", "'a: b'")]
)
def test_a_value_is_written_as_in_a_preset(value: Any, text: str) -> None:
    """One line of YAML."""
    assert Value("train.lr", value, "default", inherited=False).text == text


def test_account(tmp_path: Path) -> None:
    """A preset that is in order: its parents, what it says itself, and the stages that train."""
    name = write(tmp_path / "mine.yaml", "extends: kaggle-1xT4\ntrain:\n  epochs: 60\n  stage1_epochs: 15\n")
    everywhere = write(tmp_path / "all.yaml", "extends: mine.yaml\nrun:\n  gpus: all\ntrain:\n  stage1_epochs: 0\n")

    assert account(explain(name)) == [
        f"{name} is valid; it extends preset kaggle-1xT4, which extends preset kaggle-2xT4",
        "  train.epochs: 60",
        "  train.stage1_epochs: 15",
        "Stage 1: 15 epochs, global batch size 12, learning rate 0.00065",
        "Stage 2: 45 epochs, global batch size 8, learning rate 0.00015",
    ]
    assert account(explain(everywhere))[-2:] == [
        "  run.gpus: all",
        "Stage 2: 60 epochs, global batch size 8 times the number of GPUs, learning rate 0.00015",
    ]


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Words, sections and values of the preset and of its parents, one line each, though a parent is missing."""
    write(tmp_path / "parent.yaml", "extends: none.yaml\nhardware: [a]\ntrain:\n  epochs: many\n")
    name = write(tmp_path / "mine.yaml", "extends: parent.yaml\nsummary: |\n  a\n  b\ntrain:\n  lrr: 1\nmodle: {}\n")
    with pytest.raises(ConfigError) as caught:
        explain(name)
    parent = tmp_path / "parent.yaml"

    assert sorted(caught.value.message.splitlines()) == sorted(
        [
            f"{name}: summary is 'a\\nb\\n', expected one line",
            f"{parent}: hardware is ['a'], expected text",
            f"{parent}: extends is 'none.yaml': preset file {tmp_path / 'none.yaml'} not found",
            f"{parent}: train.epochs is 'many', expected an integer of at least 1",
            f"{name}: unknown setting train.lrr (given '1'); did you mean train.lr?",
            f"{name}: unknown section 'modle'; did you mean model?",
        ]
    )


def test_as_json(tmp_path: Path) -> None:
    """Plain types, every setting with value and origin, parents nearest first."""
    name = write(tmp_path / "mine.yaml", "extends: baseline\nsummary: Mine\ndata:\n  dataset_path: [/a, /b]\n")
    content = json.loads(json.dumps(to_json(explain(name))))

    assert (content["name"], content["summary"], content["hardware"], content["claim"]) == ("mine", "Mine", "", "")
    assert (content["path"], content["extends"]) == (name, ["baseline", "kaggle-1xT4", "kaggle-2xT4"])
    assert list(content["settings"]) == list(SETTINGS)
    assert content["settings"]["data.dataset_path"] == {"value": ["/a", "/b"], "origin": name}
    assert content["settings"]["train.batch_size"] == {"value": 8, "origin": "preset baseline"}


def users() -> dict[str, Entry]:
    return {entry.name: entry for entry in catalogue() if not entry.built_in}


def test_every_preset_that_comes_with_camox_has_what_the_list_shows(own: Path) -> None:
    """All are there with their own summary and hardware, and all can be used."""
    entries = catalogue()

    assert [entry.name for entry in entries] == preset_names()
    for entry in entries:
        preset = read_preset(entry.name)
        assert (entry.summary, entry.hardware, entry.path) == (preset.summary, preset.hardware, preset.path)
        assert entry.summary
        assert entry.hardware
        assert (entry.problem, entry.built_in) == ("", True)


def test_the_users_own_come_after(own: Path) -> None:
    """They are sorted; without a summary the parent is named."""
    (own / "b.yaml").write_text("summary: Small pictures\nhardware: my desk\n")
    (own / "a.yaml").write_text("extends: baseline\n")
    (own / "notes.txt").write_text("no preset\n")
    entries = catalogue()

    assert [entry.name for entry in entries] == [*preset_names(), "a", "b"]
    assert entries[-2] == Entry("a", "extends baseline", "", own / "a.yaml", built_in=False)
    assert entries[-1] == Entry("b", "Small pictures", "my desk", own / "b.yaml", built_in=False)


def test_a_broken_one_does_not_hide_the_others(own: Path) -> None:
    """What is wrong with a preset stands in its entry, be it the file, a value or its name."""
    (own / "baseline.yaml").write_text("extends: kaggle-1xT4\n")
    (own / "file.yaml").write_text("train:\n\tlr: 3\n")
    (own / "value.yaml").write_text("train:\n  lr: fast\n")
    (own / "whole.yaml").write_text("train:\n  lr: 1e-4\n")
    found = users()

    assert [name for name, entry in found.items() if not entry.problem] == ["whole"]
    assert "is not valid YAML" in found["file"].problem
    assert "train.lr is 'fast'" in found["value"].problem
    assert found["baseline"].problem.startswith("there are two presets named 'baseline'")
    assert all(not entry.problem for entry in catalogue() if entry.built_in)
