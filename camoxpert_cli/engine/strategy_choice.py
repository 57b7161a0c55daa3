"""A strategy that trials chose for several GPUs, and why."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from camoxpert_cli.parallel.strategy import FOR_SEVERAL, StrategyName


@dataclass(frozen=True)
class Choice:
    """Images/s of each strategy that worked, and what stopped the others.

    `key` stands for the machine, the network and the sizes that were tried.
    """

    strategy: StrategyName
    images_per_s: dict[str, float]
    excluded: dict[str, str]
    key: str

    def __str__(self) -> str:
        speeds = [f"{name} {speed:.1f} images/s" for name, speed in self.images_per_s.items()]
        return f"{self.strategy} ({', '.join([*speeds, *(f'{name} does not work' for name in self.excluded)])})"

    def to_text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Choice | None:
        """The choice that `to_text` wrote; None for anything else."""
        try:
            return cls.from_content(json.loads(text))
        except ValueError:
            return None

    @classmethod
    def from_content(cls, content: Any) -> Choice | None:
        """The choice whose fields a mapping holds; None for anything else."""
        with suppress(TypeError):
            choice = cls(**content)
            maps = (choice.images_per_s, choice.excluded)
            if choice.strategy in FOR_SEVERAL and all(isinstance(each, dict) for each in maps):
                speeds = choice.images_per_s.values()
                return choice if all(isinstance(each, int | float) for each in speeds) else None
        return None
