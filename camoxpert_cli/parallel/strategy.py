"""How the devices of a run work together: one alone, several by DataParallel, or several in a process for each.

A run has one strategy, chosen once, and asks it for whatever depends on that; nobody else looks at its name, but to
show it. A new one is a class here and a value of the setting `run.strategy`. Where its tensors are not whole on each
rank, the checkpoint has to be made of them and handed out to them as well: in `engine/saving.py` and `restoring.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from camoxpert_cli.data.sampling import ranks_with_samples
from camoxpert_cli.errors import UsageError
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.gradients import all_reduce_gradients, average_statistics, leave_idle_experts
from camoxpert_cli.parallel.sync_batchnorm import synchronise, within_group
from camoxpert_cli.parallel.world import World

StrategyName = Literal["single", "dp", "ddp"]


class Strategy:
    """What training asks of a strategy; each answer here is that of a process with a device of its own.

    `step` is a module around `network`. It takes images and masks, and returns a named tuple of tensors, which are
    joined along their first dimension where several devices give a part each. Both are moved to the first device.
    """

    name: ClassVar[StrategyName]
    description: ClassVar[str]
    needs_gpus: ClassVar[bool] = False
    # Whether summing gradients takes time of its own, and not a part of the backward pass.
    communication_is_measurable: ClassVar[bool] = True

    @classmethod
    def refuse(cls, devices: Sequence[torch.device], count: int, processes: int) -> None:
        """Raise UsageError where it cannot work on `devices` of this machine, `count` on all, by so many processes."""

    @classmethod
    def refuse_sync_batchnorm(cls, devices: Sequence[torch.device]) -> None:
        """Raise UsageError where BatchNorm cannot be synchronised over `devices`."""
        if devices[0].type == "cpu":
            raise UsageError(
                "--sync-batchnorm works between GPUs, and this run is on the CPU",
                "--no-sync-batchnorm, or with camox resume --set train.sync_batchnorm=off",
            )

    @classmethod
    def processes(cls, devices: int) -> int:
        """How many processes it needs for so many devices."""
        return 1

    def __init__(
        self,
        step: nn.Module,
        network: CamoXpert,
        devices: Sequence[torch.device],
        world: World,
        *,
        sync_batchnorm: bool = False,
    ) -> None:
        """`devices` are those that this process may compute on, its own first."""
        self.step, self.network, self.world = step, network, world
        self.devices = self._own(devices)
        self.sync_batchnorm = sync_batchnorm and world.size > 1
        if self.sync_batchnorm:
            synchronise(network)
        step.to(self.device)
        self.wrap()

    @property
    def device(self) -> torch.device:
        """Where this process's tensors lie: the first of `devices`, on all of which it computes."""
        return self.devices[0]

    def wrap(self) -> None:
        """Make anew what computes the step on all devices: to be called whenever other parameters are trained.

        torch's DistributedDataParallel, for one, keeps to what was trained when it was made.
        """
        self._wrapped = self._wrap()

    def forward(self, images: Tensor, masks: Tensor) -> Any:
        """What the step gives for this process's part of a batch, which may have no image."""
        return self._wrapped(
            images.to(self.device, non_blocking=True),
            masks.to(self.device, non_blocking=True),
        )

    def batch(self, size: int) -> AbstractContextManager[None]:
        """To be entered for the forward and backward pass of a batch of `size` images over all ranks.

        By every rank, also one without an image of the batch. Inside, synchronised BatchNorm looks at all of them.
        """
        if not self.sync_batchnorm:
            return nullcontext()
        self.world.require_all()  # the layers' own collectives miss nobody
        # Ranks without an image do not call the layers, and the others must not wait for them.
        return within_group(self.network, self.world.group(ranks_with_samples(size, self.world.size)))

    def reduce_gradients(self, trained: Sequence[nn.Parameter], chosen: Tensor) -> None:
        """Once a step: replace the gradients of `trained` by those of the whole step, the same on every rank.

        Gradients stay None for experts that no image chose; `chosen` (L, E) counts those of this process.
        """
        all_reduce_gradients(trained, self.world)

    def clip_gradients(self, trained: Sequence[nn.Parameter], norm: float) -> float:
        """Scale the reduced gradients down to `norm` where they are larger; returns their norm before."""
        return torch.nn.utils.clip_grad_norm_(trained, norm).item()

    def average_statistics(self, images: int) -> None:
        """Have BatchNorm's running statistics be the same on all ranks; this one saw `images` of the step."""
        if self.sync_batchnorm:
            # Equal on all ranks that saw every batch, as the last one always does: its own are taken as they are.
            images = int(self.world.rank == self.world.size - 1)
        average_statistics(self.network, images, self.world)

    def _own(self, devices: Sequence[torch.device]) -> tuple[torch.device, ...]:
        return (devices[0],)

    def _wrap(self) -> nn.Module:
        return self.step


