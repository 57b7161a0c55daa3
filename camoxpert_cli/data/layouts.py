"""Finds images and their masks by recognizing the layout of a dataset folder."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Literal, TypeAlias

from camoxpert_cli import console
from camoxpert_cli.data.cod10k import NOT_CAMOUFLAGED
from camoxpert_cli.data.pairs import Pair, is_list, read_list
from camoxpert_cli.errors import DataError, nearest

_IMAGE_FOLDERS = ("image", "images", "imgs", "img", "im")
_MASK_FOLDERS = ("gt_object", "gt", "mask", "masks", "label", "labels")
_TRAIN_FOLDERS = ("train", "traindataset")
_VAL_FOLDERS = ("val", "valid", "validation", "valdataset", "validdataset", "validationdataset")
_TEST_FOLDERS = ("test", "testdataset")
# Common image formats that OpenCV can read.
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".avif"),
    *(".pgm", ".ppm", ".pbm", ".pnm"),
}
_ARCHIVE_SUFFIXES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
_LAYOUTS = (
    "arrange the folder as Imgs + GT, Train/Image + Train/GT_Object, TrainDataset/Imgs + TrainDataset/GT or "
    "Images/Train + GT; for other folder names use --images DIR --masks DIR; see camox guide data"
)
# A README may come with a few images; folders with more images than this are not searched for datasets.
_IMAGE_FOLDER = 20

Use: TypeAlias = Literal["train", "val", "test"]


@dataclass(frozen=True)
class DataSet:
    """Training pairs and test sets by name, either of which may be empty, and one line on what was found and skipped.

    `validation` contains validation pairs; it is empty if some of the training pairs are to be held out instead.
    `negatives` are images without an object, and have no masks.
    """

    train: tuple[Pair, ...]
    tests: dict[str, tuple[Pair, ...]]
    description: str
    validation: tuple[Pair, ...] = ()
    negatives: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Folders:
    """A folder of images with its folder of masks; `role` is "any" if no folder name indicates the role."""

    role: Literal["train", "val", "test", "any"]
    name: str
    images: Path
    masks: Path
    sharing: tuple[Path, ...] = ()  # further image folders whose masks are in `masks`


@dataclass(frozen=True)
class FoundSet:
    """A pair of folders found for `root` (as given), the folder they are `below`, and what their pairs are for."""

    root: str
    folders: Folders
    below: Path | None
    use: Use


@dataclass(frozen=True)
class Files:
    """The files of a pair of folders by stem, sorted by name: one file per stem, unless names clash.

    `owners` are the stems of all images whose masks may be in the mask folder, `left_out` is the number of skipped
    NonCAM images, and `unread` describes the files that were skipped because OpenCV cannot read their format.
    """

    images: dict[str, list[Path]]
    masks: dict[str, list[Path]]
    owners: set[str]
    left_out: int
    unread: str = ""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Pairs of an image and a mask; if names clash, the first file of each name."""
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
        """Groups of files in one folder that share a stem."""
        return [paths for side in (self.images, self.masks) for paths in side.values() if len(paths) > 1]


