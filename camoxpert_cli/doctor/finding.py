"""One line of the doctor's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from camoxpert_cli.config.parse import parse_devices
from camoxpert_cli.config.schema import Config
from camoxpert_cli.doctor.readings import Readings

Status = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What was `ran` and its `result`; where that is not well, `advice` in words and a `command` to type, or either.

    `problem`: training cannot go as recommended; `warning`: it can, but slower or with less; `skipped`: not asked.
    """

    name: str
    status: Status
    ran: str
    result: str
    advice: str = ""
    command: str = ""


@dataclass(frozen=True)
class Question:
    """What the machine is wanted for: the preset that was asked about, or None for GPU training with any.

    `config` is that preset's, or of the recipe that stands for all others.
    """

    preset: str | None
    config: Config

    @property
    def needs_gpu(self) -> bool:
        return self.preset is None or self.config.run.device != "cpu"

    def cards(self, readings: Readings) -> tuple[int, ...]:
        """Of those that work, the ones that the recipe would take; may be fewer than it asks for."""
        run = self.config.run
        if run.devices is not None:
            return tuple(number for number in parse_devices(run.devices) if number in readings.working)
        return readings.working if run.gpus == "all" else readings.working[: self.config.gpu_count]
