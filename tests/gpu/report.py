"""What a check tells of what it finds: at once, so that nothing is lost where it does not come to its end."""

from __future__ import annotations

import json
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from tests.gpu.patience import with_patience

Number = float | int | str


class NeedsACard(Exception):
    """Raised by a check that means nothing without CUDA."""


class Report:
    """Of one check, which runs in a process of its own.

    `device` is where it computes, `folder` is for its files and is removed after it, and `results` is that of all
    checks. One line of JSON after the other goes to `folder`: numbers, what failed, and last that the check has ended.
    """

    def __init__(self, device: Literal["cuda", "cpu"], folder: Path, results: Path) -> None:
        self.device, self.folder, self.results = device, folder, results

    @property
    def on_card(self) -> bool:
        return self.device == "cuda"

    def require_card(self) -> None:
        """Raise NeedsACard on the CPU."""
        if not self.on_card:
            raise NeedsACard

    def number(self, name: str, value: Number) -> None:
        """A figure for the table, with three digits that count."""
        print(f"{name}: {value}", flush=True)
        self._write(number=name, value=value)

    def fail(self, why: str) -> None:
        print(f"failed: {why}", flush=True)
        self._write(failure=why)

    @contextmanager
    def part(self, name: str, seconds: float) -> Iterator[None]:
        """A part of the check: where it fails, or is not done in time, that is written down and the others go on.

        For the main thread.
        """

        def too_late(number: int, frame: FrameType | None) -> None:
            raise TimeoutError(f"not done within {limit:g} s")

        limit = with_patience(seconds)
        print(f"\n== {name}", flush=True)
        signal.signal(signal.SIGALRM, too_late)
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            yield
        except NeedsACard:
            self.number(name, "needs a card")
        except Exception as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            traceback.print_exc()
            self.fail(f"{name}: {in_one_line(error)}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def end(self, outcome: Literal["ended", "needs a card"]) -> None:
        self._write(outcome=outcome)

    def _write(self, **line: Any) -> None:
        with lines_of(self.folder).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def lines_of(folder: Path) -> Path:
    """The file of a report's lines, in a check's folder."""
    return folder / "report.jsonl"


def in_one_line(error: Exception) -> str:
    """Its class and first line, or the line that says what was raised where it quotes another process's traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if "Error: " in line] if "Traceback" in str(error) else []
    return ": ".join([type(error).__name__, *(raised[-1:] or lines[:1])])
