"""A small mistake, put into a file of the package, and the tests that have to fail because of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """In `file`, below the package, `old` becomes `new`; `old` occurs there once.

    `tests` are pytest's arguments, below tests: a file, or one of its tests. All belong to the default run.
    """

    file: str
    old: str
    new: str
    tests: str

    def __str__(self) -> str:
        change = f"{' '.join(self.old.split())} -> {' '.join(self.new.split()) or 'nothing'}"
        return f"{self.file}: {change if len(change) <= 100 else change[:97] + '...'}"

    def written_over(self, text: str) -> str:
        """The file's text with the mistake in it. Raises ValueError where `old` does not occur exactly once."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has {self.old!r} {text.count(self.old)} times, and once was expected")
        return text.replace(self.old, self.new)

    def plant(self, package: Path) -> None:
        """Write the mistake into a copy of the package."""
        path = package / self.file
        path.write_text(self.written_over(path.read_text(encoding="utf-8")), encoding="utf-8")
