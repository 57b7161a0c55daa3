"""What the package says of itself."""

from __future__ import annotations

import re
import tomllib

import camoxpert_cli
from tests.helpers.places import ROOT


def test_the_version_is_that_of_the_changelog() -> None:
    """The newest section of the change log is about the version that the package says it has."""
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert newest is not None
    assert newest[1] == camoxpert_cli.__version__


def test_names_for_users() -> None:
    """The dependency is the OpenCV without windows alone, and torch has a lower bound only: Kaggle's stays in place."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[<>=\[ ]", text)[0]: text for text in project["dependencies"]}

    assert [name for name in names if name.startswith("opencv")] == ["opencv-python-headless"]
    assert names["torch"] == "torch>=2.10"
    assert names["torchvision"] == "torchvision"
