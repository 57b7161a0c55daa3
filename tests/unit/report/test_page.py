from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from camoxpert_cli.report.content import MeasureWords, Report, ReportSet, ShownImage
from camoxpert_cli.report.page import render, write_report
from tests.helpers.example_report import example_report, shown_image
from tests.helpers.html_tree import HtmlTree

EMPTY = Report(title="Nothing", subtitle="", sets=[], published={}, history=[], configuration={}, environment={})
NO_PIXELS = np.zeros(256, np.int64)


@pytest.fixture(scope="module")
def report() -> Report:
    return example_report(size=64)


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return render(report)


def bare_set(**changes: object) -> ReportSet:
    """A data set with scores and nothing else."""
    bare = ReportSet("set", 1, {"iou": 0.5}, {}, NO_PIXELS, NO_PIXELS, [], [])
    return replace(bare, **changes)  # type: ignore[arg-type]


def rows(page: str) -> list[str]:
    """The text of each line of a table of scores, cells apart by a bar."""
    found = re.findall(r"<tr.*?</tr>", page, flags=re.DOTALL)
    return ["|".join(HtmlTree(row).texts) for row in found]


def test_shows_everything(report: Report, page: str) -> None:
    """Scores, parts of a set, images, settings, versions and notes are all on the page."""
    text = "\n".join(HtmlTree(page).texts)
    expected = [report.title, report.subtitle, *report.notes, "model.backbone", "edgenext_base", "gpus", "Aquatic"]
    expected += [shown.name for each in report.sets for shown in each.shown]
    expected += ["Learning rate", "Precision and recall", "Metrics by threshold", "Calibration"]

    assert [each for each in expected if each not in text] == []
    assert "CAMO|250|0.842|0.751|0.688|0.779|0.031" in rows(page)


def test_measures_are_called_as_whoever_fills_it_in_says(page: str) -> None:
    """Tables, charts and the sentence on which way is better take labels and directions from the report's own data."""
    alone = replace(EMPTY, sets=[bare_set(means={"iou": 0.5, "x": 0.2})], measures={"iou": MeasureWords("IoU")})

    assert "Dataset|Images|S|wF|IoU|Dice|MAE" in rows(page)
    assert "Lower is better for MAE, higher is better for all other metrics." in page
    assert "Dataset|Images|IoU|x" in rows(render(alone))
    assert "is better" not in render(alone)


def test_published_systems_stand_beside_their_set(page: str) -> None:
    """A published system has its line once, under the same measures, with a dash for what it does not tell."""
    found = rows(page)

    assert [row for row in found if "SINet-V2" in row] == ["SINet-V2|TPAMI 2022|0.815|0.680|–|–|0.037"]
    assert "this network|250 images|0.842|0.751|0.688|0.779|0.031" in found


def test_needs_nothing_else(page: str) -> None:
    """No address leads out of the file: images are data, links stay within the page, and the browser is told so."""
    tree = HtmlTree(page)
    ids = tree.attributes("id")
    sources = tree.attributes("src")
    links = tree.attributes("href")
    without_images = re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", page)

    assert len(sources) == 4 * 8
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert {use.removeprefix("url(#") for use in re.findall(r"url\([^)]*", without_images)} <= set(ids)
    assert re.findall(r"https?:|//[a-z]|@import|<link|<iframe", without_images) == []
    assert "default-src 'none'" in page


def test_identifiers_are_unique(page: str) -> None:
    """Several charts on a page do not take each other's parts."""
    ids = HtmlTree(page).attributes("id")

    assert len(ids) == len(set(ids))


def test_every_image_has_words(page: str) -> None:
    """Images, charts and buttons say what they are to those who do not see them."""
    tree = HtmlTree(page)

    assert all(image["alt"] for image in tree.tags("img") if "src" in image)
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in tree.tags("svg"))
    assert all(button.get("aria-label") for button in tree.tags("button"))


