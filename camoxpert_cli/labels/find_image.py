"""Finds the image that labels belong to, by its path as the labels have it."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath


class Images:
    """The images in a folder and below, by stem."""

    def __init__(self, folder: Path, paths: Iterable[Path]) -> None:
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in paths:
            self._by_stem[path.stem].append(path)
        self._folder = folder

    def find(self, names: Sequence[str]) -> list[Path]:
        """Return the image of the first of `names` that has one: empty if none has, several if it is unclear which.

        Labels may have another extension, as YOLO's do, and folders that are not here: of several images with the same
        stem, the one whose folders agree most, counted from the last, is the right one; then the one with the same
        extension.
        """
        for name in names:
            wanted = PurePosixPath(posixpath.normpath(name.replace("\\", "/")))
            found = self._by_stem.get(wanted.stem, [])
            if found:
                fits = [self._fit(path, wanted) for path in found]
                return [path for path, fit in zip(found, fits, strict=True) if fit == max(fits)]
        return []

    def _fit(self, path: Path, wanted: PurePosixPath) -> tuple[int, bool]:
        pairs = zip(reversed(path.relative_to(self._folder).parent.parts), reversed(wanted.parent.parts), strict=False)
        common = 0
        for own, other in pairs:
            if own != other:
                break
            common += 1
        return common, path.name == wanted.name