def find_data(
    roots: Sequence[Path],
    *,
    folders: Sequence[tuple[Path, Path]] = (),
    validation: Sequence[tuple[Path, Path]] = (),
    negatives: Sequence[Path] = (),
    scoring: bool = False,
    include_noncam: bool = False,
) -> DataSet:
    """Find the pairs of one or more dataset folders, sorted by name within each image folder.

    Supports COD10K-v3 (`Train/Image` + `Train/GT_Object`, `Test/...`), `TrainDataset` and `TestDataset/<SET>` with
    `Imgs` + `GT`, CAMO (`Images/Train`, `Images/Test` + `GT`) and a single pair of folders (NC4K); case is ignored.
    A single pair of folders named neither train nor test is training data if no other root is, because people train on
    custom folders; next to other training images, or if `scoring`, it is a test set. A root may also be a file with a
    list of pairs, see `read_list`. `folders` are image and mask folders with arbitrary names: training pairs, or a test
    set if `scoring`; those in `validation`, and a folder `val` next to `train` or `test`, are validation data. COD10K's
    NonCAM images are left out unless `include_noncam`. Each folder in `negatives` contains images without an object;
    if `scoring`, it is a test set with the folder's name.

    Raises DataError if the layout of a root is unknown, a root has no pairs, its images and masks do not match, an
    image is in both the training and the validation data, or an image without an object is in either of them.
    """
    if not roots and not folders and not (scoring and negatives):
        raise DataError(
            "no dataset folder was given", "pass one, or a folder of images and one of masks; see camox guide data"
        )
    train: dict[Path, Pair] = {}
    held_out: dict[Path, Pair] = {}
    tests: dict[str, tuple[Pair, ...]] = {}
    lines: dict[str, list[str]] = {}

    def add(known: dict[Path, Pair], kind: str, pairs: Sequence[Pair]) -> str:
        # A dataset and a part of it, or a list of its pairs, may both be given.
        new = {path: pair for pair in pairs if (path := pair.image.absolute()) not in known}
        known.update(new)
        return console.counted(len(new), f"{kind} pair")

    def add_test(name: str, pairs: tuple[Pair, ...]) -> str:
        name = _test_name(name)
        for other, theirs in tests.items():
            _refuse_one_name(other, name, theirs[0].image.parent, pairs[0].image.parent)
        tests[name] = pairs
        return f"{console.counted(len(pairs), 'test pair')} of {name}"

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
    without: dict[Path, Pair] = {}
    for folder in {Path(folder).resolve(): Path(folder) for folder in negatives}.values():
        pairs = _negatives_in(folder)
        if scoring:
            add_test(folder.resolve().name, pairs)
        else:
            add(without, "", pairs)
        lines[str(folder)] = [console.counted(len(pairs), "image without an object", "images without an object")]
    if both := without.keys() & (train.keys() | held_out.keys()):
        raise DataError(
            f"{console.counted(len(both), 'image is', 'images are')} in both a folder of --negatives and the images "
            f"with masks, for example {min(both)}",
            "give each image only once; see camox guide data",
        )
    if both := train.keys() & held_out.keys():
        raise DataError(
            f"{console.counted(len(both), 'image is', 'images are')} in both the training and the validation data, "
            f"for example {min(both)}",
            "use each image for only one of them; see camox guide data",
        )
    description = "; ".join(f"{root}: {', '.join(parts)}" for root, parts in lines.items())
    return DataSet(tuple(train.values()), tests, description, tuple(held_out.values()), tuple(without.values()))


def find_sets(
    roots: Sequence[Path],
    folders: Sequence[tuple[Path, Path]] = (),
    validation: Sequence[tuple[Path, Path]] = (),
    *,
    scoring: bool = False,
    has_train: bool = False,
) -> tuple[list[FoundSet], dict[str, list[str]]]:
    """Find the sets in the roots and explicit folders, and by root what was skipped; reads no image.

    `has_train` means that other training pairs are already known; the other arguments are those of `find_data`. Raises
    DataError for a root whose layout is unknown and for two test sets with the same name.
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
                f"{images} was given as the folder of both images and masks",
                f"pass the folder of the masks as --{'val-' if role == 'val' else ''}masks",
            )
        split = Folders(role, folder_above(images), images, masks)
        found.append((f"{images} + {masks}", None, [split], []))
    has_train = has_train or any(split.role == "train" for _, _, splits, _ in found for split in splits)
    sets = []
    tests: dict[str, Path] = {}
    for title, below, splits, _ in found:
        for split in splits:
            # A folder `val` that was itself given for scoring is a test set.
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
    """Return the name of the folder's parent, after which a set is named: CAMO for CAMO/Imgs; never `..` or similar."""
    whole = Path(os.path.abspath(folder))  # noqa: PTH100 -- Path keeps `..`, or follows links
    return whole.parent.name or whole.name


