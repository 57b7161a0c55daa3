"""README, the guide's pages and its notebook: links lead somewhere, and command lines can be typed as they stand."""

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
from camoxpert_cli.commands.guide import FOLDER, NOTEBOOK, TOPICS, summary
from camoxpert_cli.config.parse import parse_tta
from camoxpert_cli.config.presets import preset_names
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import SETTINGS
from tests.helpers.command_lines import (
    DOCUMENTS,
    commands,
    in_documents,
    in_help,
    parse,
    without_code,
)
from tests.helpers.places import README
from tests.readme import figure

TEXTS = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
TEXT = "\n".join(TEXTS.values())
PROSE = {path: without_code(text) for path, text in TEXTS.items()}
KEYS = {setting.name: setting.key for setting in SETTINGS.values()}
LARGEST_IMAGE = 150_000
LONGEST_README = 300  # lines
LONGEST_SUMMARY = 70
# Columns of code in the guide: on a terminal of 80 it is indented by two.
WIDEST_CODE = 78
# Options of other programs that the documents name.
FOREIGN = {
    *("--nnodes", "--node-rank", "--nproc-per-node", "--master-addr", "--master-port"),
    *("--local-ranks-filter", "--tee", "--log-dir"),
    *("--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"),
    # Of Slurm's programs, and of date.
    *("--job-name", "--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--time", "--signal"),
    "--gpus-per-task",
    *("--requeue", "--open-mode", "--output", "--noheader", "--jobs", "--format", "--date"),
    "--pairs",  # of the benchmarks
    *("--shm-size", "--force-reinstall", "--no-index", "--find-links", "--no-deps", "--wheel-dir", "--dest"),
}
# What troubleshooting quotes of other programs.
OF_TORCH = {"operator torchvision::nms does not exist", "import cv2"}

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
each_page = pytest.mark.parametrize("topic", TOPICS)


