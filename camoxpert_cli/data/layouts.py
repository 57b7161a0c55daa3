"""Finds images and their masks by looking at how a folder is laid out."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Literal, TypeAlias

from camoxpert_cli.data.cod10k import NOT_CAMOUFLAGED
from camoxpert_cli.data.pairs import Pair, is_list, read_list
from camoxpert_cli.errors import DataError, nearest

_IMAGE_FOLDERS = ("image", "images", "imgs", "img", "im")
_MASK_FOLDERS = ("gt_object", "gt", "mask", "masks", "label", "labels")
_TRAIN_FOLDERS = ("train", "traindataset")
_VAL_FOLDERS = ("val", "valid", "validation", "valdataset", "validdataset", "validationdataset")
_TEST_FOLDERS = ("test", "testdataset")
# Of what OpenCV reads, what people keep pictures in.
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".avif"),
    *(".pgm", ".ppm", ".pbm", ".pnm"),
}
_LAYOUTS = (
    "expected Imgs + GT, Train/Image + Train/GT_Object, TrainDataset/Imgs + TrainDataset/GT or Images/Train + GT; "
    "for folders of any other names --images DIR --masks DIR"
)
# A read-me shows a few images; below a folder with this many, no data set is looked for.
_IMAGE_FOLDER = 20

Use: TypeAlias = Literal["train", "val", "test"]


@dataclass(frozen=True)
class DataSet:
    """Training pairs, test sets by name (either may be empty), and one line on what was found and left out.

    `validation` are pairs to validate on, none where some of the training pairs are to be held out.
    """

    train: tuple[Pair, ...]
    tests: dict[str, tuple[Pair, ...]]
    description: str
    validation: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Folders:
    """A folder of images with its folder of masks; `role` is "any" where no folder name tells what it is for."""

    role: Literal["train", "val", "test", "any"]
    name: str
    images: Path
    masks: Path
    sharing: tuple[Path, ...] = ()  # further image folders whose masks lie in `masks`


@dataclass(frozen=True)
class FoundSet:
    """Folders that belong to `root`, as it was given, and lie `below` it; what their pairs are for."""

    root: str
    folders: Folders
    below: Path | None
    use: Use


@dataclass(frozen=True)
class Files:
    """The files of a pair of folders by stem, each in the order of names: one file a stem, unless names clash.

    `owners` are the stems of all images whose masks may lie in the folder of masks, `left_out` the number of NonCAM
    images that were passed over, and `unread` says how many files were because OpenCV cannot read their format.
    """

    images: dict[str, list[Path]]
    masks: dict[str, list[Path]]
    owners: set[str]
    left_out: int
    unread: str = ""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """What has an image and a mask, the first of each where names clash."""
        return tuple(
            Pair(stem, paths[0], self.masks[stem][0]) for stem, paths in self.images.items() if stem in self.masks
        )

    @property
    def lone_images(self) -> list[Path]:
        return [path for stem, paths in self.images.items() if stem not in self.masks for path in paths]

    @property
    def lone_masks(self) -> list[Path]:
        return [path for stem, paths in self.masks.items() if stem not in self.owners for path in paths]

    @property
    def clashes(self) -> list[list[Path]]:
        """Files of one folder that share a stem."""
        return [paths for side in (self.images, self.masks) for paths in side.values() if len(paths) > 1]


def find_data(
    roots: Sequence[Path],
    *,
    folders: Sequence[tuple[Path, Path]] = (),
    validation: Sequence[tuple[Path, Path]] = (),
    scoring: bool = False,
    include_noncam: bool = False,
) -> DataSet:
    """The pairs of one or several data set folders, sorted by name within each folder of images.

    Knows COD10K-v3 (`Train/Image` + `Train/GT_Object`, `Test/...`), `TrainDataset` and `TestDataset/<SET>` with
    `Imgs` + `GT`, CAMO (`Images/Train`, `Images/Test` + `GT`) and one pair of folders (NC4K), in any case of letters.
    One pair of folders called neither train nor test is for training where no other root is, for people train on
    folders of their own; beside other training images, or where `scoring`, it is a test set. A root may also be a
    list of pairs in a file, see `read_list`. `folders` are image and mask folders whatever they are called: training
    pairs, or where `scoring` a test set; those of `validation`, and a folder `val` beside `train` or `test`, are to
    validate on. COD10K's NonCAM images are left out unless `include_noncam`.

    Raises DataError where a root is no known layout, has no pairs, its images and masks do not match, or a picture is
    to be trained and validated on.
    """
    if not roots and not folders:
        raise DataError("no data set folder was given", _LAYOUTS)
    train: dict[Path, Pair] = {}
    held_out: dict[Path, Pair] = {}
    tests: dict[str, tuple[Pair, ...]] = {}
    lines: dict[str, list[str]] = {}

    def add(known: dict[Path, Pair], kind: str, pairs: Sequence[Pair]) -> str:
        # A data set and a part of it, or a list of its pairs, may both be given.
        new = {path: pair for pair in pairs if (path := pair.image.absolute()) not in known}
        known.update(new)
        return f"{len(new)} {kind} pairs"

    def add_test(name: str, pairs: tuple[Pair, ...]) -> str:
        name = _test_name(name)
        for other, theirs in tests.items():
            _refuse_one_name(other, name, theirs[0].image.parent, pairs[0].image.parent)
        tests[name] = pairs
        return f"{len(pairs)} test pairs of {name}"

    roots = [*{Path(root).resolve(): Path(root) for root in roots}.values()]
    lists = [root for root in roots if is_list(root)]
    for path in lists:
        listed, listed_tests, listed_validation = read_list(path)
        lines[str(path)] = [
            add(train, "training", listed),
            *([add(held_out, "validation", listed_validation)] if listed_validation else []),
            *(add_test(name, pairs) for name, pairs in listed_tests.items()),
        ]
    rest = [root for root in roots if root not in lists]
    sets, notes = find_sets(rest, folders, validation, scoring=scoring, has_train=bool(train))
    for each in sets:
        pairs, remarks = _read(each, include_noncam)
        if each.use == "test":
            count = add_test(each.folders.name, pairs)
        else:
            count = add(*((train, "training") if each.use == "train" else (held_out, "validation")), pairs)
        lines.setdefault(each.root, []).append(count + remarks)
    for root, words in notes.items():
        lines.setdefault(root, []).extend(words)
    if both := train.keys() & held_out.keys():
        raise DataError(
            f"{len(both)} pictures are to be trained and validated on, such as {min(both)}",
            "give each picture for one of both",
        )
    description = "; ".join(f"{root}: {', '.join(parts)}" for root, parts in lines.items())
    return DataSet(tuple(train.values()), tests, description, tuple(held_out.values()))


def find_sets(
    roots: Sequence[Path],
    folders: Sequence[tuple[Path, Path]] = (),
    validation: Sequence[tuple[Path, Path]] = (),
    *,
    scoring: bool = False,
    has_train: bool = False,
) -> tuple[list[FoundSet], dict[str, list[str]]]:
    """What the roots and explicit folders are made of, and by root what was passed over; looks at no image.

    `has_train` where other training pairs are known already; the other arguments are those of `find_data`. Raises
    DataError for a root of no known layout and for two test sets of one name.
    """
    unique = {Path(root).resolve(): Path(root) for root in roots}.values()
    found: list[tuple[str, Path | None, list[Folders], list[str]]] = [
        (str(root), root, *find_folders(root)) for root in unique
    ]
    given: list[tuple[Use, tuple[Path, Path]]] = [
        *(("test" if scoring else "train", pair) for pair in folders),
        *(("val", pair) for pair in validation),
    ]
    for role, (images, masks) in given:
        if images.resolve() == masks.resolve():
            raise DataError(
                f"{images} cannot hold both pictures and masks",
                f"give the folder of their masks as --{'val-' if role == 'val' else ''}masks",
            )
        split = Folders(role, folder_above(images), images, masks)
        found.append((f"{images} + {masks}", None, [split], []))
    has_train = has_train or any(split.role == "train" for _, _, splits, _ in found for split in splits)
    sets = []
    tests: dict[str, Path] = {}
    for title, below, splits, _ in found:
        for split in splits:
            # A folder `val` that is itself what was given to score on is a test set.
            if split.role == "val" and not (scoring and below is not None and len(splits) == 1):
                use: Use = "val"
            else:
                trains = split.role == "train" or (split.role == "any" and not scoring and not has_train)
                use = "train" if trains else "test"
            if use == "test":
                split = replace(split, name=_test_name(split.name))
                for name, images in tests.items():
                    if images != split.images:
                        _refuse_one_name(name, split.name, images, split.images)
                tests[split.name] = split.images
            sets.append(FoundSet(title, split, below, use))
    return sets, {title: notes for title, _, _, notes in found if notes}


def folder_above(folder: Path) -> str:
    """The name of the folder that holds `folder`, which names its set: of CAMO/Imgs, CAMO; never `..` and the like."""
    whole = Path(os.path.abspath(folder))  # noqa: PTH100 -- Path keeps `..`, or follows links
    return whole.parent.name or whole.name


def find_under(folder: Path, depth: int = 4) -> list[Path]:
    """Folders that hold a known layout, sorted: `folder` itself, or any up to `depth` levels below it.

    Looks neither below a match nor below a folder full of images, and passes over what it may not read.
    """
    try:
        if _recognise(folder)[0]:
            return [folder]
        below = [] if depth == 0 or len(images_in(folder)[0]) > _IMAGE_FOLDER else _subfolders(folder)
    except DataError:
        return []
    return [match for each in below for match in find_under(each, depth - 1)]


def pair_folders(images: Path, masks: Path, files: Files | None = None) -> tuple[Pair, ...]:
    """Every image with the mask of its stem, sorted by name, of `files` where these folders have been listed already.

    Raises DataError where an image has no mask, a mask no image, or two files of a folder share a stem.
    """
    files = files or list_files(images, masks)
    if files.clashes:
        first, second, *_ = files.clashes[0]
        raise DataError(
            f"{first.parent} has two pictures of one name: {first.name} and {second.name}", "keep one of them"
        )
    problems = []
    if lone := [path.name for path in files.lone_images]:
        problems.append(f"{_first_of(lone, 'picture')} no mask in {masks}")
    if stray := [path.name for path in files.lone_masks]:
        problems.append(f"{_first_of(stray, 'mask')} no picture in {images}")
    if problems:
        raise DataError(
            "; ".join([*problems, *([files.unread] if files.unread else [])]),
            "a picture and its mask have the same name up to the extension; "
            "camox check-data DIR --write-clean clean.json lists what can be trained on",
        )
    return files.pairs


def list_files(images: Path, masks: Path, sharing: Sequence[Path] = (), *, include_noncam: bool = False) -> Files:
    """The images in `images` and the masks in `masks`, without COD10K's NonCAM ones unless `include_noncam`.

    `sharing`: further image folders whose masks lie in `masks` as well. Raises DataError for folders that cannot be
    looked into.
    """
    image_paths, other_images = images_in(images)
    mask_paths, other_masks = images_in(masks)
    image_files, left_out = _by_stem(image_paths, include_noncam)
    found = _by_stem(mask_paths, include_noncam)[0]
    owners = set(image_files).union(*(_by_stem(images_in(folder)[0], include_noncam)[0] for folder in sharing))
    return Files(image_files, found, owners, left_out, describe_unread(other_images + other_masks))


def find_folders(root: Path) -> tuple[list[Folders], list[str]]:
    """What a data set folder is made of, and what was passed over. Raises DataError for no known layout."""
    if not root.is_dir():
        if root.exists():
            raise DataError(f"{root} is a file, not a data set folder", "unpack an archive and give its folder")
        similar = nearest(root.name, [path.name for path in _subfolders(root.parent)] if root.parent.is_dir() else [])
        hint = f"did you mean {root.parent / similar[0]}?" if similar else "check the path for typing errors"
        raise DataError(f"there is no folder {root}", hint)
    splits, notes = _recognise(root)
    if not splits:
        above = [match for each in root.resolve().parents[:2] for match in find_under(each, 0)]
        known = find_under(root, 2) or above
        hint = f"give {known[0]}, which is one" if known else _LAYOUTS
        raise DataError(f"{root} is no data set of a known layout: it holds {_contents(root)}", hint)
    return splits, notes


def _recognise(root: Path) -> tuple[list[Folders], list[str]]:
    """The splits that the folder names promise, and what was passed over; looks at no file."""
    name, parent = root.resolve().name, root.resolve().parent.name
    role = _role(name)
    if folders := _image_and_mask_folders(root):
        # `COD10K-v3/Test` given alone is still the test set of COD10K-v3.
        found = _camo(name, *folders) or [Folders(role, name if role == "any" else parent, *folders)]
        return found, _left_out(_subfolders(root), folders)
    splits: list[Folders] = []
    notes: list[str] = []
    below = _subfolders(root)
    test = _child(below, _TEST_FOLDERS)
    parts: list[tuple[Use, Sequence[str]]] = [("train", _TRAIN_FOLDERS), ("val", _VAL_FOLDERS)]
    for use, names in parts:
        part = _child(below, names)
        if part and (folders := _image_and_mask_folders(part)):
            splits.append(Folders(use, name, *folders))
            notes += _left_out(_subfolders(part), folders)
        elif part:
            notes.append(f"left out {part.name}, which holds {_contents(part)}")
    if role == "test":
        name, test = parent, root
    if test and (folders := _image_and_mask_folders(test)):
        splits.append(Folders("test", name, *folders))
    elif test:
        for each in _subfolders(test):
            if folders := _image_and_mask_folders(each):
                splits.append(Folders("test", each.name, *folders))
            else:
                notes.append(f"left out {each.relative_to(root)}, which holds {_contents(each)}")
    if splits:
        used = [_child(below, names) for names in (_TRAIN_FOLDERS, _VAL_FOLDERS, _TEST_FOLDERS)]
        others = [each for each in below if each not in used and _holds_pairs(each)]
        notes += [f"left out {each.name}, which is not the folder to train, validate or test on" for each in others]
    return splits, notes


def _left_out(below: Sequence[Path], used: Sequence[Path]) -> list[str]:
    """Of the folders beside those that are used the ones whose names say that they belong to a data set."""
    known = {*_IMAGE_FOLDERS, *_MASK_FOLDERS, *_TRAIN_FOLDERS, *_VAL_FOLDERS, *_TEST_FOLDERS}
    others = [each.name for each in below if each not in used and each.name.lower() in known]
    return [f"left out {name}, beside {' and '.join(each.name for each in used)}" for name in others]


def _camo(name: str, images: Path, masks: Path) -> list[Folders]:
    """CAMO keeps the masks of its training and test images in one folder; others keep a folder for each."""
    below, masks_below = _subfolders(images), _subfolders(masks)
    roles: dict[Use, Sequence[str]] = {"train": _TRAIN_FOLDERS, "val": _VAL_FOLDERS, "test": _TEST_FOLDERS}
    parts = {role: part for role, names in roles.items() if (part := _child(below, names))}
    return [
        Folders(role, name, part, own, ())
        if (own := _child(masks_below, roles[role]))
        else Folders(role, name, part, masks, tuple(other for other in parts.values() if other != part))
        for role, part in parts.items()
    ]


def _role(name: str) -> Literal["train", "val", "test", "any"]:
    if name.lower() in _VAL_FOLDERS:
        return "val"
    return "train" if name.lower() in _TRAIN_FOLDERS else "test" if name.lower() in _TEST_FOLDERS else "any"


def _read(found: FoundSet, include_noncam: bool) -> tuple[tuple[Pair, ...], str]:
    """The pairs of a set, and in words where they lie and what was left out. Raises DataError where it has none."""
    split = found.folders
    files = list_files(split.images, split.masks, split.sharing, include_noncam=include_noncam)
    pairs = pair_folders(split.images, split.masks, files)
    if not pairs:
        raise DataError(
            f"no pairs of picture and mask: {describe_nothing(split, files)}", f"pictures are {_in_words()} files"
        )
    remarks = []
    if found.below is not None:
        remarks.append(f"{split.images.relative_to(found.below)} + {split.masks.relative_to(found.below)}")
    if split.role == "any":
        remarks.append("its name says neither train nor test")
    if files.left_out:
        remarks.append(f"left out {files.left_out} NonCAM pictures, which show nothing camouflaged")
    if files.unread:
        remarks.append(files.unread)
    return pairs, f" ({'; '.join(remarks)})" if remarks else ""


def describe_nothing(split: Folders, files: Files) -> str:
    """Why two folders have no pair, in words."""
    where = f"{split.images} holds {_contents(split.images)}; {split.masks} holds {_contents(split.masks)}"
    reason = f", and the {files.left_out} NonCAM pictures show nothing camouflaged" if files.left_out else ""
    return where + reason


def _in_words() -> str:
    *most, last = sorted(suffix[1:] for suffix in IMAGE_SUFFIXES)
    return f"{', '.join(most)} or {last}"


def _test_name(name: str) -> str:
    """What a test set is called; the run's own validation pictures are called validation wherever scores are."""
    return f"{name}-test" if name.casefold() == "validation" else name