def find_under(folder: Path, depth: int = 4) -> list[Path]:
    """Return folders with a known layout, sorted: `folder` itself, or any up to `depth` levels below it.

    Does not search below a match or below a folder full of images, and skips unreadable folders.
    """
    try:
        if _recognise(folder)[0]:
            return [folder]
        below = [] if depth == 0 or len(images_in(folder)[0]) > _IMAGE_FOLDER else _subfolders(folder)
    except DataError:
        return []
    return [match for each in below for match in find_under(each, depth - 1)]


def pair_folders(images: Path, masks: Path, files: Files | None = None) -> tuple[Pair, ...]:
    """Pair every image with the mask that has the same stem, sorted by name; `files` is the folders' listing, if known.

    Raises DataError if an image has no mask, a mask has no image, or two files in a folder share a stem.
    """
    files = files or list_files(images, masks)
    _refuse_clashes(files.clashes)
    problems = []
    if lone := [path.name for path in files.lone_images]:
        problems.append(f"{_first_of(lone, 'image')} no mask in {masks}")
    if stray := [path.name for path in files.lone_masks]:
        problems.append(f"{_first_of(stray, 'mask')} no image in {images}")
    if problems:
        raise DataError(
            "; ".join([*problems, *([files.unread] if files.unread else [])]),
            "an image and its mask must have the same name except for the extension; "
            "camox check-data DIR --write-clean clean.json lists the usable pairs",
        )
    return files.pairs


def _refuse_clashes(clashes: Sequence[Sequence[Path]]) -> None:
    if clashes:
        first, second, *_ = clashes[0]
        raise DataError(
            f"{first.parent} contains two images with the same name: {first.name} and {second.name}",
            "rename or remove one of them",
        )


def list_files(images: Path, masks: Path, sharing: Sequence[Path] = (), *, include_noncam: bool = False) -> Files:
    """List the images in `images` and the masks in `masks`, without COD10K's NonCAM ones unless `include_noncam`.

    `sharing`: further image folders whose masks are in `masks` as well. Raises DataError for folders that cannot be
    read.
    """
    image_paths, other_images = images_in(images)
    mask_paths, other_masks = images_in(masks)
    image_files, left_out = _by_stem(image_paths, include_noncam)
    found = _by_stem(mask_paths, include_noncam)[0]
    owners = set(image_files).union(*(_by_stem(images_in(folder)[0], include_noncam)[0] for folder in sharing))
    return Files(image_files, found, owners, left_out, describe_unread(other_images + other_masks))


def find_folders(root: Path) -> tuple[list[Folders], list[str]]:
    """Find the sets of a dataset folder, and what was skipped. Raises DataError if the layout is unknown."""
    if not root.is_dir():
        if root.exists():
            hint = (
                "extract the archive and pass its folder"
                if root.suffix.lower() in _ARCHIVE_SUFFIXES
                else "pass the folder of the dataset, or a list written by camox check-data --write-clean"
            )
            raise DataError(f"{root} is a file, expected a dataset folder", hint)
        raise _not_found(root)
    splits, notes = _recognise(root)
    if not splits:
        above = [match for each in root.resolve().parents[:2] for match in find_under(each, 0)]
        known = find_under(root, 2) or above
        hint = f"pass {known[0]}, which has a known layout" if known else _LAYOUTS
        raise DataError(f"{root} does not have a known dataset layout; it {_contents(root)}", hint)
    return splits, notes


