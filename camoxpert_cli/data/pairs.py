"""Image-mask pairs, and files that list them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camoxpert_cli import atomic
from camoxpert_cli.errors import DataError, first_line, one_line, shown
from camoxpert_cli.regular_file import read_regular
from camoxpert_cli.targets import is_plain

_LIST_SUFFIX = ".json"
VERSION = 1
LARGEST_LIST = 2**26  # bytes, half a million pairs
_HINT = "camox check-data DIR --write-clean LIST.json, which writes a list of pairs"


@dataclass(frozen=True)
class Pair:
    """An image and its mask; `name` is the stem that both files share.

    For an image that was given as one without an object, and has no mask, `mask` is the image file itself.
    """

    name: str
    image: Path
    mask: Path

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask file to read. Without one, no pixel is object."""
        return self.mask != self.image


def is_list(path: Path) -> bool:
    """Return whether a data path refers to a list of pairs: it ends in .json and is not a folder."""
    return path.suffix.lower() == _LIST_SUFFIX and not os.path.isdir(path)  # noqa: PTH112 -- False without access permission


def write_list(
    path: Path, train: Sequence[Pair], tests: Mapping[str, Sequence[Pair]], validation: Sequence[Pair] = ()
) -> None:
    """Write pairs and test sets to a JSON file that `read_list` can read. Raises OSError if that fails.

    Paths below the list's folder are stored relative to it, so that both can be moved together.
    """
    folder = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120  # Path keeps `..`, or follows links

    def rows(pairs: Sequence[Pair]) -> list[list[str]]:
        return [[_relative(pair.image, folder), _relative(pair.mask, folder)] for pair in pairs]

    content = {
        "camox_list": VERSION,
        "train": rows(train),
        **({"validation": rows(validation)} if validation else {}),
        "tests": {name: rows(tests[name]) for name in tests},
    }
    # ASCII escapes also represent names that are not valid UTF-8.
    atomic.write_text(path, json.dumps(content, indent=1) + "\n")


def read_list(path: Path) -> tuple[tuple[Pair, ...], dict[str, tuple[Pair, ...]], tuple[Pair, ...]]:
    """Read training pairs, test sets and validation pairs from a file that `write_list` wrote.

    Raises DataError for any other file, or if two images of a test set have the same name.
    """
    try:
        content = json.loads(read_regular(path, LARGEST_LIST).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read the list {path}: {error.strerror}", _HINT) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a list of pairs: {first_line(error)}", _HINT) from error
    if not isinstance(content, dict) or content.get("camox_list") != VERSION:
        raise DataError(f'{path} is not a list of pairs: expected "camox_list": {VERSION}', _HINT)
    folder = path.absolute().parent
    train = _pairs(content.get("train"), folder, path)
    validation = _pairs(content.get("validation", []), folder, path)
    tests = content.get("tests")
    if not isinstance(tests, dict):
        raise DataError(f"{path}: tests is {shown(tests)}, expected lists of pairs by name", _HINT)
    for name in tests:
        if not is_plain(name):  # it becomes the name of a folder for predictions
            raise DataError(f"{path} names a test set {shown(name)}, expected a valid folder name", _HINT)
    sets = {name: pairs for name, rows in tests.items() if (pairs := _pairs(rows, folder, path))}
    every = [pair for pairs in (train, validation, *sets.values()) for pair in pairs]
    files = [file for pair in every for file in (pair.image, pair.mask)]
    if not files:
        raise DataError(f"{path} lists no image-mask pairs", _HINT)
    if missing := [file for file in files if not os.path.isfile(file)]:  # noqa: PTH113  # False for invalid names
        raise DataError(
            f"{path} lists {len(files)} files, of which {len(missing)} {'is' if len(missing) == 1 else 'are'} missing: "
            f"{one_line(missing[0])}{'' if len(missing) == 1 else ', ...'}",
            _HINT,
        )
    for name, pairs in sets.items():
        _refuse_clash(path, name, pairs)
    return train, sets, validation


def _refuse_clash(path: Path, name: str, pairs: Sequence[Pair]) -> None:
    """Raise DataError if predictions and scores of two images in a test set would have the same name."""
    first: dict[str, Pair] = {}
    for pair in pairs:
        if (other := first.setdefault(pair.name, pair)) is not pair:
            raise DataError(
                f"two images of the test set {name} are named {pair.name}: {other.image} and {pair.image}",
                f"rename one of them, or remove one from {path}",
            )


def _pairs(rows: Any, folder: Path, path: Path) -> tuple[Pair, ...]:
    pairs = []
    for row in rows if isinstance(rows, list) else [rows]:
        match row:
            case [str(image), str(mask)] if image and mask:
                pairs.append(Pair(Path(image).stem, folder / image, folder / mask))
            case _:
                raise DataError(f"{path} contains {shown(row)}, expected [IMAGE, MASK] pairs of paths", _HINT)
    return tuple(pairs)


def _relative(path: Path, folder: str) -> str:
    absolute = os.path.abspath(path)  # noqa: PTH100
    return os.path.relpath(absolute, folder) if Path(absolute).is_relative_to(folder) else absolute