def test_names_from_outside_are_escaped() -> None:
    """Whatever stands in a name, a setting or a note is text: no element and no attribute comes of it."""
    evil = """</title></script><script>alert(1)</script><img src=x onerror="alert(2)">&amp;"'{{ 7 * 7 }}"""
    shown = replace(shown_image("a", "best", 0, 48), name=evil, place=evil, scores={evil: 0.5})
    harmful = bare_set(
        name=evil,
        means={evil: 0.5},
        curves={"f": np.full(256, 0.5)},
        slices=[(evil, 1, {evil: 0.5})],
        shown=[shown],
    )
    page = render(
        Report(
            title=evil,
            subtitle=evil,
            sets=[harmful],
            published={evil: [(evil, evil, {evil: 0.5})]},
            history=[{"epoch": 1, evil + "loss": 1.0}],
            configuration={evil: {evil: [evil]}},
            environment={evil: evil},
            notes=[evil],
        )
    )
    tree = HtmlTree(page)

    assert len(tree.tags("script")) == 1
    assert [source for source in tree.attributes("src") if not source.startswith("data:")] == []
    assert tree.attributes("onerror") == []
    assert tree.texts.count(evil) >= 10
    assert "49" not in tree.texts


def test_nothing_to_show() -> None:
    """A report without sets, history or settings is a page with its title."""
    tree = HtmlTree(render(EMPTY))

    assert tree.tags("section") == tree.tags("svg") == tree.tags("table") == []
    assert "Nothing" in tree.texts


def test_set_without_data_has_its_scores_alone() -> None:
    """Without curves, pixels, parts and images a set shows no empty chart, table or strip."""
    page = render(replace(EMPTY, sets=[bare_set(images=0, means={"iou": float("nan")})]))
    tree = HtmlTree(page)

    assert rows(page)[1:] == ["set|0|–"]
    assert tree.tags("svg") == tree.tags("article") == tree.tags("h3") == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (1000, 640)])
def test_image_of_any_size(shape: tuple[int, int]) -> None:
    """All four of a strip have the same size, at most 480 pixels a side and never enlarged."""
    shown = ShownImage(
        "worst", "one", np.full((*shape, 3), 90, np.uint8), np.ones(shape, bool), np.zeros(shape, np.uint8), {}
    )
    page = render(replace(EMPTY, sets=[bare_set(shown=[shown])]))
    sources = HtmlTree(page).attributes("src")
    data = [np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8) for source in sources]
    sizes = {image.shape for each in data if (image := cv2.imdecode(each, cv2.IMREAD_GRAYSCALE)) is not None}
    scale = min(1, 480 / max(shape))

    assert len(data) == 4
    assert sizes == {(max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))}


def test_same_content_same_bytes(tmp_path: Path) -> None:
    """Writing a report again changes nothing, so that two of them can be compared."""
    shown = [shown_image("a", "best", 0, 64)]
    report = replace(EMPTY, sets=[bare_set(shown=shown, curves={"f": np.linspace(0, 1, 256)})])
    write_report(tmp_path / "report.html", report)

    assert (tmp_path / "report.html").read_bytes() == render(report).encode()


def test_old_page_stays_where_the_new_one_fails(tmp_path: Path) -> None:
    """A mask that does not fit its image is an error, and what was written before is still there."""
    path = tmp_path / "report.html"
    path.write_text("old")
    shown = replace(shown_image("a", "best", 0, 64), mask=np.ones((3, 3), bool))
    with pytest.raises(ValueError, match="a: image"):
        write_report(path, replace(EMPTY, sets=[bare_set(shown=[shown])]))

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_size_of_a_page() -> None:
    """Twelve large images make a page of less than four megabytes."""
    small = shown_image("large.jpg", "median", 0, 120)
    image, mask, found = np.tile(small.image, (4, 4, 1)), np.tile(small.mask, (4, 4)), np.tile(small.prediction, (4, 4))
    large = replace(small, image=image, mask=mask, prediction=found)
    one = render(replace(EMPTY, sets=[bare_set(shown=[large])]))
    none = render(replace(EMPTY, sets=[bare_set()]))

    assert 12 * (len(one) - len(none)) < 4e6
