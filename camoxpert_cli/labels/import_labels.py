"""Turns labels of other programs into folders of images and masks for training."""

from __future__ import annotations

import csv
import math
import shlex
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli import console
from camoxpert_cli.data.headers import stated_size
from camoxpert_cli.data.layouts import IMAGE_SUFFIXES
from camoxpert_cli.data.reading import MOST_MASK_PIXELS, decode, read_bytes
from camoxpert_cli.data.sizes import is_same_shape
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.data.writing import encoded
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.labels.alpha import FORMAT as ALPHA
from camoxpert_cli.labels.choose import choose
from camoxpert_cli.labels.find_image import Images
from camoxpert_cli.labels.index_masks import FORMAT as INDEX_MASKS
from camoxpert_cli.labels.labelled import LabelledImage, LabelledObject, Labels
from camoxpert_cli.labels.recognize import files_below, read_labels
from camoxpert_cli.targets import check_folder

IMAGES, MASKS = Path("TrainDataset", "Imgs"), Path("TrainDataset", "GT")
NEGATIVES = Path("negatives")
SKIPPED = "skipped.csv"

NO_LABEL = "no label"
NO_OBJECT = "no object of the chosen classes"
NO_AREA = "no object with an area"
NOT_FOUND = "image not found"
SEVERAL = "several images fit the name in the labels"
CLAIMED = "several labels for the same image"
UNREADABLE = "image cannot be read"
OTHER_SIZE = "size differs from the labels"
_EMPTY = "outside the image, or smaller than a pixel"
_NOTHING = "pass the folder of the images with --images DIR; see camox guide data"
_TEMPORARY = ".camox-import-"


@dataclass
class Imported:
    """What was written and what was not.

    `classes` are the chosen ones with the number of their objects, `areas` the object's share of each mask, 0..1.
    `skipped` lists images by reason, `problems` counts objects that are in no mask by reason, `partly` is the number of
    masks that lack such an object. `resized` is the number of masks whose labels were drawn for another size.
    """

    format: str
    classes: dict[str, int]
    notes: list[str]
    areas: list[float] = field(default_factory=list)
    negatives: int = 0
    resized: int = 0
    partly: int = 0
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    problems: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Task:
    """The image at `path` to be written as `stem` with its suffix, and its labels; None for one without an object.

    `objects` are those of the chosen classes. With `is_embedded`, the labels contain the image.
    """

    path: Path
    stem: str = ""
    labelled: LabelledImage | None = None
    objects: tuple[LabelledObject, ...] = ()
    is_embedded: bool = False


@dataclass(frozen=True)
class _Done:
    """What became of a task: the share of the object, 0 without one, or the reason why nothing was written."""

    area: float = 0.0
    reason: str = ""
    problems: tuple[str, ...] = ()
    is_resized: bool = False


def import_labels(
    source: Path, images: Path | None, out: Path, *, classes: Sequence[str] = (), keep_empty: bool = False
) -> Imported:
    """Write the images and masks of labels to `out`, with a list of the images that were skipped.

    `images` is the folder of the images, that of the labels if None. The union of all objects of the `classes`, given
    by name or number, is the mask; without `classes`, that of all objects. Images without an object are left out, or
    with `keep_empty` copied to a folder of their own. Raises UsageError if `out` is not empty or `images` is needed or
    must not be given, and DataError if labels are malformed or no mask remains; nothing is written then.
    """
    _refuse_full(out)
    labels = read_labels(source)
    if labels.format == INDEX_MASKS and images is None:
        raise UsageError(f"{source} contains masks only", "pass the folder of their images with --images DIR")
    if labels.format == ALPHA and images is not None:
        raise UsageError(f"the images in {source} contain their masks as transparency", "leave out --images")
    done = Imported(labels.format, choose(labels, classes), labels.notes)
    tasks = _plan(labels, source, images, done, keep_empty=keep_empty)
    with _new_folder(out) as new:
        for each in (IMAGES, MASKS):
            (new / each).mkdir(parents=True)
        if any(task.labelled is None for task in tasks):
            (new / NEGATIVES).mkdir()
        _write_all(new, tasks, done)
        if not done.areas:
            raise DataError(f"{source}: no mask could be made, {_reasons(done)}", _NOTHING)
        if done.skipped:
            _write_skipped(new / SKIPPED, done)
    return done


