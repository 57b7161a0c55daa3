from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camoxpert_cli import console

if TYPE_CHECKING:
    from camoxpert_cli.data.check import Fault

# Of each kind of fault, on a screen; --json has them all.
_MOST_SHOWN = 10


def check_data(
    roots: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Data set folders, as train takes them.")],
    include_noncam: Annotated[
        bool, typer.Option("--include-noncam", help="Read COD10K's NonCAM pictures too.")
    ] = False,
    write_clean: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="Write the pairs without a fault to a .json file that --dataset-path takes."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Read every picture and mask once, and say what is wrong.

    Finds pictures and masks without each other, files that are unreadable or cut off, masks that do not fit, are empty,
    full, inverted, in colour or not binary, pictures that EXIF turns, pictures that are twice in a set, and training
    pictures that are in a test set. Ends with exit code 3 where there are any.

    \b
    Examples:
      camox check-data COD10K-v3
      camox check-data COD10K-v3 CAMO --write-clean clean.json
      camox train --dataset-path clean.json
      camox check-data COD10K-v3 --json > report.json
    """
    from camoxpert_cli.data.check import KINDS
    from camoxpert_cli.engine.check_data import check_data as run
    from camoxpert_cli.engine.check_data import refuse_faults, to_json

    report = run(roots, include_noncam=include_noncam, clean=write_clean)
    content = to_json(report)
    if as_json:
        console.result(json.dumps(content, indent=2))
    else:
        console.result("\n".join([*_sets(content["sets"]), "", *_faults(report.faults, KINDS)]))
        if write_clean is not None:
            train, tests = report.clean
            counts = [f"{len(train)} training pairs", *(f"{len(pairs)} of {name}" for name, pairs in tests.items())]
            console.result(f"\nWritten: {write_clean}, {', '.join(counts)}")
    refuse_faults(report, roots, write_clean)


def _sets(sets: list[dict[str, Any]]) -> list[str]:
    header = ["", "pictures", "masks", "smallest", "median", "largest", "object's area", "below 3 %"]
    rows = []
    for each in sets:
        sizes = ["×".join(map(str, size[::-1])) for size in each["sizes"].values()] or ["", "", ""]
        areas = each["areas"]
        spread = [f"{areas[name]:.1%}" for name in ("smallest", "median", "largest")] if areas else []
        small = str(areas["small_objects"]) if areas else ""
        files = [str(each["images"]), str(each["masks"])]
        rows.append([f"{each['role']} {each['name']}", *files, *sizes, " ".join(spread), small])
    lines = [console.table(header, rows)]
    for each in sets:
        title = f"{each['role']} {each['name']}"
        if each["left_out_noncam"]:
            lines.append(f"{title}: {each['left_out_noncam']} NonCAM pictures left out")
        for name in ("super_classes", "classes"):
            if each[name]:
                counts = ", ".join(f"{key} {count}" for key, count in each[name].items())
                lines.append(f"{title}, {name.replace('_', '-')}: {counts}")
    return lines


def _faults(faults: list[Fault], kinds: dict[str, str]) -> list[str]:
    if not faults:
        return ["No faults."]
    lines = []
    for kind, group in groupby(faults, key=lambda fault: fault.kind):
        members = list(group)
        lines.append(f"{kinds[kind][0].upper()}{kinds[kind][1:]}: {len(members)}")
        lines += [f"  {fault.path}: {fault.detail}" for fault in members[:_MOST_SHOWN]]
        if len(members) > _MOST_SHOWN:
            lines.append(f"  and {len(members) - _MOST_SHOWN} more, see --json")
    return lines