def _recognise(root: Path) -> tuple[list[Folders], list[str]]:
    """The splits that the folder names indicate, and what was skipped; reads no file."""
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
            notes.append(f"skipped {part.name}, which {_contents(part)}")
    if role == "test":
        name, test = parent, root
    if test and (folders := _image_and_mask_folders(test)):
        splits.append(Folders("test", name, *folders))
    elif test:
        for each in _subfolders(test):
            if folders := _image_and_mask_folders(each):
                splits.append(Folders("test", each.name, *folders))
            else:
                notes.append(f"skipped {each.relative_to(root)}, which {_contents(each)}")
    if splits:
        used = [_child(below, names) for names in (_TRAIN_FOLDERS, _VAL_FOLDERS, _TEST_FOLDERS)]
        others = [each for each in below if each not in used and _holds_pairs(each)]
        notes += [f"skipped {each.name}, which is not a train, validation or test folder" for each in others]
    return splits, notes


def _left_out(below: Sequence[Path], used: Sequence[Path]) -> list[str]:
    """Notes on unused folders next to the used ones whose names suggest that they belong to a dataset."""
    known = {*_IMAGE_FOLDERS, *_MASK_FOLDERS, *_TRAIN_FOLDERS, *_VAL_FOLDERS, *_TEST_FOLDERS}
    others = [each.name for each in below if each not in used and each.name.lower() in known]
    return [f"skipped {name}, because {' and '.join(each.name for each in used)} are used" for name in others]


def _camo(name: str, images: Path, masks: Path) -> list[Folders]:
    """CAMO keeps the masks of its training and test images in one folder; other datasets use a folder for each."""
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
    """The pairs of a set, and a remark on where they are and what was skipped. Raises DataError if there are none."""
    split = found.folders
    files = list_files(split.images, split.masks, split.sharing, include_noncam=include_noncam)
    pairs = pair_folders(split.images, split.masks, files)
    if not pairs:
        raise DataError(
            f"no image-mask pairs found: {describe_nothing(split, files)}", f"supported image files: {_in_words()}"
        )
    remarks = []
    if found.below is not None:
        remarks.append(f"{split.images.relative_to(found.below)} + {split.masks.relative_to(found.below)}")
    if split.role == "any":
        remarks.append("named neither train nor test")
    if files.left_out:
        remarks.append(_skipped_noncam(files))
    if files.unread:
        remarks.append(files.unread)
    return pairs, f" ({'; '.join(remarks)})" if remarks else ""


def _negatives_in(folder: Path) -> tuple[Pair, ...]:
    """The images in a folder, which have no masks, sorted by name.

    Raises DataError if there are none, or if two share a stem, by which predictions are named.
    """
    images, others = images_in(folder)
    _refuse_clashes([paths for paths in _by_stem(images, include_noncam=True)[0].values() if len(paths) > 1])
    if not images:
        unread = describe_unread(others)
        raise DataError(
            f"no images in {folder}, a folder of --negatives{f': {unread}' if unread else ''}",
            f"supported image files: {_in_words()}",
        )
    return tuple(Pair(path.stem, path, path) for path in images)


def describe_nothing(split: Folders, files: Files) -> str:
    """Describe why two folders have no pair."""
    where = f"{split.images} {_contents(split.images)}; {split.masks} {_contents(split.masks)}"
    return where + (f"; {_skipped_noncam(files)}" if files.left_out else "")


def _skipped_noncam(files: Files) -> str:
    return f"skipped {console.counted(files.left_out, 'NonCAM image')} (no camouflaged object)"


def _in_words() -> str:
    *most, last = sorted(suffix[1:] for suffix in IMAGE_SUFFIXES)
    return f"{', '.join(most)} or {last}"


def _test_name(name: str) -> str:
    """The name of a test set; "validation" is reserved for the run's validation images wherever scores are shown."""
    return f"{name}-test" if name.casefold() == "validation" else name


def _refuse_one_name(name: str, other: str, first: Path, second: Path) -> None:
    """Raise DataError for two test sets with the same name, or with names that some disks treat as the same folder."""
    if name.casefold() == other.casefold():
        names = name if name == other else f"{name} and {other}"
        raise DataError(
            f"two test sets are named {names}: {first} and {second}", "pass only one of them, or rename its folder"
        )


