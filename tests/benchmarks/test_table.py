"""What scripts measure becomes one table: found out in seconds, not after the benchmarks' twenty minutes."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks.table import ROWS, Outcome, Row, compared, markdown, number, read_rows, report

PAIRS = [(2.0, 1.0), (9.0, 3.0), (4.0, 1.0)]
MEASURES = """
from tests.benchmarks.table import Row, report
report(Row("a | b", "s", 1.5))
"""


def test_medians_are_of_each_column_and_of_the_ratios() -> None:
    """A ratio is that of two neighbours: its median need not be the ratio of the medians."""
    row = compared("reading", "s", PAIRS, "by hand")

    assert (row.ours, row.reference, row.ratio) == (4, 1, 3)
    assert row.cells == ("reading", "4 s", "1 s (by hand)", "3 (2 to 4, 3 pairs)", "")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"at_most": 3}, "at most 3"),
        ({"at_most": 2.99}, "at most 2.99: missed"),
        ({"at_least": 3}, "at least 3"),
        ({"at_least": 3.01}, "at least 3.01: missed"),
    ],
)
def test_an_aim_is_for_the_median_of_the_ratios(limits: dict[str, float], words: str) -> None:
    """A table says itself where an aim is missed."""
    assert compared("reading", "s", PAIRS, "by hand", **limits).cells[-1] == words


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        (Row("end", "s", 1.234), ("end", "1.23 s", "", "", "")),
        (Row("end", "s", 1.234, against="not installed"), ("end", "1.23 s", "not installed", "", "")),
        (compared("memory", "MB", [(900, 1800)], "plain"), ("memory", "900 MB", "1800 MB (plain)", "0.5", "")),
    ],
)
def test_what_is_not_there_is_left_out(row: Row, cells: tuple[str, ...]) -> None:
    """A figure without a reference has no ratio, and a single pair no spread."""
    assert row.cells == cells


@pytest.mark.parametrize(
    ("value", "text"), [(1355.4, "1355"), (99.96, "100"), (27.94, "27.9"), (0.9734, "0.973"), (0.00123, "0.00123")]
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    """And no exponent where they are large."""
    assert number(value) == text


def test_a_row_is_printed_and_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One call serves a script that is run alone and one whose rows are gathered; rows come back as they were."""
    rows = [compared("reading", "s", PAIRS, "by hand", at_most=2), Row("end", "s", 1.5)]
    for row in rows:
        report(row)
    monkeypatch.setenv(ROWS, str(tmp_path / "rows"))
    for row in rows:
        report(row)

    line = "reading: 4 s; 1 s (by hand); ratio 3 (2 to 4, 3 pairs); aim: at most 2: missed\nend: 1.5 s\n"
    assert capsys.readouterr().out == 2 * line
    assert read_rows(tmp_path / "rows") == rows


def test_the_page_has_a_row_for_each_figure_and_for_each_failure() -> None:
    """In Markdown: the head, then cells of which none breaks the table."""
    good = Outcome("python good", 0, 12.4, [Row("a | b", "s", 1.5), compared("c", "s", PAIRS, "d")])
    bad = Outcome("python bad", 3, 1, [Row("before it failed", "s", 1)])
    page = markdown([("GPU", "none")], [good, bad])

    assert page.splitlines()[2:4] == ["- GPU: none", "- time taken: python good 12 s, python bad 1 s"]
    assert page.splitlines()[7:] == [
        "| what | camox | reference | ratio | aim | command |",
        "|---|---|---|---|---|---|",
        "| a \\| b | 1.5 s |  |  |  | `python good` |",
        "| c | 4 s | 1 s (d) | 3 (2 to 4, 3 pairs) |  | `python good` |",
        "| before it failed | 1 s |  |  |  | `python bad` |",
        "| failed with exit code 3 |  |  |  |  | `python bad` |",
    ]


def test_a_script_that_fails_stops_no_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It leaves its row, the exit code is 1, and what scripts print reaches the screen."""
    out = tmp_path / "table.md"
    code = benchmarks.run_all([["-c", "raise SystemExit('no luck')"], ["-c", MEASURES]], out)

    rows = [line for line in out.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    output = capfd.readouterr()
    assert code == 1
    assert rows[1].startswith("| failed with exit code 1 |")
    assert rows[2].startswith("| a \\| b | 1.5 s |")
    assert "a | b: 1.5 s\n" in output.out
    assert output.err == "no luck\n"
    assert out.read_text(encoding="utf-8") in output.out


def test_all_well_is_exit_code_0(tmp_path: Path) -> None:
    """And no file is written where none is asked for."""
    assert benchmarks.run_all([["-c", MEASURES]], None) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_head_says_what_figures_depend_on(tmp_path: Path) -> None:
    """Date, processor and cores, GPU, versions; a system that does not tell its processor stops nothing."""
    head = dict(benchmarks.machine())
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: A: B\nmodel name\t: C\n", encoding="utf-8")

    assert list(head) == ["date", "processor", "GPU", "versions"]
    assert re.search(r", \d+ cores$", head["processor"])
    assert re.fullmatch(
        r"camox \S+, python \S+, torch \S+, timm \S+, opencv-python-headless \S+, numpy \S+", head["versions"]
    )
    assert benchmarks.processor(cpuinfo) == "A: B"
    assert benchmarks.processor(tmp_path / "missing") == "unknown processor"


def test_every_script_that_reports_is_run() -> None:
    """A benchmark that the one command leaves out would be forgotten."""
    folder = Path(benchmarks.__file__).parent
    reporting = {
        path.stem
        for path in folder.glob("[!_t]*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "report"
    }

    assert set(benchmarks.SCRIPTS) == reporting


def test_a_name_that_is_no_benchmark_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured, with the names there are."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "step,lader"])
    with pytest.raises(SystemExit) as stop:
        benchmarks.main()

    assert stop.value.code == 2
    assert f"no benchmark lader; there are {', '.join(benchmarks.SCRIPTS)}" in capsys.readouterr().err