def _refuse_one_name(name: str, other: str, first: Path, second: Path) -> None:
    """Raise DataError for two test sets whose names are one, or would be one folder on some disks."""
    if name.casefold() == other.casefold():
        names = name if name == other else f"{name} and {other}"
        raise DataError(
            f"two test sets are called {names}: {first} and {second}", "give one of them, or rename its folder"
        )


def _image_and_mask_folders(folder: Path) -> tuple[Path, Path] | None:
    below = _subfolders(folder)
    images, masks = _child(below, _IMAGE_FOLDERS), _child(below, _MASK_FOLDERS)
    return (images, masks) if images and masks else None


def _holds_pairs(folder: Path) -> bool:
    """False, too, where one may not look, such as in `lost+found` on a disk of one's own."""
    try:
        return _image_and_mask_folders(folder) is not None
    except DataError:
        return False


def _child(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The folder with the earliest of `names`, which are lower-case, in any case of letters."""
    by_name = {each.name.lower(): each for each in reversed(folders)}
    return next((by_name[name] for name in names if name in by_name), None)


def _subfolders(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in _entries(folder) if _is_folder(entry)]


def images_in(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The images in a folder, sorted by name, and the number of other files by ending. Raises DataError."""
    images = []
    others: Counter[str] = Counter()
    for entry in _entries(folder):
        if _is_folder(entry):
            continue
        _, dot, ending = entry.name.rpartition(".")
        suffix = dot and f".{ending.lower()}"
        if suffix in IMAGE_SUFFIXES:
            images.append(folder / entry.name)
        else:
            others[suffix or entry.name] += 1
    return images, others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Needs no call of the system except for links, of which there may be thousands on a slow network."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where one may not look
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name, without hidden files and what macOS adds to archives."""
    try:
        with os.scandir(folder) as entries:
            shown = [each for each in entries if not each.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        hint = (
            "check its permissions"
            if error.errno in (errno.EACCES, errno.EPERM)
            else "check the path for typing errors"
        )
        raise DataError(f"cannot look into {folder}: {error.strerror}", hint) from error
    return sorted(shown, key=attrgetter("name"))


def _by_stem(paths: Sequence[Path], include_noncam: bool) -> tuple[dict[str, list[Path]], int]:
    """The images by stem, and how many NonCAM ones were left out."""
    images: dict[str, list[Path]] = {}
    left_out = 0
    for path in paths:
        if not include_noncam and path.name.startswith(NOT_CAMOUFLAGED):
            left_out += 1
        else:
            images.setdefault(path.stem, []).append(path)
    return images, left_out


def describe_unread(others: Counter[str]) -> str:
    """How many files of which endings were passed over, in words; empty where there are none."""
    counts = ", ".join(f"{count} {ending}" for ending, count in others.most_common(8))
    return f"left out {counts}, which OpenCV does not read: convert what is a picture" if counts else ""


def _first_of(names: Sequence[str], kind: str) -> str:
    """`3 images have ..., the first ...` up to the verb's object."""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {kind}{'s' if len(names) > 1 else ''} ({shown}) {'have' if len(names) > 1 else 'has'}"


def _contents(folder: Path) -> str:
    """Sub-folders and the number of files by extension, in words."""
    entries = _entries(folder)
    folders = [each.name for each in entries if _is_folder(each)]
    endings = Counter(Path(each.name).suffix.lower() or each.name for each in entries if not _is_folder(each))
    parts = [f"the sub-folders {', '.join(folders[:8])}"] if folders else []
    parts += [f"{count} {ending}" for ending, count in endings.most_common(8)]
    return ", ".join(parts) or "nothing"
