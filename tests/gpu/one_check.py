"""Runs one check in this process, which is its own.

    python -m tests.gpu.one_check NAME DEVICE RESULTS

`run_checks` starts it, with the check's working folder in the environment. RESULTS is the folder of all results.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Literal

from tests.gpu.ending import STARTED_BY
from tests.gpu.report import NeedsACard, Report, in_one_line


def main() -> None:
    name, device, results = sys.argv[1:]
    report = Report("cuda" if device == "cuda" else "cpu", Path(os.environ[STARTED_BY]), Path(results))
    outcome: Literal["ended", "needs a card"] = "ended"
    try:
        importlib.import_module(f"tests.gpu.checks.{name}").check(report)
    except NeedsACard:
        outcome = "needs a card"
    except Exception as error:
        traceback.print_exc()
        report.fail(in_one_line(error))
    report.end(outcome)


if __name__ == "__main__":
    main()
