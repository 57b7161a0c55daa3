"""The tests that are marked `gpu`."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.gpu.report import Report
from tests.gpu.run_command import run_command

_TESTS = Path(__file__).parents[2]


def check(report: Report) -> None:
    report.require_card()
    # The others' files may need packages that are not here.
    files = [str(path) for path in sorted(_TESTS.rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text("utf-8")]
    xml = report.folder / "tests.xml"
    # Without pyproject.toml's options for pytest-xdist.
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "--strict-markers", "-ra", f"--junitxml={xml}"]
    ended = run_command(
        report.folder / "pytest", [sys.executable, "-m", "pytest", *options, "-m", "gpu", *files], seconds=95
    )
    assert xml.exists(), f"pytest ended with exit code {ended.code} before its tests"
    cases = list(ElementTree.parse(xml).iter("testcase"))
    skipped = 0
    for case in cases:
        for outcome in case:
            test, why = f"{case.get('classname')}.{case.get('name')}", outcome.get("message", "")[:200]
            if outcome.tag in ("failure", "error"):
                report.fail(f"{test}: {outcome.tag}: {why}")
            if outcome.tag == "skipped":  # such as one that needs two cards
                skipped += 1
                report.number(f"{test} skipped", why)
    report.number("tests", len(cases))
    assert len(cases) > skipped, "no test was run"
    assert ended.code == 0, f"pytest ended with exit code {ended.code}"
