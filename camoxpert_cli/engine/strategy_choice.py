"""A strategy for several GPUs that was chosen by trials, with their results."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from camoxpert_cli.parallel.strategy import FOR_SEVERAL, StrategyName


@dataclass(frozen=True)
class Choice:
    """The chosen strategy, the images/s of each one that worked, and why the others failed.

    `key` identifies the machine, the network and the sizes of the trials.
    """

    strategy: StrategyName
    images_per_s: dict[str, float]
    excluded: dict[str, str]
    key: str

    def __str__(self) -> str:
        speeds = [f"{name} {speed:.1f} img/s" for name, speed in self.images_per_s.items()]
        return f"{self.strategy} ({', '.join([*speeds, *(f'{name} failed' for name in self.excluded)])})"

    def to_text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Choice | None:
        """Read the choice that `to_text` wrote; None for anything else."""
        try:
            return cls.from_content(json.loads(text))
        except ValueError:
            return None

    @classmethod
    def from_content(cls, content: Any) -> Choice | None:
        """Read the choice from a mapping of its fields; None for anything else."""
        with suppress(TypeError):
            choice = cls(**content)
            tables = (choice.images_per_s, choice.excluded)
            if choice.strategy in FOR_SEVERAL and all(isinstance(each, dict) for each in tables):
                speeds = choice.images_per_s.values()
                return choice if all(isinstance(each, int | float) for each in speeds) else None
        return None
