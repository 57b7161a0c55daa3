"""An image with its mask, and lists of such pairs in a file."""

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
_HINT = "camox check-data DIR --write-clean LIST.json writes one"


@dataclass(frozen=True)
class Pair:
    """An image and its mask; `name` is the stem both files share."""

    name: str
    image: Path
    mask: Path


def is_list(path: Path) -> bool:
    """Whether a path that stands for data is meant as a list of pairs: by its ending, unless a folder has it."""
    return path.suffix.lower() == _LIST_SUFFIX and not os.path.isdir(path)  # noqa: PTH112 -- False for what may not be looked at


def write_list(
    path: Path, train: Sequence[Pair], tests: Mapping[str, Sequence[Pair]], validation: Sequence[Pair] = ()
) -> None:
    """Write pairs and test sets to a JSON file that `read_list` reads; OSError where that is impossible.

    What lies below the list's folder is named relative to it, so that both can be moved together.
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
    # In ASCII, which also holds names that are no UTF-8.
    atomic.write_text(path, json.dumps(content, indent=1) + "\n")


def read_list(path: Path) -> tuple[tuple[Pair, ...], dict[str, tuple[Pair, ...]], tuple[Pair, ...]]:
    """Training pairs, test sets and validation pairs of a file that `write_list` wrote.

    Raises DataError where it is no such file, or two pictures of a test set have one name.
    """
    try:
        content = json.loads(read_regular(path, LARGEST_LIST).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read the list {path}: {error.strerror}", _HINT) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no list of pictures: {first_line(error)}", _HINT) from error
    if not isinstance(content, dict) or content.get("camox_list") != VERSION:
        raise DataError(f"{path} is no list of pictures: it does not say camox_list {VERSION}", _HINT)
    folder = path.absolute().parent
    train = _pairs(content.get("train"), folder, path)
    validation = _pairs(content.get("validation", []), folder, path)
    tests = content.get("tests")
    if not isinstance(tests, dict):
        raise DataError(f"{path}: tests is {shown(tests)}, expected lists of pairs by name", _HINT)
    for name in tests:
        if not is_plain(name):  # it becomes the name of a folder for maps
            raise DataError(f"{path} calls a test set {shown(name)}, expected a name that a folder can have", _HINT)
    sets = {name: pairs for name, rows in tests.items() if (pairs := _pairs(rows, folder, path))}
    every = [pair for pairs in (train, validation, *sets.values()) for pair in pairs]
    files = [file for pair in every for file in (pair.image, pair.mask)]
    if not files:
        raise DataError(f"{path} names no pair of picture and mask", _HINT)
    if missing := [file for file in files if not os.path.isfile(file)]:  # noqa: PTH113  # False for impossible names
        raise DataError(
            f"{len(missing)} of the {len(files)} files that {path} names are not there: {one_line(missing[0])}", _HINT
        )
    for name, pairs in sets.items():
        _refuse_clash(path, name, pairs)
    return train, sets, validation


def _refuse_clash(path: Path, name: str, pairs: Sequence[Pair]) -> None:
    """Raise DataError where maps and scores of a test set would go by one name."""
    first: dict[str, Pair] = {}
    for pair in pairs:
        if (other := first.setdefault(pair.name, pair)) is not pair:
            raise DataError(
                f"two pictures of the test set {name} are called {pair.name}: {other.image} and {pair.image}",
                f"rename one of them, or take one out of {path}",
            )


def _pairs(rows: Any, folder: Path, path: Path) -> tuple[Pair, ...]:
    pairs = []
    for row in rows if isinstance(rows, list) else [rows]:
        match row:
            case [str(image), str(mask)] if image and mask:
                pairs.append(Pair(Path(image).stem, folder / image, folder / mask))
            case _:
                raise DataError(f"{path} holds {shown(row)}, expected pairs of a picture's and a mask's path", _HINT)
    return tuple(pairs)


def _relative(path: Path, folder: str) -> str:
    absolute = os.path.abspath(path)  # noqa: PTH100
    return os.path.relpath(absolute, folder) if Path(absolute).is_relative_to(folder) else absolute
