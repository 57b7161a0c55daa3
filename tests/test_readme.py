"""The README: its links lead somewhere, and its commands and options exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer.main

from camoxpert_cli.app import app
from camoxpert_cli.config.presets import preset_names
from tests.readme import picture

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROSE = CODE.sub("", TEXT)
LARGEST_PICTURE = 150_000
# Options of other programs that the README names.
FOREIGN = {
    *("--nnodes", "--node-rank", "--nproc-per-node", "--master-addr", "--master-port"),
    *("--local-ranks-filter", "--tee", "--log-dir"),
    *("--shm-size", "--force-reinstall", "--no-index", "--find-links", "--no-deps", "--wheel-dir", "--dest"),
}


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading: lower case, without punctuation, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def commands() -> dict[str, set[str]]:
    """Every command of camox with all names of its options."""
    group: Any = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        parts = [command, *getattr(command, "commands", {}).values()]
        options = (option for part in parts for each in part.params for option in (*each.opts, *each.secondary_opts))
        found[name] = {*options, "--help", "-h"}
    found[""] = {option for each in group.params for option in each.opts} | {"--install-completion"}
    return found


def command_lines() -> list[str]:
    """What the README says to type that begins with camox: in blocks of code, a line each, and within sentences."""
    blocks = [block.replace("\\\n", " ") for language, block in CODE.findall(TEXT) if language == "bash"]
    lines = [part for block in blocks for line in block.splitlines() for part in line.split("&&")]
    lines += re.findall(r"`([^`]*)`", PROSE)
    # What follows a pipe or > is another program's; `camox train …` says that more may follow.
    stripped = (
        re.split(r"[>|]", line)[0].strip().removeprefix("!").replace("-m camoxpert_cli", "camox") for line in lines
    )
    return [line[line.index("camox ") :] for line in stripped if re.match(r"(?:\w+=\S+ |torchrun .*|… )?camox ", line)]


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
    """Paths are relative, so that they work on GitHub and in a copy; pictures load at once."""
    paths = re.findall(r"\]\(([^#)][^)]*)\)", PROSE)
    files = [ROOT / path for path in paths]

    assert "tests/readme/quickstart.png" in paths
    assert not [path for path in paths if path.startswith(("/", "http"))]
    assert not [file for file in files if not file.is_file()]
    assert all(file.stat().st_size < LARGEST_PICTURE for file in files)


def test_the_picture_is_what_its_script_draws() -> None:
    """It has the size of as many columns as the script makes, of picture, mask and map."""
    drawn = picture.draw([[np.zeros((64, 64, 3), np.uint8)] * 3] * picture.COLUMNS)
    shown = cv2.imread(str(picture.TARGET))

    assert shown is not None
    assert shown.shape == drawn.shape


@pytest.mark.parametrize(("count", "steps"), [(2, ["a", "e"]), (3, ["a", "c", "e"]), (5, ["a", "b", "c", "d", "e"])])
def test_pictures_are_taken_at_equal_steps(count: int, steps: list[str]) -> None:
    """The worst and the best are among them."""
    assert picture.equal_steps(["a", "b", "c", "d", "e"], count) == steps


def test_pictures_are_ranked_by_their_iou(tmp_path: Path) -> None:
    """Of the held-out pictures alone, and as numbers."""
    rows = ["validation,a,0.9", "validation,b,1e-3", "validation,c,0.5", "CAMO,d,0.1"]
    (tmp_path / "per_image.csv").write_text("\n".join(["dataset,name,iou", *rows]) + "\n")

    assert picture.ranked(tmp_path / "per_image.csv") == ["b", "c", "a"]


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_commands_to_type_exist(line: str) -> None:
    """A command line names a command of camox, and only options that this command has."""
    known = commands()
    words = line.split()
    name = words[1] if not words[1].startswith("-") else ""

    assert name in known or name in ("…", "--version")
    assert {word.split("=")[0] for word in words[1:] if word.startswith("--")} <= known[name]


def test_options_in_sentences_exist() -> None:
    """Whatever looks like an option is one, of camox or of a program that the README tells to run."""
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", TEXT))
    known = set().union(*commands().values())

    assert len(named) > 60
    assert named - known - FOREIGN == set()
    assert named >= FOREIGN  # the list stays as short as it can be


def test_nothing_is_left_out() -> None:
    """Every command and preset is in the README, and each option of what is documented here alone."""
    known = commands()
    lines = command_lines()
    explained = {option for name in ("eval", "predict", "export") for option in known[name] if option.startswith("--")}

    assert {line.split()[1] for line in lines} >= {name for name in known if name}
    assert not [name for name in preset_names() if f"`{name}`" not in TEXT]
    assert not [option for option in explained - {"--help", "--stretch", "--no-include-noncam"} if option not in TEXT]


def test_lines_are_short_enough_to_read_in_a_terminal() -> None:
    """120 columns at most; a row of a table cannot be broken."""
    assert not [line for line in TEXT.splitlines() if len(line) > 120 and not line.startswith("|")]
