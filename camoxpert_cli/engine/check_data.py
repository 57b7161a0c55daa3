"""Reads a data set as training would, and says what is wrong with it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.data.check import KINDS, SMALL_OBJECT, Report, SetReport, check
from camoxpert_cli.data.pairs import is_list, write_list
from camoxpert_cli.errors import DataError, UsageError


def check_data(roots: Sequence[Path], folders: Sequence[tuple[Path, Path]], *, include_noncam: bool) -> Report:
    """The report on all data sets, with progress. Raises DataError for a folder of no known layout."""
    if lists := [root for root in roots if is_list(root)]:
        raise DataError(f"{lists[0]} is a list of pairs", "give the folders that hold them")
    with ExitStack() as stack:

        def progress(total: int) -> Callable[[int, str], None]:
            return stack.enter_context(console.progress("Checking", total))

        return check(roots, folders, include_noncam=include_noncam, progress=progress)


def refuse_list(path: Path) -> None:
    """Raise UsageError where the list of clean pairs cannot be written to `path`, or would replace something else."""
    if path.is_dir() or not is_list(path):
        raise UsageError(f"the list {path} would not be known as one", "give a name that ends in .json")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.absolute().parent} for the list", "make it, or choose another")
    if path.exists() and not _is_ours(path):
        raise UsageError(f"{path} is there, and no list of camox: nothing was changed", "choose another name")


def write_clean(report: Report, path: Path) -> str:
    """Write the pairs that can be used to `path`; returns their numbers in words.

    Raises DataError where there are none, UsageError where the file cannot be written.
    """
    train, tests = report.clean
    tests = {name: pairs for name, pairs in tests.items() if pairs}
    if not train and not tests:
        raise DataError(f"no pair that can be used is left for {path}", "see the faults above")
    try:
        write_list(path, train, tests)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "choose another name or folder") from error
    before = {each.name: len(each.pairs) for each in report.sets if not each.trains}
    words = [f"{len(train)} training pairs"] if train else []
    words += [f"{len(pairs)} of the {before[name]} of {name}" for name, pairs in tests.items()]
    return ", ".join(words)


def refuse_faults(report: Report, command: Sequence[str], clean: Path | None) -> None:
    """Raise DataError where there are faults; `command` is what was typed, to be typed again with a list."""
    if not report.faults:
        return
    count = f"{len(report.faults)} fault{'s' if len(report.faults) > 1 else ''} found"
    if clean is not None:
        raise DataError(count, shlex.join(["camox", "train", "--dataset-path", str(clean)]))
    raise DataError(
        f"{count}; a list of the pairs that can be used would leave them out",
        shlex.join(["camox", *command, "--write-clean", "clean.json"]),
    )


def kind_in_words(kind: str) -> str:
    """What a kind of fault means, for a headline."""
    return KINDS[kind][0].upper() + KINDS[kind][1:]


def to_json(report: Report) -> dict[str, Any]:
    """The whole report in plain types; sizes are [height, width], areas shares 0..1 of a picture."""
    return {
        "sets": [_set_to_json(each) for each in report.sets],
        "notes": report.notes,
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


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "camox_list" in content
