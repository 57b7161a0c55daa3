"""The README: its links lead somewhere, and every command line that it or the help shows can be typed as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from camoxpert_cli import console
from camoxpert_cli.benchmark.options import check_counts, check_strategies
from camoxpert_cli.config.parse import parse_tta
from camoxpert_cli.config.presets import preset_names
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import SETTINGS
from tests.helpers.command_lines import commands, in_help, in_readme, parse
from tests.helpers.places import README
from tests.readme import picture

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
KEYS = {setting.name: setting.key for setting in SETTINGS.values()}
CODE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROSE = CODE.sub("", TEXT)
LARGEST_IMAGE = 150_000
# Options of other programs that the README names.
FOREIGN = {
    *("--nnodes", "--node-rank", "--nproc-per-node", "--master-addr", "--master-port"),
    *("--local-ranks-filter", "--tee", "--log-dir"),
    "--pairs",  # of the benchmarks
    *("--shm-size", "--force-reinstall", "--no-index", "--find-links", "--no-deps", "--wheel-dir", "--dest"),
}


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading: lower case, without punctuation, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def options(command: Any) -> set[str]:
    """All names of a command's options, those that turn off included."""
    return {option for each in command.params for option in (*each.opts, *each.secondary_opts)}


OPTIONS = {name: options(command) for name, command in commands()}
OPTIONS[""] |= {"--help", "--install-completion"}


@cache
def shown() -> list[str]:
    """What README and the help say to type, without `camox`."""
    return sorted({line for line in (*in_readme(), *in_help()) if not line.startswith("COMMAND ")})


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


def test_every_link_within_the_page_has_its_heading() -> None:
    """The contents list and all other links lead to a heading, and headings are not called alike."""
    headings = [anchor(heading) for heading in re.findall(r"^#+ (.+)$", PROSE, re.MULTILINE)]
    links = re.findall(r"\]\(#([^)]+)\)", PROSE)

    assert len(headings) == len(set(headings))
    assert len(links) > 20
    assert set(links) <= set(headings)


def test_every_section_is_in_the_contents() -> None:
    """A section that nobody can find in the list is not there for a newcomer."""
    contents = TEXT[TEXT.index("## Contents") : TEXT.index("## See what")]
    linked = set(re.findall(r"\]\(#([^)]+)\)", contents))
    sections = {anchor(heading) for heading in re.findall(r"^## (.+)$", PROSE, re.MULTILINE)}

    assert sections - linked == {"start", "contents", "licence"}


def test_files_that_are_linked_or_shown_are_there_and_small() -> None:
    """Paths are relative, so that they work on GitHub and in a copy; images load at once."""
    paths = re.findall(r"\]\(([^#)][^)]*)\)", PROSE)
    files = [ROOT / path for path in paths]

    assert "tests/readme/quickstart.png" in paths
    assert not [path for path in paths if path.startswith(("/", "http"))]
    assert not [file for file in files if not file.is_file()]
    assert all(file.stat().st_size < LARGEST_IMAGE for file in files)


def test_the_image_is_what_its_script_draws() -> None:
    """It has the size of as many columns as the script makes, of image, mask and map."""
    drawn = picture.draw([[np.zeros((64, 64, 3), np.uint8)] * 3] * picture.COLUMNS)
    shown = cv2.imread(str(picture.TARGET))

    assert shown is not None
    assert shown.shape == drawn.shape


@pytest.mark.parametrize(("count", "steps"), [(2, ["a", "e"]), (3, ["a", "c", "e"]), (5, ["a", "b", "c", "d", "e"])])
def test_images_are_taken_at_equal_steps(count: int, steps: list[str]) -> None:
    """The worst and the best are among them."""
    assert picture.equal_steps(["a", "b", "c", "d", "e"], count) == steps


def test_images_are_ranked_by_their_iou(tmp_path: Path) -> None:
    """Of the held-out images alone, and as numbers."""
    rows = ["validation,a,0.9", "validation,b,1e-3", "validation,c,0.5", "CAMO,d,0.1"]
    (tmp_path / "per_image.csv").write_text("\n".join(["dataset,name,iou", *rows]) + "\n")

    assert picture.ranked(tmp_path / "per_image.csv") == ["b", "c", "a"]


def typed(line: str) -> None:
    """Raises what the line would be refused with."""
    whole = line.replace(" …", "")  # where more may stand, which may be what the rest needs
    if " " not in whole:
        assert whole in OPTIONS.keys() | OPTIONS[""]
        return
    parsed = parse(whole)
    assert parsed is not None or whole.endswith("--help")
    if parsed is not None and whole == line:
        check(*parsed)


@pytest.mark.usefixtures("_presets_of_the_examples")
@pytest.mark.parametrize("command", sorted({line.split()[0] for line in shown()}))
def test_command_lines_can_be_typed(command: str) -> None:
    """Command, flags and settings exist, and take the values they are given; a name alone exists."""
    refused = {}
    for line in shown():
        if line.split()[0] == command:
            try:
                typed(line)
            except Exception as error:
                refused[line] = repr(error)

    assert refused == {}


def test_command_lines_are_found() -> None:
    """Of blocks, cells, spans, broken lines and examples some line each; of most commands more than one."""
    read = in_readme()

    assert {"train --preset quickstart", "doctor", "doctor --preset kaggle-2xT4"} <= set(read)
    assert "check-data /kaggle/input/cod10k-dataset/COD10K-v3 --write-clean clean.json" in read
    assert "resume runs/first" in read
    assert "benchmark --preset kaggle-2xT4 --gpus 1,2 --strategy ddp --dataset-path DATA --out speed.md" in in_help()
    assert len(shown()) > 80


@pytest.mark.usefixtures("_presets_of_the_examples")
@pytest.mark.parametrize("line", ["train --epoch 3", "trian", "predict a.pth b.jpg", "presets shw x"])
def test_a_slip_in_a_line_is_found(line: str) -> None:
    """A command or an option that does not exist, or one that is missing, does not parse."""
    with pytest.raises(Exception, match=r"No such|Missing"):
        parse(line)


def test_options_in_sentences_exist() -> None:
    """Whatever looks like an option is one, of camox or of a program that the README tells to run."""
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", TEXT))
    known = set().union(*OPTIONS.values())

    assert len(named) > 60
    assert named - known - FOREIGN == set()
    assert named >= FOREIGN  # the list stays as short as it can be


def test_nothing_is_left_out() -> None:
    """Every command and preset is in the README, and each option of what is documented here alone."""
    names = {name.split()[0] for name in OPTIONS if name}
    explained = {option for name in ("eval", "predict", "export") for option in OPTIONS[name] if option[:2] == "--"}

    assert {line.split()[0] for line in in_readme()} >= names
    assert not [name for name in preset_names() if f"`{name}`" not in TEXT]
    assert not [option for option in explained - {"--help", "--stretch", "--no-include-noncam"} if option not in TEXT]


def test_lines_are_short_enough_to_read_in_a_terminal() -> None:
    """120 columns at most; a row of a table cannot be broken."""
    assert not [line for line in TEXT.splitlines() if len(line) > 120 and not line.startswith("|")]
