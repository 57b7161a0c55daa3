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
    """One check: what `ran`, its `result` and, unless all is well, `advice` in words, a `command` to type, or both.

    Status `problem`: training is not possible as it is; `warning`: it is possible, but slower, with fewer GPUs or at a
    risk; `skipped`: not tested.
    """

    name: str
    status: Status
    ran: str
    result: str
    advice: str = ""
    command: str = ""


@dataclass(frozen=True)
class Question:
    """What the machine is examined for: a preset, or GPU training with any preset if it is None.

    `config` is the config of that preset, or of the one that represents all others.
    """

    preset: str | None
    config: Config

    @property
    def needs_gpu(self) -> bool:
        """Whether training requires a GPU."""
        return self.preset is None or self.config.run.device != "cpu"

    def cards(self, readings: Readings) -> tuple[int, ...]:
        """Return the working GPUs that the preset would use; may be fewer than it needs."""
        run = self.config.run
        if run.devices is not None:
            return tuple(number for number in parse_devices(run.devices) if number in readings.working)
        return readings.working if run.gpus == "all" else readings.working[: self.config.gpu_count]
