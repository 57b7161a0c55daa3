"""What the machine has, and whether two ranks can add up a tensor on it."""

from __future__ import annotations

import sys

import torch

from camoxpert_cli.data.cores import usable_cores
from tests.gpu.report import Report
from tests.gpu.run_command import run_well
from tests.gpu.two_ranks_on_one_card import transport_of


def check(report: Report) -> None:
    report.number("torch threads", torch.get_num_threads())
    report.number("cores", usable_cores())
    with report.part("gloo between two ranks", seconds=60):
        run_well(report.folder / "gloo", [sys.executable, "-m", "tests.gpu.smoke_test", "cpu"], seconds=50)
    if report.on_card:
        card = torch.cuda.get_device_properties(0)
        report.number("compute capability", f"{card.major}.{card.minor}")
        report.number("memory in GiB", card.total_memory / 2**30)
        report.number("cards", torch.cuda.device_count())
        transport_of(report)