class Single(Strategy):
    """One device."""

    name = "single"
    description = "one process"

    @classmethod
    def refuse(cls, devices: Sequence[torch.device], count: int, processes: int) -> None:
        if count > 1:
            raise UsageError(f"{count} devices cannot work by strategy single", "--gpus 1, or --strategy ddp")


class Dp(Strategy):
    """torch's DataParallel: one process copies the network to all GPUs for each batch."""

    name = "dp"
    description = "DataParallel, one process for all GPUs"
    needs_gpus = True
    communication_is_measurable = False

    @classmethod
    def refuse(cls, devices: Sequence[torch.device], count: int, processes: int) -> None:
        if processes > 1:
            raise UsageError(f"{processes} processes were started, and strategy dp is for one", "--strategy ddp")
        if devices[0].type == "cpu":
            raise UsageError(
                "strategy dp copies the network to several GPUs, and this run is on the CPU",
                "--strategy ddp --device cpu --gpus 2 trains in two processes",
            )

    @classmethod
    def refuse_sync_batchnorm(cls, devices: Sequence[torch.device]) -> None:
        super().refuse_sync_batchnorm(devices)
        raise UsageError(
            "--sync-batchnorm works between processes, and strategy dp is one process for all GPUs",
            "--strategy ddp, or --no-sync-batchnorm",
        )

    def reduce_gradients(self, trained: Sequence[nn.Parameter], chosen: Tensor) -> None:
        leave_idle_experts(self.network, chosen)

    def _own(self, devices: Sequence[torch.device]) -> tuple[torch.device, ...]:
        return tuple(devices)

    def _wrap(self) -> nn.Module:
        return nn.DataParallel(self.step, list(self.devices))


class Ddp(Strategy):
    """A process for each device; an all_reduce of our own sums gradients, for experts may have none on some ranks."""

    name = "ddp"
    description = "one process per device, gradients summed by all_reduce"

    @classmethod
    def processes(cls, devices: int) -> int:
        return devices


STRATEGIES: dict[str, type[Strategy]] = {each.name: each for each in (Single, Dp, Ddp)}
# Those that trials choose from for several GPUs: the first is taken where they are alike, or where none are made.
FOR_SEVERAL: tuple[StrategyName, ...] = (Ddp.name, Dp.name)


def choose_strategy(
    asked: str, devices: Sequence[torch.device], count: int, processes: int, *, sync_batchnorm: bool
) -> StrategyName:
    """The strategy for `devices` of this machine, `count` over all; `asked` is the setting `run.strategy`.

    Raises UsageError where it cannot work on them, or cannot synchronise BatchNorm and shall.
    """
    strategy = STRATEGIES.get(asked, STRATEGIES[FOR_SEVERAL[0]])
    strategy.refuse(devices, count, processes)
    if count == 1:
        strategy = Single
    if sync_batchnorm:
        strategy.refuse_sync_batchnorm(devices)
    return strategy.name


def processes_of(strategy: str, devices: int) -> int:
    """How many processes the strategy of that name needs for so many devices; one where trials would choose it."""
    return STRATEGIES[strategy].processes(devices) if strategy in STRATEGIES else 1
