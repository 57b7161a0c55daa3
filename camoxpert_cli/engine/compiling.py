"""Whether the training steps of a run may be compiled, and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from camoxpert_cli.config.schema import Compile, Config
from camoxpert_cli.data.cores import usable_cores
from camoxpert_cli.engine.compile_choice import ASSUMED, Experience
from camoxpert_cli.engine.compiled_parts import CompiledParts
from camoxpert_cli.engine.stages import Kind
from camoxpert_cli.engine.step import TrainingStep
from camoxpert_cli.parallel.strategy import Strategy
from camoxpert_cli.parallel.toolchain import missing_for_cpu, missing_for_gpu
from camoxpert_cli.parallel.world import World


@dataclass
class Compiling:
    """How a run uses torch.compile in this session.

    `asked` is the setting, off if auto need not try. `excluded` and `missing` say why steps cannot be compiled: because
    of other settings, or because the compiler cannot be used; both are empty if they can. `before` is how the steps of
    the session that is resumed were executed, until that of this one is known.
    """

    asked: Compile
    parts: CompiledParts
    excluded: str = ""
    missing: str = ""
    before: str | None = None
    experience: Experience = ASSUMED
    kind: Kind | None = None  # of the phase under way
    is_settled: bool = False  # in this phase
    eager: float | None = None  # seconds of an eager step of the phase
    steps: list[float] = field(default_factory=list)  # seconds of those being measured
    has_said_why_not: bool = False

    @property
    def is_possible(self) -> bool:
        """Whether steps of this session may still be compiled."""
        return self.asked != "off" and not (self.excluded or self.missing)

    def enter(self, kind: Kind) -> None:
        """Begin a phase with eager steps: each trains other layers or has other batches."""
        self.parts.stop()
        self.kind, self.is_settled, self.eager, self.steps = kind, False, None, []

    def give_up(self) -> None:
        """Let all further steps of this session be eager."""
        self.parts.stop()
        self.asked = "off"


def may_compile(config: Config, strategy: Strategy, step: TrainingStep, world: World) -> Compiling:
    """Return how a run may use torch.compile; every rank must call this, and all get the same answer.

    A compiler that is missing stops no run, even with `--compile on`: what was started on one machine has to continue
    on another.
    """
    asked, on_cpu = config.train.compile, strategy.device.type == "cpu"
    if asked == "auto" and on_cpu:
        asked = "off"  # it takes minutes, gains little, and deciding by measured times would break bitwise resume
    compiling = Compiling(asked, CompiledParts(step, max(1, usable_cores() // world.local_size)))
    if asked == "off":
        return compiling
    if not strategy.can_compile:
        compiling.excluded = f"strategy {strategy.name} copies the network in every step"
    elif strategy.sync_batchnorm:
        # A rank that cannot compile would leave the others waiting for its part of the statistics.
        compiling.excluded = "--sync-batchnorm exchanges statistics between GPUs inside the network"
    elif config.train.deterministic and not on_cpu:
        compiling.excluded = "it chooses GPU kernels by timing them, which --deterministic excludes"
    else:
        missing = missing_for_cpu() if on_cpu else missing_for_gpu(torch.cuda.get_device_capability(strategy.device))
        compiling.missing = next(filter(None, world.all_gather(missing)), "")
    return compiling
