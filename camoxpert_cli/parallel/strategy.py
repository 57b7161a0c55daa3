"""Strategies for the devices of a run: a single one, several with DataParallel, or several with one process each.

A run has one strategy, chosen once, and everything that depends on it is a method here; other code uses its name only
for display. A new strategy is a class here and a value of the setting `run.strategy`. If it shards tensors over ranks,
checkpoints have to be gathered and scattered as well, in `engine/saving.py` and `restoring.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from camoxpert_cli.data.sampling import own_share, ranks_with_samples
from camoxpert_cli.errors import UsageError
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.gradients import leave_idle_experts, sum_over_ranks
from camoxpert_cli.parallel.overlap import Overlap
from camoxpert_cli.parallel.running_statistics import RunningStatistics
from camoxpert_cli.parallel.sync_batchnorm import synchronise, within_group
from camoxpert_cli.parallel.world import World

StrategyName = Literal["single", "dp", "ddp"]


class Strategy:
    """Interface of a strategy for training; the defaults are for a process with its own device.

    `step` is a module around `network`. It accepts images and masks and returns a named tuple of tensors, which are
    concatenated along their first dimension if several devices compute a part each. Both modules are moved to the first
    device.
    """

    name: ClassVar[StrategyName]
    description: ClassVar[str]
    needs_gpus: ClassVar[bool] = False
    # Whether the sum of gradients can be timed on its own, apart from the backward pass.
    communication_is_measurable: ClassVar[bool] = True
    # Whether parts of the network may be compiled in place.
    can_compile: ClassVar[bool] = True

    @classmethod
    def refuse(cls, devices: Sequence[torch.device], count: int, processes: int) -> None:
        """Raise UsageError if it cannot use `devices` of this machine, `count` in total, with `processes` processes."""

    @classmethod
    def refuse_sync_batchnorm(cls, devices: Sequence[torch.device]) -> None:
        """Raise UsageError if BatchNorm cannot be synchronized over `devices`."""
        if devices[0].type == "cpu":
            raise UsageError(
                "--sync-batchnorm needs GPUs, but this run is on the CPU",
                "--no-sync-batchnorm (with camox resume: --set train.sync_batchnorm=off)",
            )

    @classmethod
    def processes(cls, devices: int) -> int:
        """Return how many processes it needs for this number of devices."""
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
        """Set it up; `devices` are those that this process may use, its own first."""
        self.step, self.network, self.world = step, network, world
        self.devices = self._own(devices)
        self.sync_batchnorm = sync_batchnorm and world.size > 1
        if self.sync_batchnorm:
            synchronise(network)
        step.to(self.device)
        self._statistics = RunningStatistics(network)
        self.wrap()

    @property
    def device(self) -> torch.device:
        """The device of this process's tensors: the first of `devices`, on all of which it computes."""
        return self.devices[0]

    def wrap(self) -> None:
        """Rebuild the module that runs the step on all devices; call it whenever the set of trained parameters changes.

        torch's DistributedDataParallel only handles parameters that were trained when it was created.
        """
        self._wrapped = self._wrap()

    def forward(self, images: Tensor, masks: Tensor) -> Any:
        """Return the step's output for this process's part of a batch, which may have no images."""
        return self._wrapped(
            images.to(self.device, non_blocking=True),
            masks.to(self.device, non_blocking=True),
        )

    def batch(self, size: int, ends_step: bool = True) -> AbstractContextManager[Any]:
        """Return a context for the forward and backward pass of a batch of `size` images over all ranks.

        Every rank must enter it, even without images of the batch. Inside, synchronized BatchNorm covers all of them.
        `ends_step` is False if the gradients of further batches are accumulated.
        """
        if not own_share(size, self.world.rank, self.world.size):
            self._statistics.count_missed_batch()
        if not self.sync_batchnorm:
            return nullcontext()
        self.world.require_all()  # the layers' own collectives do not detect a missing rank
        # Ranks without images do not call the layers, and the others must not wait for them.
        return within_group(self.network, self.world.group(ranks_with_samples(size, self.world.size)))

    def reduce_gradients(self, trained: Sequence[nn.Parameter], chosen: Tensor, own: int = 0, images: int = 0) -> None:
        """Replace the gradients of `trained` by those of the whole step, the same on every rank; once per step.

        Gradients stay None for unselected experts; `chosen` (L, E) counts this process's images per expert. If the step
        has `images`, `own` of them this process's, BatchNorm's running statistics become their average over ranks.
        """

    def clip_gradients(self, trained: Sequence[nn.Parameter], norm: float) -> Tensor:
        """Clip the reduced gradients to `norm`, and return their norm before clipping, without waiting for it."""
        return torch.nn.utils.clip_grad_norm_(trained, norm)

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
            raise UsageError(f"strategy single cannot use {count} devices", "--gpus 1, or --strategy ddp")


