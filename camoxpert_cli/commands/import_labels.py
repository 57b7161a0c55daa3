from __future__ import annotations

import shlex
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.options import Quiet

if TYPE_CHECKING:
    from camoxpert_cli.labels.import_labels import Imported

_MOST_NAMES, _MOST_CLASSES = 3, 10


def import_labels(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="File or folder of labels.")],
    out: Annotated[Path, typer.Option(metavar="DATA", help="Folder to write, new or empty.")],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the images, including its subfolders; that of SOURCE if not given."
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Class that is the foreground, by name or number; may be repeated. All classes if not given.",
        ),
    ] = None,
    keep_empty: Annotated[
        bool,
        typer.Option(
            "--keep-empty",
            help="Copy images without an object of these classes, and images without labels, to DATA/negatives.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Turn labels of other programs into masks for training.

    SOURCE is recognized by its content: a COCO JSON file (polygons or RLE), a CVAT XML file (for images 1.1), or a
    folder of YOLO segmentation text files, of labelme JSON files, of index masks (each pixel is the number of a class)
    or of images with a transparent background. The mask of an image is the union of all its objects.

    Writes DATA/TrainDataset/Imgs and DATA/TrainDataset/GT, and lists skipped images in DATA/skipped.csv. Images are
    copied; nothing is overwritten.

    \b
    Examples:
      camox import-labels instances.json --images photos --out DATA
      camox import-labels labels --images images --out DATA --class fox
      camox import-labels cutouts --out DATA
      camox train --dataset-path DATA
    """
    from camoxpert_cli.labels.import_labels import import_labels as run

    done = run(source, images, out, classes=classes or [], keep_empty=keep_empty)
    console.result("\n".join(_summary(done, source, out)))


def _summary(done: Imported, source: Path, out: Path) -> list[str]:
    from camoxpert_cli.labels.import_labels import IMAGES, MASKS, NEGATIVES, SKIPPED

    shown = [f"{name} ({count})" for name, count in [*done.classes.items()][:_MOST_CLASSES]]
    if len(done.classes) > _MOST_CLASSES:
        shown.append(f"{len(done.classes) - _MOST_CLASSES} more classes")
    lines = [f"{source}: {done.format}; objects by class: {', '.join(shown)}", *done.notes]
    area = f"object area {min(done.areas):.1%} to {max(done.areas):.1%}, median {median(done.areas):.1%}"
    pairs = console.counted(len(done.areas), "image with its mask", "images with their masks")
    lines.append(f"Written: {pairs} in {out / IMAGES} and {MASKS.name}; {area}")
    if done.resized:
        lines.append(
            f"{console.counted(done.resized, 'image has', 'images have')} another size than the labels state, at the "
            "same aspect ratio: masks were resized to the images"
        )
    if done.negatives:
        lines.append(f"Written: {console.counted(done.negatives, 'image')} without an object in {out / NEGATIVES}")
    for reason, names in done.skipped.items():
        listed = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
        lines.append(f"Skipped {console.counted(len(names), 'image')}, {reason}: {listed}")
    for problem, count in done.problems.most_common():
        lines.append(f"Skipped {console.counted(count, 'object')}: {problem}")
    if done.partly:
        lines.append(f"{console.counted(done.partly, 'mask lacks', 'masks lack')} one of these objects or more")
    if done.skipped:
        lines.append(f"All skipped images: {out / SKIPPED}")
    negatives = ["--negatives", str(out / NEGATIVES)] if done.negatives else []
    train = shlex.join(["camox", "train", "--preset", "finetune", "--dataset-path", str(out), *negatives])
    lines.append(f"Next: {shlex.join(['camox', 'check-data', str(out)])}, then {train}")
    return lines