def _plan(labels: Labels, source: Path, images: Path | None, done: Imported, *, keep_empty: bool) -> list[_Task]:
    """What is to be written; counts in `done` what is not."""
    tasks = []
    if labels.format == ALPHA:
        folder, paths, found = source, [], [[source / each.names[0]] for each in labels.images]
    else:
        folder = images or (source if source.is_dir() else source.parent)
        paths = files_below(folder, IMAGE_SUFFIXES)
        if labels.format == INDEX_MASKS:  # which may be in a folder below that of the images
            paths = [path for path in paths if not path.resolve().is_relative_to(source.resolve())]
        if not paths and not any(each.content for each in labels.images):
            raise DataError(f"no images in {folder}", "pass the folder of the images with --images DIR")
        known = Images(folder, paths)
        found = [known.find(each.names) for each in labels.images]
    claims = Counter(path for several in found for path in several)
    for labelled, several in zip(labels.images, found, strict=True):
        objects = tuple(each for each in labelled.objects if each.name in done.classes)
        name = labelled.names[0]
        if len(several) > 1:
            done.skipped[SEVERAL].append(name)
        elif not several and labelled.content is None:
            done.skipped[NOT_FOUND].append(name)
        elif several and claims[several[0]] > 1:
            done.skipped[CLAIMED].append(name)
        elif objects and not any(each.draw for each in objects):
            done.skipped[NO_AREA].append(name)
            done.problems.update(each.problem for each in objects)
        elif objects:
            is_embedded = labels.format == ALPHA or not several
            path = several[0] if several else folder / labelled.names[-1]
            tasks.append(_Task(path, "", labelled, objects, is_embedded))
        elif keep_empty and several:
            tasks.append(_Task(several[0]))
        else:
            done.skipped[NO_OBJECT].append(name)
    for path in paths:
        if path not in claims and keep_empty:
            tasks.append(_Task(path))
        elif path not in claims:
            done.skipped[NO_LABEL].append(path.relative_to(folder).as_posix())
    stems = unique_stems([task.path.relative_to(folder) for task in tasks])
    return [replace(task, stem=stem) for task, stem in zip(tasks, stems, strict=True)]


def unique_stems(paths: Sequence[PurePath]) -> list[str]:
    """Return a name without suffix for each path: its stem, or if others have the same one, with its folders.

    Names differ in more than case, because some disks do not tell case apart.
    """
    counts = Counter(path.stem.casefold() for path in paths)
    taken: set[str] = set()
    stems = []
    for path in paths:
        first = path.stem if counts[path.stem.casefold()] == 1 else "_".join(path.with_suffix("").parts)
        stem, number = first, 2
        while stem.casefold() in taken:
            stem, number = f"{first}-{number}", number + 1
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _write_all(new: Path, tasks: Sequence[_Task], done: Imported) -> None:
    # Closed before the folder is removed: after an error, no thread writes to it any more.
    with (
        closing(in_threads(partial(_write, new), tasks)) as outcomes,
        console.progress("Importing", len(tasks)) as advance,
    ):
        for task, outcome in zip(tasks, outcomes, strict=True):
            _count(done, task, outcome)
            advance(1, task.stem)


