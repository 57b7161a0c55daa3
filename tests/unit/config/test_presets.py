from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from camoxpert_cli.config.presets import own_folder, own_presets, preset_names, read_chain, read_preset
from camoxpert_cli.config.resolve import from_mapping, resolve, to_mapping
from camoxpert_cli.errors import ConfigError
from tests.helpers.places import PRESETS

RECIPES = {"kaggle-2xT4", "kaggle-2xT4-fast", "kaggle-2xT4-352", "kaggle-1xT4", "baseline"}
FILES = sorted(PRESETS.rglob("*.yaml"), key=lambda path: path.stem)

every_file = pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
every_recipe = pytest.mark.parametrize("name", sorted(RECIPES))


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def problem_of(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_chain(name)
    return caught.value.message


def test_the_list_is_every_file_of_the_folder() -> None:
    """No preset is missed, none is invented, and the five recipes are there."""
    names = preset_names()

    assert names == [path.stem for path in FILES]
    assert set(names) - {"quickstart", "finetune"} == RECIPES


@every_file
def test_every_preset_is_a_complete_and_possible_configuration(path: Path) -> None:
    """Each shipped file passes the strict check, alone and with its parents."""
    resolved = resolve(path.stem, {})

    assert resolved.preset == path.stem
    assert f"preset {path.stem}" in resolved.origins.values()


@every_file
@pytest.mark.parametrize(
    "write_and_read", [lambda x: yaml.safe_load(yaml.safe_dump(x)), lambda x: json.loads(json.dumps(x))]
)
def test_every_preset_survives_the_run_folder(path: Path, write_and_read: Any) -> None:
    """Written as YAML or JSON and read again, a resolved preset is the same configuration."""
    config = resolve(path.stem, {"data.dataset_path": ["/a", "/b"]}).config

    assert from_mapping(write_and_read(to_mapping(config)), "config.yaml") == config


@every_file
def test_every_preset_tells_in_one_line_what_it_is_and_where_it_runs(path: Path) -> None:
    """Summary and hardware are one line each, for `camox presets` shows them in a table."""
    preset = read_preset(path.stem)

    for line in (preset.summary, preset.hardware):
        assert line.strip()
        assert "\n" not in line


@every_file
def test_every_preset_opens_with_the_command_that_runs_it(path: Path) -> None:
    """The header comment holds the command; no line is wider than a page."""
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]

    assert any(re.search(rf"camox train --preset {re.escape(path.stem)}(\s|$)", line) for line in header)
    assert max(map(len, lines)) <= 100


@every_recipe
def test_every_recipe_says_whose_its_claims_are(name: str) -> None:
    """The header attributes time and score to the document or the guide, and says that we did not measure them."""
    text = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    claim = re.search(r"Expected, according to (README_MULTI_GPU\.md|that guide)[^;]*; not measured by us:", text)

    assert claim is not None
    assert "time   " in text
    assert "score  " in text


@every_recipe
def test_claims_for_the_benchmark(name: str) -> None:
    """One line names the document whose claim it is; a recipe that extends another one has a claim of its own."""
    claims = [level.claim for level in read_chain(name)]

    assert re.fullmatch(r"(README_MULTI_GPU|MULTI_GPU_GUIDE)\.md: .*\d min/epoch.*", claims[-1])
    assert len(set(claims)) == len(claims)
    assert read_preset("quickstart").claim == ""


# gpus, batch of stage 1 and 2, size, rate of stage 1 and 2
TABLE = {
    "kaggle-2xT4": (2, 16, 12, 320, 6.5e-4, 1.5e-4),
    "kaggle-2xT4-fast": (2, 24, 16, 320, 1e-3, 2e-4),
    "kaggle-2xT4-352": (2, 12, 8, 352, 6.5e-4, 1.5e-4),
    "kaggle-1xT4": (1, 12, 8, 320, 6.5e-4, 1.5e-4),
    "baseline": (1, 8, 8, 320, 6.5e-4, 1.5e-4),
}


@every_recipe
def test_every_recipe_has_the_values_of_the_table(name: str) -> None:
    """GPUs, batches, size and rates are those of the user's document and the original guide."""
    config = resolve(name, {}).config
    found = (
        config.run.gpus,
        config.train.batch_size,
        config.stage2_batch_size,
        config.data.img_size,
        config.train.lr,
        config.stage2_rate,
    )

    assert found == TABLE[name]


