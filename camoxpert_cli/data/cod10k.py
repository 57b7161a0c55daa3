"""Classes encoded in COD10K file names: COD10K-CAM-1-Aquatic-3-Crab-70 shows a crab."""

from __future__ import annotations

import re

# Images with this prefix contain no camouflaged object, and their masks are empty.
NOT_CAMOUFLAGED = "COD10K-NonCAM-"
_NAME = re.compile(r"COD10K-(?:CAM|NonCAM)-\d+-([A-Za-z]+)-(?:\d+-([A-Za-z]+)-)?")


def super_class(name: str) -> str | None:
    """Return the superclass in a COD10K name, `COD10K-CAM-1-Aquatic-3-Crab-70` -> `Aquatic`; None for other names."""
    match = _NAME.match(name)
    return match[1] if match else None


def class_name(name: str) -> str | None:
    """Return the class in a COD10K name, `COD10K-CAM-1-Aquatic-3-Crab-70` -> `Crab`; None for other names."""
    match = _NAME.match(name)
    return match[2] if match else None
