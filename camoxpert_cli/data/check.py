"""Checks a dataset: reads every file once and reports each problem with its kind, path and details."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli import atomic, console
from camoxpert_cli.data.cod10k import NOT_CAMOUFLAGED, class_name, super_class
from camoxpert_cli.data.duplicates import Fingerprint, details_of, find_duplicates
from camoxpert_cli.data.layouts import Files, Use, describe_nothing, find_sets, list_files
from camoxpert_cli.data.levels import UnclearError, foreground_of, levels_of
from camoxpert_cli.data.pairs import LARGEST_LIST, VERSION, Pair, is_list, write_list
from camoxpert_cli.data.reading import (
    SMALL_OBJECT,
    CutOffError,
    decode,
    format_image_size,
    read_bytes,
    read_single,
    repair_command,
)
from camoxpert_cli.data.sizes import is_same_shape
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.regular_file import read_regular
from camoxpert_cli.targets import check_parent, check_targets

# The meaning of each kind of problem, in the order in which they are shown.
KINDS = {
    "no pairs": "folders without any image-mask pair",
    "no mask": "images without a mask",
    "no image": "masks without an image",
    "same name": "files in one folder that share a name",
    "unreadable": "files that cannot be decoded as an image",
    "truncated": "truncated files",
    "size": "masks whose size differs from their image",
    "not binary": "masks with values other than black and white",
    "color": "masks in color",
    "empty": "masks without an object",
    "full": "masks that mark every pixel as object",
    "inverted": "masks whose object surrounds the background",
    "rotation": "images with an EXIF rotation",
    "duplicate": "images that occur more than once in a set",
    "leak": "training images also in validation or test data, and validation images also in test data",
}

# JPEG changes gray values by a few levels, so black and white are ranges; antialiased outlines stay below this share.
_DARK, _BRIGHT = 25, 230
_MOST_GREY = 0.02
_SURROUNDED = 0.95  # of the outline of a mask


@dataclass(frozen=True)
class Fault:
    """One problem. `kind` is one of `KINDS`; `trainable` is True if the pair can be used anyway.

    `repair` is a command that fixes masks whose values are ambiguous.
    """

    kind: str
    set: str
    path: Path
    detail: str
    trainable: bool = False
    repair: str = ""


@dataclass
class SetReport:
    """One set of images and masks: its files and pairs, and statistics of the readable ones.

    `use` is the role that `find_data` would give it. `left_out` counts NonCAM images, `unread` describes other skipped
    files. `sizes` are (height, width) in pixels, `areas` the object's share of each image, 0..1.
    """

    name: str
    use: Use
    images: int
    masks: int
    left_out: int
    unread: str = ""
    pairs: list[Pair] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Role and name, which identify the set."""
        return f"{self.use} {self.name}"

    @property
    def small_objects(self) -> int:
        """Number of images whose object covers less than `SMALL_OBJECT`."""
        return sum(area < SMALL_OBJECT for area in self.areas)

    @property
    def super_classes(self) -> Counter[str]:
        """Number of images by superclass, if file names contain it."""
        return Counter(name for pair in self.pairs if (name := super_class(pair.name)))

    @property
    def classes(self) -> Counter[str]:
        """Number of images by class, if file names contain it."""
        return Counter(name for pair in self.pairs if (name := class_name(pair.name)))


@dataclass
class Report:
    """Sets and problems of a dataset check; `notes` list what was skipped."""

    sets: list[SetReport]
    faults: list[Fault]
    notes: list[str]

    @property
    def clean(self) -> tuple[list[Pair], dict[str, list[Pair]], list[Pair]]:
        """Usable training pairs, test sets and validation pairs; test sets without usable pairs are left out."""
        faulty = {fault.path for fault in self.faults if not fault.trainable}
        parts: dict[Use, list[Pair]] = {"train": [], "val": []}
        tests: dict[str, list[Pair]] = {}
        for each in self.sets:
            pairs = [pair for pair in each.pairs if pair.image not in faulty and pair.mask not in faulty]
            (tests.setdefault(each.name, []) if each.use == "test" else parts[each.use]).extend(pairs)
        return parts["train"], {name: pairs for name, pairs in tests.items() if pairs}, parts["val"]


@dataclass(frozen=True)
class _Examined:
    """What was learned from one pair of files; None for what could not be read."""

    faults: tuple[Fault, ...]
    size: tuple[int, int] | None = None
    area: float | None = None
    fingerprint: Fingerprint | None = None


class _Kept(NamedTuple):
    """A readable image, to be compared with the others."""

    report: SetReport
    pair: Pair
    fingerprint: Fingerprint
    is_usable: bool


