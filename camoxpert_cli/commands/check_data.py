from __future__ import annotations

import json
import shlex
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.options import AsJson, Quiet, file_path
from camoxpert_cli.config.parse import describe_unpaired
from camoxpert_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from camoxpert_cli.data.check import Fault, Report, SetReport

# Problems shown of each kind; --json has them all.
_MOST_SHOWN = 10


def check_data(
    roots: Annotated[list[Path] | None, typer.Argument(metavar="DIR", help="Dataset folders, as for train.")] = None,
    images: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Folder (any name) of images; requires --masks.")
    ] = None,
    masks: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="Folder of the masks of --images.")] = None,
    val_images: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Folder of validation images; requires --val-masks.")
    ] = None,
    val_masks: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Folder of the masks of --val-images.")
    ] = None,
    include_noncam: Annotated[
        bool,
        typer.Option(
            "--include-noncam",
            help="Also use COD10K's NonCAM images, which show nothing camouflaged: as images without an object.",
        ),
    ] = False,
    empty_as_negatives: Annotated[
        bool,
        typer.Option(
            "--empty-as-negatives",
            help="Treat training and validation images whose masks mark nothing as images without an object, like "
            "--negatives.",
        ),
    ] = False,
    write_clean: Annotated[
        Path | None,
        typer.Option(
            metavar="LIST",
            parser=file_path,
            help="Write the usable pairs to a .json file, for --dataset-path.",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Read every image and mask once and report problems.

    Finds images without masks and masks without images; unreadable or truncated files; masks that have the wrong size
    or are empty, all foreground, inverted, in color or not binary; images rotated by EXIF; duplicates within a set;
    images that occur in both the training and the validation set, and training or validation images that also occur
    in a test set. Exits with code 3 if there are problems, or if a folder contains no image-mask pairs.

    \b
    Examples:
      camox check-data COD10K-v3
      camox check-data COD10K-v3 CAMO --write-clean clean.json
      camox train --dataset-path clean.json
      camox check-data COD10K-v3 --json > report.json
    """
    from camoxpert_cli.data import check as engine

    for flags, first, second in (
        (("--images", "--masks"), images or [], masks or []),
        (("--val-images", "--val-masks"), val_images or [], val_masks or []),
    ):
        if len(first) != len(second):
            raise UsageError(
                describe_unpaired(flags[0], flags[1], len(first), len(second)), "give as many of one as of the other"
            )
    if not roots and not images and not val_images:
        raise UsageError("no dataset folder was given", "camox check-data DIR")
    if write_clean is not None:
        engine.refuse_list(write_clean)
    folders = list(zip(images or [], masks or [], strict=True))
    validation = list(zip(val_images or [], val_masks or [], strict=True))
    report = engine.check_data(
        roots or [], folders, validation, include_noncam=include_noncam, empty_as_negatives=empty_as_negatives
    )
    try:
        if as_json:
            console.result(json.dumps(_to_json(report), indent=2))
        else:
            console.result("\n".join([*_sets(_to_json(report)), "", *_faults(report.faults)]))
    finally:  # also if the report cannot be printed
        if write_clean is not None:
            engine.write_clean(report, write_clean)
    if write_clean is not None:
        (console.say if as_json else console.result)(f"Written: {write_clean}, {_left(report)}")
    named = [text for pair in folders for text in ("--images", str(pair[0]), "--masks", str(pair[1]))]
    named += [text for pair in validation for text in ("--val-images", str(pair[0]), "--val-masks", str(pair[1]))]
    typed = ["check-data", *map(str, roots or []), *named, *(["--include-noncam"] if include_noncam else [])]
    typed += ["--empty-as-negatives"] if empty_as_negatives else []
    if report.faults:
        _refuse(len(report.faults), typed, write_clean)


def _refuse(faults: int, command: list[str], clean: Path | None) -> NoReturn:
    """Raise DataError; `command` is what was typed, to be repeated with --write-clean if no list was written."""
    count = f"{console.counted(faults, 'problem')} found"
    if clean is not None:
        raise DataError(count, shlex.join(["camox", "train", "--dataset-path", str(clean)]))
    raise DataError(
        f"{count}; --write-clean writes a list of the usable pairs only",
        shlex.join(["camox", *command, "--write-clean", "clean.json"]),
    )


def _left(report: Report) -> str:
    """Return how many pairs are usable, in words."""
    train, tests, validation = report.clean
    before = {each.name: len(each.pairs) for each in report.sets if each.use == "test"}
    words = [console.counted(len(train), "training pair")] if train else []
    words += [console.counted(len(validation), "validation pair")] if validation else []
    words += [
        f"{len(pairs)} of {console.counted(before[name], 'test pair')} of {name}" for name, pairs in tests.items()
    ]
    return ", ".join(words)


def _to_json(report: Report) -> dict[str, Any]:
    """Return the whole report as plain types; sizes are [height, width], areas are fractions of the image, 0 to 1."""
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
        "role": report.use,
        "images": report.images,
        "masks": report.masks,
        "pairs": len(report.pairs),
        "left_out_noncam": report.left_out,
        "sizes": {name: list(size) for name, size in sizes.items()},
        "areas": {
            "smallest": min(areas),
            "median": median(areas),
            "largest": max(areas),
            "small_objects": report.small_objects,
        }
        if areas
        else {},
        "super_classes": dict(sorted(report.super_classes.items())),
        "classes": dict(sorted(report.classes.items())),
    }


def _sets(report: dict[str, Any]) -> list[str]:
    from camoxpert_cli.data.reading import SMALL_OBJECT

    small_object = f"below {SMALL_OBJECT:.0%}"
    header = ["", "images", "masks", "smallest", "median", "largest", "object area", small_object]
    rows = []
    for each in report["sets"]:
        sizes = ["×".join(map(str, size[::-1])) for size in each["sizes"].values()] or ["", "", ""]
        areas = each["areas"]
        area = "{smallest:.1%} to {largest:.1%}, median {median:.1%}".format(**areas) if areas else ""
        small = str(areas["small_objects"]) if areas else ""
        files = [str(each["images"]), str(each["masks"])]
        rows.append([f"{each['role']} {each['name']}", *files, *sizes, area, small])
    lines = [console.table(header, rows), *report["notes"]]
    for each in report["sets"]:
        title = f"{each['role']} {each['name']}"
        if each["left_out_noncam"]:
            lines.append(f"{title}: skipped {console.counted(each['left_out_noncam'], 'NonCAM image')}")
        for name in ("super_classes", "classes"):
            if each[name]:
                counts = ", ".join(f"{key} {count}" for key, count in each[name].items())
                lines.append(f"{title}, {name.replace('_', '')}: {counts}")
    return lines


def _faults(faults: list[Fault]) -> list[str]:
    from camoxpert_cli.data.check import KINDS

    if not faults:
        return ["No problems found."]
    lines = []
    for kind, group in groupby(faults, key=lambda fault: fault.kind):
        members = list(group)
        lines.append(f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}: {len(members)}")
        lines += [f"  {fault.path}: {fault.detail}" for fault in members[:_MOST_SHOWN]]
        if len(members) > _MOST_SHOWN:
            lines.append(f"  and {len(members) - _MOST_SHOWN} more, see --json")
        lines += [f"  {each.repair}" for each in members if each.repair][:1]
        if kind == "empty":
            lines.append("  if these images show no object: add --empty-as-negatives, here and to camox train")
    return lines
