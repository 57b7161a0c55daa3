"""A row of the benchmarks' table: what a script measured, how that reads on a screen and in Markdown."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# Names a file to which the scripts add their rows, one JSON object a line.
ROWS = "CAMOX_BENCHMARK_ROWS"


@dataclass(frozen=True)
class Row:
    """One figure. `ours` and `reference` are medians in `unit`; `ratios` has ours / reference of each pair of both.

    `against` says what the reference is, or why there is none; the aim is for the median of the ratios.
    """

    what: str
    unit: str
    ours: float
    reference: float | None = None
    against: str = ""
    ratios: tuple[float, ...] = ()
    at_least: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """What was measured, ours, the reference, the ratio and the aim, in words."""
        measured = "" if self.reference is None else f"{number(self.reference)} {self.unit}"
        reference = f"{measured} ({self.against})" if measured and self.against else measured or self.against
        return self.what, f"{number(self.ours)} {self.unit}", reference, self._format_ratio(), self._format_aim()

    def _format_ratio(self) -> str:
        if not self.ratios:
            return ""
        if len(self.ratios) == 1:
            return number(self.ratio)
        low, high = min(self.ratios), max(self.ratios)
        return f"{number(self.ratio)} ({number(low)} to {number(high)}, {len(self.ratios)} pairs)"

    def _format_aim(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:g}{'' if self.ratio >= self.at_least else ': missed'}"
        if self.at_most is not None:
            return f"at most {self.at_most:g}{'' if self.ratio <= self.at_most else ': missed'}"
        return ""


@dataclass(frozen=True)
class Outcome:
    """What came of one script: its command line, exit code, duration in seconds, and the rows it handed over."""

    command: str
    code: int
    seconds: float
    rows: list[Row]


def compared(
    what: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    against: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """The row of pairs of ours and the reference, each measured one beside the other."""
    ours, reference = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = tuple(own / other for own, other in pairs)
    return Row(what, unit, ours, reference, against, ratios, at_least, at_most)


def report(row: Row) -> None:
    """Print a row, and hand it to the process that gathers them where there is one."""
    what, ours, reference, ratio, aim = row.cells
    beside = f"; {reference}" if reference else ""
    aimed = f"; aim: {aim}" if aim else ""
    print(f"{what}: {ours}{beside}{f'; ratio {ratio}' if ratio else ''}{aimed}", flush=True)
    if ROWS in os.environ:
        with Path(os.environ[ROWS]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def read_rows(path: Path) -> list[Row]:
    """The rows that scripts handed over; the file need not exist."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = map(json.loads, lines)
    return [Row(**{**each, "ratios": tuple(each["ratios"])}) for each in found]


def markdown(about: Sequence[tuple[str, str]], outcomes: Sequence[Outcome]) -> str:
    """The whole page: `about` are the lines of its head, a title and a text each."""
    lines = ["# Benchmarks", "", *(f"- {title}: {text}" for title, text in about)]
    took = ", ".join(f"{each.command} {each.seconds:.0f} s" for each in outcomes)
    lines += [f"- time taken: {took}", "", "A ratio is camox / reference, the median of pairs (lowest to highest).", ""]
    lines += ["| what | camox | reference | ratio | aim | command |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        rows: list[tuple[str, ...]] = [row.cells for row in outcome.rows]
        if outcome.code:
            rows.append((f"failed with exit code {outcome.code}", "", "", "", ""))
        lines += [f"| {' | '.join(escaped(cells))} | `{outcome.command}` |" for cells in rows]
    return "\n".join(lines) + "\n"


def escaped(cells: Sequence[str]) -> list[str]:
    """With nothing in them that ends a cell."""
    return [cell.replace("|", "\\|") for cell in cells]


def number(value: float) -> str:
    """With three digits that count, and never fewer than stand before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