def check(
    roots: Sequence[Path],
    folders: Sequence[tuple[Path, Path]] = (),
    validation: Sequence[tuple[Path, Path]] = (),
    *,
    include_noncam: bool,
    empty_as_negatives: bool = False,
    progress: Callable[[int], Callable[[int, str], None]],
) -> Report:
    """Read every file of the datasets under `roots` and of explicit image and mask `folders`; report all problems.

    `validation` lists image and mask folders to validate on. With `empty_as_negatives`, masks may be empty.

    `progress` receives the number of pairs and returns a function that receives the number of newly finished ones.
    Raises DataError for a folder whose layout is unknown and for two test sets with the same name.
    """
    sets, notes = find_sets(roots, folders, validation)
    listed = []
    faults: list[Fault] = []
    seen: set[Path] = set()
    for found in sets:
        split = found.folders
        files = list_files(split.images, split.masks, split.sharing, include_noncam=include_noncam)
        report = SetReport(split.name, found.use, len(files.images), len(files.masks), files.left_out, files.unread)
        if not (files.pairs or files.lone_images or files.lone_masks):
            faults.append(Fault("no pairs", report.title, split.images, describe_nothing(split, files)))
        # A dataset and a part of it may both be given.
        report.pairs = [pair for pair in files.pairs if pair.image.absolute() not in seen]
        seen.update(pair.image.absolute() for pair in report.pairs)
        listed.append((report, files))
    kept: list[_Kept] = []
    advance = progress(sum(len(report.pairs) for report, _ in listed))
    for report, files in listed:
        faults += _of_names(report.title, files)
        for pair, examined in zip(
            report.pairs, in_threads(partial(_examine, report, empty_as_negatives), report.pairs), strict=True
        ):
            advance(1, pair.name)
            faults += examined.faults
            if examined.size is not None:
                report.sizes.append(examined.size)
            if examined.area is not None:
                report.areas.append(examined.area)
            if examined.fingerprint is not None:
                is_usable = all(fault.trainable for fault in examined.faults)
                kept.append(_Kept(report, pair, examined.fingerprint, is_usable))
    faults += _repeated(kept)
    order = list(KINDS)
    faults = sorted(set(faults), key=lambda fault: (order.index(fault.kind), fault.set, fault.path))
    words = [f"{root}: {note}" for root, passed_over in notes.items() for note in passed_over]
    words += [f"{report.title}: {report.unread}" for report, _ in listed if report.unread]
    return Report([report for report, _ in listed], faults, words)


def _of_names(name: str, files: Files) -> Iterator[Fault]:
    for path in files.lone_images:
        yield Fault("no mask", name, path, "no mask has the same name")
    for path in files.lone_masks:
        yield Fault("no image", name, path, "no image has the same name")
    for first, *others in files.clashes:
        for other in others:
            yield Fault("same name", name, other, f"{first.name} has the same name", trainable=True)


def _examine(report: SetReport, may_be_empty: bool, pair: Pair) -> _Examined:
    name = report.title
    faults: list[Fault] = []
    image, stored = None, None
    try:
        content = read_bytes(pair.image)
        image = decode(pair.image, content, cv2.IMREAD_COLOR)
        stored = _stored_size(content)
    except DataError as error:
        faults.append(_unreadable(name, pair.image, error))
    raw = None
    try:
        raw = read_single(pair.mask)
    except DataError as error:
        faults.append(_unreadable(name, pair.mask, error))
    area = None
    if raw is not None:
        # An image without a camouflaged object has nothing to mark.
        may_be_empty = may_be_empty or pair.name.startswith(NOT_CAMOUFLAGED)
        repair = ""
        try:
            area = float(foreground_of(raw).mean())
        except UnclearError:
            repair = repair_command(pair.mask, raw)
        faults += (Fault(kind, name, pair.mask, detail, False, repair) for kind, detail in _of_mask(raw, may_be_empty))
    if image is None:
        return _Examined(tuple(faults), None, area)
    size = (image.shape[0], image.shape[1])
    if raw is not None:
        faults += _of_fit(report, pair, size, (raw.shape[0], raw.shape[1]), stored)
    digest = hashlib.blake2b(f"{size}".encode(), digest_size=16)
    digest.update(image.data)
    return _Examined(tuple(faults), size, area, Fingerprint(details_of(image), digest.digest()))


def _unreadable(name: str, path: Path, error: DataError) -> Fault:
    detail = error.message.replace(str(path), "").strip()
    return Fault("truncated" if isinstance(error, CutOffError) else "unreadable", name, path, detail)


def _of_fit(
    report: SetReport, pair: Pair, size: tuple[int, int], mask: tuple[int, int], stored: tuple[int, int] | None
) -> Iterator[Fault]:
    """Problems of sizes (height, width): of the image as decoded, of its mask, and as stored if EXIF rotates it."""
    if mask not in (size, stored):
        detail = f"{format_image_size(mask)}, but its image {pair.image.name} is {format_image_size(size)}"
        # Scores are computed at the mask's size, so a test mask may differ.
        can_be_scored = report.use == "test" and any(is_same_shape(each, mask) for each in (size, stored) if each)
        yield Fault("size", report.title, pair.mask, detail, trainable=can_be_scored)
    elif stored is not None:
        fits = "its mask fits "
        if size == stored:
            fits += "both orientations: check which one it was drawn on"
        else:
            fits += "the rotated image" if mask == size else "the image as stored"
            fits += ", which is how camox reads it"
        yield Fault("rotation", report.title, pair.image, fits, trainable=size != stored)