def _write(new: Path, task: _Task) -> _Done:
    """Write an image and its mask."""
    labelled = task.labelled
    try:
        content = labelled.content() if task.is_embedded and labelled and labelled.content else read_bytes(task.path)
        pixels = decode(task.path, content, cv2.IMREAD_COLOR)
    except DataError:
        return _Done(reason=UNREADABLE)
    name = f"{task.stem}{_suffix(content) if task.is_embedded else task.path.suffix}"
    if labelled is None:
        shutil.copy2(task.path, new / NEGATIVES / name)
        return _Done()
    size = (pixels.shape[0], pixels.shape[1])
    drawn_for = drawn_size(labelled.size, size, stated_size(content) or size)
    if drawn_for is None:
        return _Done(reason=OTHER_SIZE)
    mask, problems = _draw(task.objects, drawn_for)
    # Labels may have been drawn on the image as stored, which training recognizes by the size of the mask.
    is_resized = drawn_for not in (size, size[::-1])
    if is_resized:
        mask = np.asarray(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)
    if not mask.any():
        return _Done(reason=NO_AREA, problems=problems)
    (new / MASKS / f"{task.stem}.png").write_bytes(encoded(".png", mask))
    if task.is_embedded:
        (new / IMAGES / name).write_bytes(content)
    else:
        shutil.copy2(task.path, new / IMAGES / name)
    return _Done(float((mask > 0).mean()), "", problems, is_resized)


def drawn_size(
    labels: tuple[int, int] | None, image: tuple[int, int], stored: tuple[int, int]
) -> tuple[int, int] | None:
    """Return the size (height, width) at which to draw labels for an image; None if they cannot be of this image.

    `labels` is the size that they state, if any, `stored` that of the image before it is rotated by EXIF. Labels are
    drawn on what a viewer shows, unless only the stored orientation has their size. Those of an image that was shrunk
    or enlarged since are drawn at their own size.
    """
    if labels is None or labels == image:
        return image
    if labels == stored:
        return stored
    return labels if math.prod(labels) <= MOST_MASK_PIXELS and is_same_shape(labels, image) else None


def _draw(objects: Sequence[LabelledObject], size: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """The union of all objects, uint8 (H, W) of 0 and 255, and the problems of those that are not in it."""
    mask = np.zeros(size, np.uint8)
    problems = []
    for each in objects:
        if each.draw is None:
            problems.append(each.problem)
            continue
        before = cv2.countNonZero(mask)
        each.draw(mask)
        if cv2.countNonZero(mask) == before:
            alone = np.zeros(size, np.uint8)  # within another object, perhaps
            each.draw(alone)
            if not alone.any():
                problems.append(_EMPTY)
    return mask, tuple(problems)


def _count(done: Imported, task: _Task, outcome: _Done) -> None:
    done.problems.update(outcome.problems)
    if outcome.reason:
        done.skipped[outcome.reason].append(task.labelled.names[0] if task.labelled else str(task.path))
    elif task.labelled is None:
        done.negatives += 1
    else:
        done.areas.append(outcome.area)
        done.resized += outcome.is_resized
        done.partly += bool(outcome.problems)


def _reasons(done: Imported) -> str:
    return ", ".join(f"{console.counted(len(names), 'image')}: {reason}" for reason, names in done.skipped.items())


def _suffix(content: bytes) -> str:
    return ".png" if content.startswith(b"\x89PNG") else ".jpg"


def _write_skipped(path: Path, done: Imported) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "reason"])
        rows.writerows((name, reason) for reason, names in done.skipped.items() for name in names)


def _refuse_full(out: Path) -> None:
    """Raise UsageError unless `out` is an empty folder, or can be created. Ignores what browsing a folder leaves."""
    hint = "choose another folder with --out DATA"
    check_folder(out, hint)
    if not out.is_dir():
        return
    for each in sorted(out.iterdir()):
        if each.name.startswith(_TEMPORARY):
            raise UsageError(
                f"another import writes to {out}, or one was killed",
                f"choose another folder with --out DATA, or after a killed one: rm -r {shlex.quote(str(each))}",
            )
        if not each.name.startswith("."):
            raise UsageError(f"{out} is not empty, it contains {each.name}", hint)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder whose content moves to `out` on exit; after an exception, nothing is left of it or of `out`."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        # Within it, because it may be the root of a disk.
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=out, ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
            for each in sorted(Path(temporary).iterdir()):
                each.rename(out / each.name)
    except BaseException:
        if is_new:
            with suppress(OSError):
                out.rmdir()
        raise
