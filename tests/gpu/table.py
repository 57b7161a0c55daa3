"""What came of the checks, as one Markdown table below what it depends on."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from camoxpert_cli.data.cores import usable_cores
from camoxpert_cli.run_folder import versions
from tests.benchmarks.__main__ import processor
from tests.benchmarks.table import escaped, number
from tests.gpu.report import Number

_ROOT = Path(__file__).parents[2]

Outcome = Literal["passed", "failed", "timed out", "needs a card", "skipped: no time left"]


@dataclass(frozen=True)
class Result:
    """What came of one check, what it measured, and each thing in it that failed."""

    name: str
    outcome: Outcome
    seconds: float
    numbers: dict[str, Number] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        line = f"{self.name:<16} {self.outcome:<22} {self.seconds:6.1f} s"
        return f"{line}  {'; '.join(self.failures)}".rstrip()


def markdown(about: Sequence[tuple[str, str]], results: Sequence[Result], stopped: str = "") -> str:
    """The whole page; `stopped` is the check in which the user ended it, empty where all had their turn."""
    lines = ["# camox on a GPU", "", *(f"- {title}: {text}" for title, text in about)]
    lines.append(f"- time taken: {sum(each.seconds for each in results):.0f} s")
    if stopped:
        lines.append(f"- stopped by the user in {stopped}; what follows it was not run")
    lines += ["", "| check | outcome | s | failures | numbers |", "|---|---|---|---|---|"]
    for each in results:
        numbers = [f"{name} {_text(value)}" for name, value in each.numbers.items()]
        cells = [each.name, each.outcome, f"{each.seconds:.0f}", "; ".join(each.failures), "; ".join(numbers)]
        lines.append(f"| {' | '.join(escaped(cells))} |")
    return "\n".join(lines) + "\n"


def machine() -> list[tuple[str, str]]:
    """What the results depend on. It starts nothing on the GPU, whose memory is measured by checks."""
    import torch

    cudnn: Any = torch.backends.cudnn  # typed without the types of its functions
    nccl: Any = torch.cuda.nccl
    found = {
        **versions(),
        "CUDA": torch.version.cuda or "none",
        "cuDNN": cudnn.version() if cudnn.is_available() else "none",
        "NCCL": ".".join(map(str, nccl.version())) if torch.distributed.is_nccl_available() else "none",
    }
    names = ("camox", "python", "torch", "CUDA", "cuDNN", "NCCL", "timm", "numpy")
    return [
        ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("command", shlex.join(["python", "-m", "tests.gpu", *sys.argv[1:]])),
        ("card", _output_of("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")),
        ("processor", f"{processor()}, {usable_cores()} cores"),
        ("versions", ", ".join(f"{name} {found.get(name, 'not installed')}" for name in names)),
        ("git commit", _output_of("git", "rev-parse", "HEAD")),
    ]


def _output_of(*command: str) -> str:
    """What a program prints; "none" where it is not there or has nothing to say."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, cwd=_ROOT)
        return ", ".join(done.stdout.strip().splitlines()) or "none"
    return "none"


def _text(value: Number) -> str:
    return value if isinstance(value, str) else number(value)