@every_recipe
def test_every_recipe_has_the_values_common_to_all(name: str) -> None:
    """What the table does not list is the same in all recipes and written down, not left to a default."""
    resolved = resolve(name, {})
    common: dict[str, dict[str, Any]] = {
        "model": {"backbone": "edgenext_base", "num_experts": 7, "deep_supervision": True},
        "data": {"num_workers": "auto"},
        "train": {
            "epochs": 140,
            "stage1_epochs": 30,
            "accumulation_steps": 1,
            "weight_decay": 1e-4,
            "scheduler": "cosine",
            "min_lr": 1e-5,
            "warmup_epochs": 10,
            "progressive_unfreeze": True,
        },
        "run": {"target_iou": 0.72, "session_limit": "12h", "save_every": "10m"},
    }
    mapping = to_mapping(resolved.config)
    found = {section: {key: mapping[section][key] for key in wanted} for section, wanted in common.items()}

    assert found == common
    for section, wanted in common.items():
        assert all(resolved.origins[f"{section}.{key}"] != "default" for key in wanted)


def test_parents_come_first(tmp_path: Path) -> None:
    """A chain runs from the eldest to the preset itself, paths relative to the file that names them."""
    (tmp_path / "old").mkdir()
    write(tmp_path / "old" / "eldest.yaml", "extends: kaggle-1xT4\n")
    write(tmp_path / "parent.yml", "extends: old/eldest.yaml\nsummary: the middle\n")
    name = write(tmp_path / "child.yaml", "extends: parent.yml\nhardware: any\ntrain:\n  lr: 1e-4\n")
    chain = read_chain(name)

    assert [preset.name for preset in chain] == ["kaggle-2xT4", "kaggle-1xT4", "eldest", "parent", "child"]
    assert chain[-1].sections == {"train": {"lr": "1e-4"}}
    assert (chain[-1].summary, chain[-1].hardware, chain[-2].summary) == ("", "any", "the middle")


def test_a_preset_is_called_by_name_or_by_path(tmp_path: Path) -> None:
    """Messages call a shipped preset by its name, and a user's own by its path."""
    own = write(tmp_path / "mine.yaml", "")

    assert read_preset("kaggle-2xT4").origin == "preset kaggle-2xT4"
    assert read_preset(own).origin == str(Path(own).resolve())


def test_values_are_text_as_written(tmp_path: Path) -> None:
    """YAML's own guesses (float, switch, base 60, octal, date) do not change what someone wrote."""
    text = "train:\n  a: 1e-4\n  b: off\n  c: 1:30\n  d: 010\n  e: 2024-01-01\n  f: [1, no]\n  g: null\n  h:\n"
    section = read_preset(write(tmp_path / "p.yaml", text)).sections["train"]

    assert list(section.values()) == ["1e-4", "off", "1:30", "010", "2024-01-01", ["1", "no"], "null", ""]


def test_yaml_tags_build_nothing(tmp_path: Path) -> None:
    """A tag that asks for a Python object is read as the text behind it."""
    name = write(
        tmp_path / "p.yaml", 'run:\n  checkpoint_dir: !!python/object/apply:os.getcwd []\n  device: !!int "3"\n'
    )

    assert read_preset(name).sections == {"run": {"checkpoint_dir": [], "device": "3"}}


def test_unknown_name_lists_the_names_and_the_nearest() -> None:
    """A slip in a preset's name is answered with the name that was meant."""
    names = ", ".join(preset_names())

    assert problem_of("kaggle-2xt4-fst") == (
        f"unknown preset 'kaggle-2xt4-fst', expected the path of a .yaml file or one of {names}; "
        "did you mean kaggle-2xT4-fast?"
    )
    assert problem_of("zzz").endswith(names)


def test_the_folder_of_the_users_presets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CONFIG_HOME, ~/.config without it, none without a home; a folder that is not there holds nothing."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    named = own_folder()
    empty = own_presets()
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home = own_folder()

    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)

    assert named == tmp_path / "x" / "camox" / "presets"
    assert empty == {}
    assert at_home == tmp_path / ".config" / "camox" / "presets"
    assert own_folder() is None
    assert own_presets() == {}
    assert resolve("baseline", {}).preset == "baseline"


def test_a_users_preset_by_name(own: Path) -> None:
    """It may extend one that comes with camox, another of the user's by name, and files beside it by path."""
    write(own / "mine.yaml", "extends: baseline\ntrain:\n  lr: 1e-4\n")
    write(own / "part.yml", "extends: mine\ntrain:\n  seed: 7\n")
    path = write(own / "other.yaml", "extends: part.yml\ntrain:\n  epochs: 99\n")
    resolved = resolve("other", {})
    train = resolved.config.train

    assert sorted(own_presets()) == ["mine", "other"]
    assert (train.lr, train.seed, train.epochs, train.batch_size) == (1e-4, 7, 99, 8)
    assert (resolved.preset, resolved.origins["train.epochs"]) == ("other", path)
    assert [level.name for level in read_chain("other")][-4:] == ["baseline", "mine", "part", "other"]