def _image_and_mask_folders(folder: Path) -> tuple[Path, Path] | None:
    below = _subfolders(folder)
    images, masks = _child(below, _IMAGE_FOLDERS), _child(below, _MASK_FOLDERS)
    return (images, masks) if images and masks else None


def _holds_pairs(folder: Path) -> bool:
    """Also False for an unreadable folder, such as `lost+found` at the root of a disk."""
    try:
        return _image_and_mask_folders(folder) is not None
    except DataError:
        return False


def _child(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The folder with the earliest of `names`, which are lower-case; case is ignored."""
    by_name = {each.name.lower(): each for each in reversed(folders)}
    return next((by_name[name] for name in names if name in by_name), None)


def _subfolders(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in _entries(folder) if _is_folder(entry)]


def images_in(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Return the images in a folder, sorted by name, and the number of other files by extension. Raises DataError."""
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


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder, sorted by name, without hidden ones. Raises DataError."""
    return [folder / entry.name for entry in _entries(folder) if not _is_folder(entry)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Needs no system call except for links, because a slow network folder may have thousands of entries."""
    try:
        return entry.is_dir()
    except OSError:  # a cyclic link, or one to an unreadable place
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name, without hidden files and what macOS adds to archives."""
    try:
        with os.scandir(folder) as entries:
            shown = [each for each in entries if not each.name.startswith((".", "__MACOSX"))]
    except FileNotFoundError as error:
        raise _not_found(folder) from error
    except OSError as error:
        hint = "check its permissions" if error.errno in (errno.EACCES, errno.EPERM) else "check the path for typos"
        raise DataError(f"cannot read the folder {folder}: {error.strerror}", hint) from error
    return sorted(shown, key=attrgetter("name"))


def _not_found(folder: Path) -> DataError:
    above = folder.parent
    similar = nearest(folder.name, [path.name for path in _subfolders(above)] if above.is_dir() else [])
    hint = f"{above / similar[0]}, which has a similar name" if similar else "check the path for typos"
    return DataError(f"folder {folder} not found", hint)


def _by_stem(paths: Sequence[Path], include_noncam: bool) -> tuple[dict[str, list[Path]], int]:
    """The images by stem, and the number of skipped NonCAM ones."""
    images: dict[str, list[Path]] = {}
    left_out = 0
    for path in paths:
        if not include_noncam and path.name.startswith(NOT_CAMOUFLAGED):
            left_out += 1
        else:
            images.setdefault(path.stem, []).append(path)
    return images, left_out


def describe_unread(others: Counter[str]) -> str:
    """Describe how many files with which extensions were skipped; empty if there are none."""
    counts = ", ".join(_files_ending(*each) for each in others.most_common(8))
    return f"skipped {counts} (not readable by OpenCV; convert images to PNG or JPEG)" if counts else ""


def _first_of(names: Sequence[str], kind: str) -> str:
    """`3 images (a.jpg, b.jpg, c.jpg) have`: the start of a sentence."""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{console.counted(len(names), kind)} ({shown}) {'has' if len(names) == 1 else 'have'}"


def _contents(folder: Path) -> str:
    """Describe subfolders and the number of files by extension: `contains 2 .txt files and the subfolder a`."""
    entries = _entries(folder)
    folders = [each.name for each in entries if _is_folder(each)]
    endings = Counter(Path(each.name).suffix.lower() or each.name for each in entries if not _is_folder(each))
    parts = [_files_ending(*each) for each in endings.most_common(8)]
    if len(endings) > 8:
        parts.append("other files")
    if folders:
        named = [*folders[:8], *([f"{len(folders) - 8} more"] if len(folders) > 8 else [])]
        parts.append(f"the subfolder{'' if len(folders) == 1 else 's'} {_with_and(named)}")
    return f"contains {_with_and(parts)}" if parts else "is empty"


def _with_and(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def _files_ending(ending: str, count: int) -> str:
    """Describe the number of files with an extension; one without an extension is counted under its name."""
    return console.counted(count, f"{ending} file")
