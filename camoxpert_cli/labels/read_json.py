"""Reads JSON files that a user gave, with the line of a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from camoxpert_cli.errors import DataError, first_line
from camoxpert_cli.labels.labelled import malformed
from camoxpert_cli.regular_file import read_regular

_MOST_BYTES = 2**31
_FARTHEST = 1e9


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises DataError with the line of a mistake."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise malformed(path, f"not JSON: {error.msg}", line=error.lineno) from error
    except RecursionError as error:
        raise malformed(path, "not JSON that camox can read: nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise malformed(path, f"not JSON: {first_line(error)}") from error


def read_text(path: Path) -> str:
    """Return the content of a text file in UTF-8. Raises DataError with the line of a mistake."""
    try:
        content = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise malformed(path, "not text in UTF-8", line=line) from error


def is_number(value: Any) -> bool:
    """Return whether a value is a number that can be a coordinate: not NaN, infinite or absurdly large."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_FARTHEST <= value <= _FARTHEST


def is_size(value: Any) -> bool:
    """Return whether a value is a number of pixels."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