class Dp(Strategy):
    """torch's DataParallel: one process copies the network to all GPUs for each batch."""

    name = "dp"
    description = "DataParallel, one process for all GPUs"
    needs_gpus = True
    communication_is_measurable = False
    can_compile = False  # a replica would call the code compiled for the original, with the original's weights

    @classmethod
    def refuse(cls, devices: Sequence[torch.device], count: int, processes: int) -> None:
        if processes > 1:
            raise UsageError(f"{processes} processes were started, but strategy dp uses only one", "--strategy ddp")
        if devices[0].type == "cpu":
            raise UsageError(
                "strategy dp needs several GPUs, but this run is on the CPU",
                "--strategy ddp --device cpu --gpus 2 trains in two processes",
            )

    @classmethod
    def refuse_sync_batchnorm(cls, devices: Sequence[torch.device]) -> None:
        super().refuse_sync_batchnorm(devices)
        raise UsageError(
            "--sync-batchnorm works between processes, but strategy dp uses one process for all GPUs",
            "--strategy ddp; or --no-sync-batchnorm, with camox resume --set train.sync_batchnorm=off",
        )

    def reduce_gradients(self, trained: Sequence[nn.Parameter], chosen: Tensor, own: int = 0, images: int = 0) -> None:
        leave_idle_experts(self.network, chosen)

    def _own(self, devices: Sequence[torch.device]) -> tuple[torch.device, ...]:
        return tuple(devices)

    def _wrap(self) -> nn.Module:
        return nn.DataParallel(self.step, list(self.devices))


class Ddp(Strategy):
    """torch's DistributedDataParallel: one process per device, gradients summed during the backward pass.

    Experts, which may have no gradient on some ranks or on all, are summed after it; so is everything in a step whose
    last batch has no image for some rank, and in the first step after `wrap`, which shows what has a gradient.
    """

    name = "ddp"
    description = "DistributedDataParallel, one process per device"

    @classmethod
    def processes(cls, devices: int) -> int:
        return devices

    def wrap(self) -> None:
        super().wrap()
        self._overlap: Overlap | None = None
        # Whether the step under way ends with a batch of which every rank has images.
        self._is_full = False

    @contextmanager
    def batch(self, size: int, ends_step: bool = True) -> Iterator[None]:
        self._is_full = ends_step and size >= self.world.size
        summing = nullcontext() if self._overlap is None else self._overlap.batch(sums=self._is_full)
        with super().batch(size, ends_step), summing:
            yield

    def reduce_gradients(self, trained: Sequence[nn.Parameter], chosen: Tensor, own: int = 0, images: int = 0) -> None:
        if self.world.size == 1:
            return
        if self.sync_batchnorm:
            # Equal on all ranks that took part in every batch, as the last rank always does: use its values.
            own, images = int(self.world.rank == self.world.size - 1), min(images, 1)
        summed = self._overlap.parameters if self._overlap and self._is_full else frozenset()
        left = [each for each in trained if each not in summed]
        statistics = self._statistics.weighted(own) if images else []
        ranks = sum_over_ranks(left, statistics, self.world)
        self._statistics.divide(statistics, images)
        if self._overlap is None and self._is_full:
            self._overlap_those_of_all_ranks(left, ranks)
        self._is_full = False

    def _overlap_those_of_all_ranks(self, parameters: Sequence[nn.Parameter], ranks: Sequence[int]) -> None:
        """Sum during the next backward passes what all ranks had a gradient for, except for experts."""
        experts = {each for layer in self.network.moe_layers for each in layer.get_submodule("experts").parameters()}
        in_step = {*self.step.parameters()}
        always = [
            each
            for each, count in zip(parameters, ranks, strict=True)
            if count == self.world.size and each in in_step and each not in experts
        ]
        if always:
            self._overlap = Overlap(self.step, always, self.world)
            self._wrapped = self._overlap.module


STRATEGIES: dict[str, type[Strategy]] = {each.name: each for each in (Single, Dp, Ddp)}
# Candidates for several GPUs: trials choose among them; the first is used if they tie or no trials are run.
FOR_SEVERAL: tuple[StrategyName, ...] = (Ddp.name, Dp.name)


def choose_strategy(
    asked: str, devices: Sequence[torch.device], count: int, processes: int, *, sync_batchnorm: bool
) -> StrategyName:
    """Return the strategy for `devices` of this machine, `count` in total; `asked` is the setting `run.strategy`.

    Raises UsageError if it cannot use them, or cannot synchronize BatchNorm although that is requested.
    """
    strategy = STRATEGIES.get(asked, STRATEGIES[FOR_SEVERAL[0]])
    strategy.refuse(devices, count, processes)
    if count == 1:
        strategy = Single
    if sync_batchnorm:
        strategy.refuse_sync_batchnorm(devices)
    return strategy.name


def processes_of(strategy: str, devices: int) -> int:
    """Return how many processes the named strategy needs for `devices` devices; 1 if trials would choose it."""
    return STRATEGIES[strategy].processes(devices) if strategy in STRATEGIES else 1