def test_unknown_name_offers_the_users_too(own: Path) -> None:
    """A slip in the name of a user's preset is answered with it."""
    write(own / "feral-cats.yaml", "")

    assert problem_of("feral-cat") == (
        "unknown preset 'feral-cat', expected the path of a .yaml file or one of baseline, feral-cats, "
        "finetune, kaggle-1xT4, kaggle-2xT4, kaggle-2xT4-352, kaggle-2xT4-fast, quickstart; did you mean feral-cats?"
    )


def test_a_name_that_comes_with_camox_is_taken(own: Path) -> None:
    """Two presets of one name are refused and neither taken in silence; by path, and as a parent, each is clear."""
    path = write(own / "kaggle-2xT4.yaml", "extends: baseline\ntrain:\n  seed: 7\n")

    assert problem_of("kaggle-2xT4") == (
        f"there are two presets named 'kaggle-2xT4', the built-in one and {path}; rename the latter"
    )
    assert resolve(path, {}).config.train.seed == 7
    assert resolve("kaggle-1xT4", {}).config.train.seed == 42


@pytest.mark.parametrize("text", ["summary: |\n  a\n  b\n", 'hardware: "a\\nb"\n'])
def test_words_are_one_line(tmp_path: Path, text: str) -> None:
    """What the list shows in a line is one."""
    name = write(tmp_path / "p.yaml", text)

    assert re.fullmatch(rf"{re.escape(name)}: (summary|hardware) is 'a\\nb(\\n)?', expected one line", problem_of(name))


def test_missing_file(tmp_path: Path) -> None:
    """A path that is not there is named in full."""
    path = tmp_path / "none.yaml"

    assert problem_of(str(path)) == f"preset file {path} not found"


def test_missing_parent_names_the_child(tmp_path: Path) -> None:
    """Who asked for the missing parent is told as well."""
    by_path = write(tmp_path / "a.yaml", "extends: none.yaml")
    by_name = write(tmp_path / "b.yaml", "extends: baselin")

    assert problem_of(by_path) == (f"{by_path}: extends is 'none.yaml': preset file {tmp_path / 'none.yaml'} not found")
    assert problem_of(by_name).startswith(f"{by_name}: extends is 'baselin': unknown preset 'baselin'")
    assert problem_of(by_name).endswith("did you mean baseline?")


def test_circle_is_drawn(tmp_path: Path) -> None:
    """Presets that extend each other are an error that shows the way round."""
    first = write(tmp_path / "first.yaml", "extends: second.yaml")
    second = write(tmp_path / "second.yaml", "extends: first.yaml")
    alone = write(tmp_path / "alone.yaml", "extends: ./alone.yaml")
    tail = write(tmp_path / "tail.yaml", "extends: first.yaml")

    assert problem_of(first) == (f"{second}: extends is 'first.yaml', which is circular: first -> second -> first")
    assert problem_of(alone) == (f"{alone}: extends is './alone.yaml', which is circular: alone -> alone")
    assert problem_of(tail).endswith("is circular: tail -> first -> second -> first")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train:\n  lr: 1e-4\n  epochs: 3\n  lr: 1e-3\n", ":4 is not valid YAML: key 'lr' is duplicated"),
        ("train: {}\nrun: {}\ntrain: {}\n", ":3 is not valid YAML: key 'train' is duplicated"),
        ("train:\n  ? [a, b]\n  : 3\n", ":2 is not valid YAML: a key is not text"),
        ("train:\n\tlr: 3\n", ":2 is not valid YAML: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", ":2 is not valid YAML: but found another document"),
        ("a: \x07\n", " is not valid YAML: unacceptable character #x0007: special characters are not allowed"),
        ("just words\n", " is 'just words', expected sections such as `train:` that contain settings"),
        ("- train\n", " is ['train'], expected sections such as `train:` that contain settings"),
        ("summary: [a]\n", ": summary is ['a'], expected text"),
        ("extends: [a, b]\n", ": extends is ['a', 'b'], expected text"),
    ],
)
def test_a_file_that_is_no_preset(tmp_path: Path, text: str, problem: str) -> None:
    """File, line where there is one, and what is wrong."""
    name = write(tmp_path / "p.yaml", text)

    assert problem_of(name).startswith(name + problem)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are an error of the file, not a crash."""
    path = tmp_path / "p.yaml"
    path.write_bytes(b"summary: \xff\n")

    assert problem_of(str(path)).startswith(f"{path} cannot be read: 'utf-8' codec")


def test_an_empty_file_is_an_empty_preset(tmp_path: Path) -> None:
    """Nothing said is nothing changed."""
    preset = read_preset(write(tmp_path / "p.yaml", "# later\n"))

    assert (preset.summary, preset.extends, preset.sections) == ("", None, {})