def anchors(path: Path) -> list[str]:
    """Of a document's headings as GitHub makes them: lower case, without punctuation, spaces as hyphens."""
    headings = re.findall(r"^#+ (.+)$", PROSE[path], re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def links(path: Path) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", re.sub(r"`[^`]*`", "", PROSE[path]))


def options(command: Any) -> set[str]:
    """All names of a command's options, those that turn off included."""
    return {option for each in command.params for option in (*each.opts, *each.secondary_opts)}


OPTIONS = {name: options(command) for name, command in commands()}
OPTIONS[""] |= {"--help", "--install-completion"}


@cache
def shown() -> list[str]:
    """What the documents and the help say to type, without `camox`."""
    return sorted({line for line in (*in_documents(), *in_help()) if not line.startswith("COMMAND ")})


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


@each_document
def test_every_link_leads_somewhere(path: Path) -> None:
    """To a heading of the page or of another one, or to a file; paths are relative, so that they work in a copy."""
    lost = []
    for link in links(path):
        file, _, heading = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        known = not heading or (target in TEXTS and heading in anchors(target))
        if link.startswith(("/", "http")) or not target.exists() or not known:
            lost.append(link)

    assert lost == []


@each_document
def test_headings_are_not_called_alike(path: Path) -> None:
    """A link to one would lead to the other."""
    assert len(anchors(path)) == len(set(anchors(path)))


def test_readme_leads_to_every_page() -> None:
    """A page that nobody finds from there is not known to a newcomer."""
    assert {f"camoxpert_cli/guide/{topic}.md" for topic in TOPICS} <= set(links(README))


def messages() -> str:
    """The package's code, with strings that are split over lines joined."""
    return "\n".join(
        re.sub(r'"\s+f?"', "", path.read_text(encoding="utf-8")) for path in sorted(FOLDER.parent.rglob("*.py"))
    )


def test_messages_that_troubleshooting_quotes_exist() -> None:
    """People search for what they see: a quotation in the first column is, but for its values, in the code."""
    rows = re.findall(r"^\| (.*?) \|", TEXTS[FOLDER / "troubleshooting.md"], re.MULTILINE)
    quoted = [quotation for row in rows for quotation in re.findall(r"`([^`]+)`", row)]
    known = messages()
    fragments = [part.strip() for each in quoted for part in each.split("…") if part.strip()]

    assert len(quoted) > 30
    assert [each for each in fragments if each not in known and each not in OF_TORCH] == []


def test_readme_is_short() -> None:
    """What is longer belongs in the guide."""
    assert len(TEXTS[README].splitlines()) < LONGEST_README


def test_the_guide_has_its_topics() -> None:
    """Each topic has a page, and each file is a page or the notebook."""
    assert {path.name for path in FOLDER.iterdir()} == {*(f"{topic}.md" for topic in TOPICS), NOTEBOOK.name}


@each_page
def test_pages_begin_alike(topic: str) -> None:
    """With a title, and one short sentence that the list of topics shows."""
    title, blank, sentence, after = (TEXTS[FOLDER / f"{topic}.md"] + "\n").splitlines()[:4]

    assert title.startswith("# ")
    assert (blank, after) == ("", "")
    assert sentence == summary(topic)
    assert sentence.endswith(".")
    assert len(sentence) <= LONGEST_SUMMARY
    assert not set("`[*") & set(sentence)


@each_page
def test_code_in_pages_fits_a_terminal(topic: str) -> None:
    """Its lines are not broken there, and not within a list, where they would be; images and HTML are not shown."""
    text = TEXTS[FOLDER / f"{topic}.md"]
    blocks = re.findall(r"^ *```\w+\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)

    assert [line for block in blocks for line in block.splitlines() if len(line) > WIDEST_CODE] == []
    assert re.findall(r"^ +```", text, re.MULTILINE) == []
    assert "![" not in text
    assert re.findall(r"<(?:br|img|details|summary|a|sub|kbd)\b", without_code(text)) == []


def test_images_are_small() -> None:
    """They load at once."""
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXTS[README])

    assert images == ["tests/readme/quickstart.png"]
    assert all((README.parent / path).stat().st_size < LARGEST_IMAGE for path in images)


def test_the_image_is_what_its_script_draws() -> None:
    """It has the size of as many columns as the script makes, of image, mask and map."""
    drawn = figure.draw([[np.zeros((64, 64, 3), np.uint8)] * 3] * figure.COLUMNS)
    shown = cv2.imread(str(figure.TARGET))

    assert shown is not None
    assert shown.shape == drawn.shape


@pytest.mark.parametrize(("count", "steps"), [(2, ["a", "e"]), (3, ["a", "c", "e"]), (5, ["a", "b", "c", "d", "e"])])
def test_images_are_taken_at_equal_steps(count: int, steps: list[str]) -> None:
    """The worst and the best are among them."""
    assert figure.evenly_spaced(["a", "b", "c", "d", "e"], count) == steps


def test_images_are_ranked_by_their_iou(tmp_path: Path) -> None:
    """Of the held-out images alone, and as numbers."""
    rows = ["validation,a,0.9", "validation,b,1e-3", "validation,c,0.5", "CAMO,d,0.1"]
    (tmp_path / "per_image.csv").write_text("\n".join(["dataset,name,iou", *rows]) + "\n")

    assert figure.ranked(tmp_path / "per_image.csv") == ["b", "c", "a"]


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
    read = in_documents()

    assert {"train --preset quickstart", "doctor", "doctor --preset kaggle-2xT4"} <= set(read)
    assert "check-data /kaggle/input/cod10k-dataset/COD10K-v3 --write-clean clean.json" in read
    assert "resume runs/first" in read
    job = "--dataset-path=/data/COD10K-v3 --gpus=all --checkpoint-dir=/runs/first --continue --unfinished-exit-code=85"
    assert f"train {job}" in read  # of Kubernetes
    assert f"train {job.replace('=', ' ')}" in read  # of SkyPilot
    data, run = "train --dataset-path /data/COD10K-v3", "--checkpoint-dir runs/first --continue"
    slurm = {f"{data} --gpus all {run} --unfinished-exit-code 85", f"{data} {run}"}
    assert {*slurm, "status runs/first --unfinished-exit-code 85"} <= set(read)
    assert "benchmark --preset kaggle-2xT4 --gpus 1,2 --strategy ddp --dataset-path DATA --out speed.md" in in_help()
    assert len(shown()) > 80


@pytest.mark.usefixtures("_presets_of_the_examples")
@pytest.mark.parametrize("line", ["train --epoch 3", "trian", "predict a.pth b.jpg", "presets shw x"])
def test_a_slip_in_a_line_is_found(line: str) -> None:
    """A command or an option that does not exist, or one that is missing, does not parse."""
    with pytest.raises(Exception, match=r"unknown|missing"):
        parse(line)


def test_options_in_sentences_exist() -> None:
    """Whatever looks like an option is one, of camox or of a program that the documents tell to run."""
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", TEXT))
    known = set().union(*OPTIONS.values())

    assert len(named) > 60
    assert named - known - FOREIGN == set()
    assert named >= FOREIGN  # the list stays as short as it can be


def test_nothing_is_left_out() -> None:
    """Every command and preset is in README or the guide, and each option of what is documented there alone."""
    names = {name.split()[0] for name in OPTIONS if name}
    explained = {option for name in ("eval", "predict", "export") for option in OPTIONS[name] if option[:2] == "--"}

    assert {line.split()[0] for line in in_documents()} >= names
    assert not [name for name in preset_names() if f"`{name}`" not in TEXT]
    assert not [option for option in explained - {"--help", "--stretch", "--no-include-noncam"} if option not in TEXT]


@each_document
def test_lines_are_short_enough_to_read_in_a_terminal(path: Path) -> None:
    """120 columns at most; a row of a table cannot be broken, nor the description of an image."""
    assert not [line for line in TEXTS[path].splitlines() if len(line) > 120 and not line.startswith(("|", "!["))]
