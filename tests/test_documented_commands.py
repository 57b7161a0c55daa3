"""Every command line that README and the help show can be typed as it stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli import console
from camoxpert_cli.config.benchmark_options import check_counts, check_strategies
from camoxpert_cli.config.load import resolve
from camoxpert_cli.config.schema import SETTINGS
from camoxpert_cli.config.tta import parse_tta
from tests.helpers.command_lines import in_help, in_readme, parse

KEYS = {setting.name: setting.key for setting in SETTINGS.values()}
# Words for something else, and what is left out of a line.
PLACEHOLDERS = ("…", "...", "COMMAND")


def shown() -> list[str]:
    return sorted({line for line in [*in_readme(), *in_help()] if not any(word in line for word in PLACEHOLDERS)})


@pytest.fixture
def _presets_of_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`mine`, by name and by path."""
    for path in (tmp_path / "mine.yaml", tmp_path / "camox" / "presets" / "mine.yaml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("extends: kaggle-1xT4\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    console.be_quiet(False)


def check(command: str, parameters: dict[str, Any]) -> None:
    """Whether the values can be what they have to be, which is found out after parsing."""
    if parameters.get("tta"):
        parse_tta(parameters["tta"])
    if command == "benchmark":
        for own_flag, examine in (("gpus", check_counts), ("strategy", check_strategies)):
            value = parameters.pop(own_flag)
            if value is not None:
                examine(value)
    if command in ("train", "resume", "benchmark", "eval"):
        own = {"sets", "images", "masks", "img_size", "batch_size", "precision"} if command == "eval" else set()
        flags = {KEYS[name]: value for name, value in parameters.items() if name in KEYS.keys() - own}
        given = {key: value for key, value in flags.items() if value is not None}
        resolve(parameters.get("preset"), given, parameters.get("assignments") or [])
    elif command in ("doctor", "presets show") and (preset := parameters.get("preset") or parameters.get("name")):
        resolve(preset, {})


@pytest.mark.usefixtures("_presets_of_the_examples")
@pytest.mark.parametrize("line", shown())
def test_it_parses(line: str) -> None:
    """Its command, flags and settings exist, and take the values they are given."""
    parsed = parse(line)

    assert parsed is not None or line.endswith(("--help", "--version", "-h")) or not line
    if parsed is not None:
        check(*parsed)


def test_lines_are_found() -> None:
    """The blocks, the spans and the examples are read: of each some line that must be there, long ones joined."""
    assert "train --preset quickstart" in in_readme()
    assert "doctor" in in_readme()
    assert "benchmark --preset kaggle-2xT4 --gpus 1,2 --strategy ddp --dataset-path DATA --out speed.md" in in_help()
    assert len(shown()) > 60


@pytest.mark.usefixtures("_presets_of_the_examples")
@pytest.mark.parametrize("line", ["train --epoch 3", "trian", "predict a.pth b.jpg", "presets shw x"])
def test_what_does_not_parse(line: str) -> None:
    """A line with a slip in it would be found."""
    with pytest.raises(Exception, match=r"No such|Missing"):
        parse(line)
