"""Reads a data set as training would, and says what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.data.check import SMALL_OBJECT, Report, SetReport, check
from camoxpert_cli.data.pairs import LIST_SUFFIX, write_list
from camoxpert_cli.errors import DataError, UsageError


def check_data(roots: Sequence[Path], *, include_noncam: bool, clean: Path | None) -> Report:
    """The report on all data sets; writes the list `clean` of pairs without a fault where it is given.

    Raises DataError for a folder of no known layout and where no pair is left for the list, UsageError where the list
    cannot be written.
    """
    if clean is not None and clean.suffix != LIST_SUFFIX:
        raise UsageError(f"the list {clean} would not be known as one", f"give a name that ends in {LIST_SUFFIX}")
    if clean is not None and not clean.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {clean.absolute().parent} for the list", "make it, or choose another")
    if clean is not None and (clean.is_dir() or not os.access(clean.absolute().parent, os.W_OK)):
        raise UsageError(f"the list {clean} cannot be written", "choose another name or folder")
    with ExitStack() as stack:

        def progress(total: int) -> Callable[[int, str], None]:
            return stack.enter_context(console.progress("Checking", total))

        report = check(roots, include_noncam=include_noncam, progress=progress)
    if clean is not None:
        train, tests = report.clean
        tests = {name: pairs for name, pairs in tests.items() if pairs}
        if not train and not tests:
            raise DataError(f"no pair without a fault is left for {clean}", "camox check-data DIR lists the faults")
        write_list(clean, train, tests)
    return report


def to_json(report: Report) -> dict[str, Any]:
    """The whole report in plain types; sizes are [height, width], areas shares 0..1 of a picture."""
    return {
        "sets": [_set_to_json(each) for each in report.sets],
        "faults": [
            {
                "kind": fault.kind,
                "set": fault.set,
                "path": str(fault.path),
                "detail": fault.detail,
                "trainable": fault.trainable,
            }
            for fault in report.faults
        ],
    }


def _set_to_json(report: SetReport) -> dict[str, Any]:
    by_area = sorted(report.sizes, key=lambda size: size[0] * size[1])
    sizes = {"smallest": by_area[0], "median": by_area[len(by_area) // 2], "largest": by_area[-1]} if by_area else {}
    areas = report.areas
    return {
        "name": report.name,
        "role": "train" if report.trains else "test",
        "images": report.images,
        "masks": report.masks,
        "pairs": len(report.pairs),
        "left_out_noncam": report.left_out,
        "sizes": {name: list(size) for name, size in sizes.items()},
        "areas": {
            "smallest": min(areas),
            "median": median(areas),
            "largest": max(areas),
            "small_objects": sum(area < SMALL_OBJECT for area in areas),
        }
        if areas
        else {},
        "super_classes": dict(sorted(report.super_classes.items())),
        "classes": dict(sorted(report.classes.items())),
    }


def refuse_faults(report: Report, roots: Sequence[Path], clean: Path | None) -> None:
    """Raise DataError where there are faults; the hint leads to a list without them."""
    if not report.faults:
        return
    folders = " ".join(map(str, roots))
    raise DataError(
        f"{len(report.faults)} fault{'s' if len(report.faults) > 1 else ''} in {folders}",
        f"camox train --dataset-path {clean} trains on what is left"
        if clean is not None
        else f"camox check-data {folders} --write-clean clean.json lists the pairs without a fault",
    )