def _of_mask(raw: NDArray[Any], may_be_empty: bool) -> Iterator[tuple[str, str]]:
    """Kind and details of each problem with a mask's pixels."""
    try:
        levels = levels_of(raw)
        if levels.colour:
            yield "color", f"{levels.colour:.1%} of its pixels are in color"
            return
        foreground = foreground_of(raw)
    except UnclearError as error:
        yield "not binary", str(error)
        return
    grey = levels.grey
    between = 0.0 if levels.from_alpha else float(np.mean((grey > _DARK) & (grey < _BRIGHT)))
    if between > _MOST_GREY:
        yield "not binary", f"{between:.1%} of its pixels are neither black nor white"
        return
    area = float(foreground.mean())
    outline = np.concatenate([foreground[0], foreground[-1], foreground[:, 0], foreground[:, -1]])
    if area == 0:
        if not may_be_empty:
            yield "empty", "marks no pixel"
    elif area == 1:
        yield "full", "marks every pixel"
    elif area > 0.5 and outline.mean() >= _SURROUNDED:
        yield "inverted", f"marks {area:.0%} of the image and {outline.mean():.0%} of its border"


def _repeated(kept: Sequence[_Kept]) -> Iterator[Fault]:
    """Duplicates within training data, validation data and each test set, and leaks; test sets may share images.

    Of training images whose pixels are identical one is enough; images that only look alike stay, because another
    animal may sit in front of the same background. Test sets stay complete, so that scores are comparable. An image
    that is in a test set in any form must be used neither for training nor for validation, and a validation image must
    not be used for training.
    """
    groups: dict[str, list[_Kept]] = {}
    # Usable ones first, because the first of a group stays.
    for each in sorted(kept, key=lambda each: not each.is_usable):
        groups.setdefault(each.report.title if each.report.use == "test" else each.report.use, []).append(each)
    for group in groups.values():
        for first, later in _find(group):
            is_copy = first.fingerprint.digest == later.fingerprint.digest
            detail = f"{'identical to' if is_copy else 'looks like'} {first.pair.image}"
            stays = not is_copy or later.report.use != "train"
            yield Fault("duplicate", later.report.title, later.pair.image, detail, trainable=stays)
    # Test images first and training images last, so that of two the later one is the one that must not be used.
    order: list[Use] = ["test", "val", "train"]
    for first, later in _find(sorted(kept, key=lambda each: order.index(each.report.use))):
        if later.report.use not in ("test", first.report.use):
            detail = f"also in {first.report.title}: {first.pair.image}"
            yield Fault("leak", later.report.title, later.pair.image, detail)


def _find(rows: Sequence[_Kept]) -> Iterator[tuple[_Kept, _Kept]]:
    for first, later in find_duplicates([row.fingerprint for row in rows]):
        yield rows[first], rows[later]


def _stored_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of an image as stored if OpenCV rotates it according to its EXIF orientation; otherwise None.

    The two ways of decoding are compared at a reduced size.
    """
    if b"Exif" not in content and b"eXIf" not in content:
        return None
    buffer = np.frombuffer(content, np.uint8)
    turned, stored = (
        cv2.imdecode(buffer, cv2.IMREAD_REDUCED_COLOR_8 | flag) for flag in (0, cv2.IMREAD_IGNORE_ORIENTATION)
    )
    if turned is None or stored is None or np.array_equal(turned, stored):
        return None
    whole = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if whole is None else (whole.shape[0], whole.shape[1])


def check_data(
    roots: Sequence[Path],
    folders: Sequence[tuple[Path, Path]],
    validation: Sequence[tuple[Path, Path]] = (),
    *,
    include_noncam: bool,
    empty_as_negatives: bool = False,
) -> Report:
    """Check all datasets and show progress. Raises DataError for a folder whose layout is unknown."""
    if lists := [root for root in roots if is_list(root)]:
        raise DataError(
            f"{lists[0]} is a list of pairs, expected a dataset folder", "pass the folders that contain its images"
        )
    with ExitStack() as stack:

        def progress(total: int) -> Callable[[int, str], None]:
            return stack.enter_context(console.progress("Checking", total))

        return check(
            roots,
            folders,
            validation,
            include_noncam=include_noncam,
            empty_as_negatives=empty_as_negatives,
            progress=progress,
        )


def refuse_list(path: Path) -> None:
    """Raise UsageError if the list of clean pairs cannot be written to `path` or would replace another kind of file."""
    if not is_list(path):
        raise UsageError(f"{path} is not a valid name for a list of pairs", "choose a name that ends in .json")
    check_parent(path)
    check_targets([path], "choose another name", is_ours=_is_ours, overwrite=True)
    atomic.sweep(path)


def write_clean(report: Report, path: Path) -> None:
    """Write the usable pairs to `path`.

    Raises DataError if there are none, UsageError if the file cannot be written.
    """
    train, tests, validation = report.clean
    if not (train or tests or validation):
        raise DataError(f"no usable pairs remain, so {path} was not written", "fix the problems listed above")
    try:
        write_list(path, train, tests, validation)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "choose another name or folder") from error


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(read_regular(path, LARGEST_LIST))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("camox_list") == VERSION
