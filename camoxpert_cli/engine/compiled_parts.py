"""Backbone and decoder compiled by torch.compile, in place: the modules and the state dict stay as they are."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from camoxpert_cli.data.noise import noise
from camoxpert_cli.engine.step import TrainingStep, combine
from camoxpert_cli.errors import one_line
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World

# What torch.compile does: makes of a function another one that compiles when it is called.
Compiler: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
_Stance: TypeAlias = Literal["default", "eager_on_recompile"]

compile_statically: Compiler = partial(torch.compile, dynamic=False)


class CompiledParts:
    """The parts of a network that are compiled for training: its backbone, decoder blocks and final head.

    Gates and experts stay eager, since the number of images of an expert changes with every batch. Nothing is compiled
    except by `start`: batches of other sizes, such as the last one of an epoch, and evaluation run eagerly.
    """

    def __init__(self, step: TrainingStep, workers: int = 1, compiler: Compiler = compile_statically) -> None:
        """Compile nothing yet; `step` is the module around the network, `workers` the processes that may compile it."""
        self._step, self._workers, self.compiler = step, workers, compiler
        self._parts: list[_Part] = []

    @property
    def are_compiled(self) -> bool:
        """Whether training steps use compiled code."""
        return bool(self._parts)

    def start(self, batch: int, side: int, device: torch.device) -> str:
        """Compile for batches of `batch` images of `side` pixels on `device`, as the network is trained now.

        Makes one forward and backward pass over noise, after which weights, gradients, BatchNorm statistics and random
        state are as before. Returns why it failed, whatever the reason; empty if it did not. After a failure, all parts
        are eager.
        """
        self.stop()
        # Also bounds the number of compilations of one function, which torch limits: phases of a run share functions.
        torch.compiler.reset()
        network = self._step.network
        network.train()
        for module in compiled_modules(network):
            part = _Part(module, network, self.compiler)
            module._compiled_call_impl = part  # as Module.compile() does; copies of the module do not get it
            self._parts.append(part)
        try:
            with _quietly(), _compile_workers(self._workers):
                _rehearse(self._step, batch, side, device)
        except Exception as error:  # compilers fail with errors of any class
            self.stop()
            return one_line(_reason(error))
        for part in self._parts:
            part.stance = "eager_on_recompile"  # also for batches of other sizes
        return ""

    def stop(self) -> None:
        """Let all parts run eagerly from now on."""
        for part in self._parts:
            part.module._compiled_call_impl = None
        self._parts = []


class _Part:
    """Calls `module` compiled in training, and eagerly in evaluation."""

    def __init__(self, module: nn.Module, network: CamoXpert, compiler: Compiler) -> None:
        self.module = module
        self.stance: _Stance = "default"
        self._network = network
        self._eager: Callable[..., Any] = module._call_impl
        self._compiled = compiler(self._eager)

    def __call__(self, *inputs: Any) -> Any:
        # A frozen backbone is in eval mode while the rest of the network is trained.
        if not self._network.training:
            return self._eager(*inputs)
        with torch.compiler.set_stance(self.stance):
            return self._compiled(*inputs)


def compiled_modules(network: CamoXpert) -> list[nn.Module]:
    """Return the modules of the network that are compiled: see `CompiledParts`."""
    return [network.backbone, *network.decoder_blocks, network.final_conv]


def _rehearse(step: TrainingStep, batch: int, side: int, device: torch.device) -> None:
    """Compute losses and gradients of a batch of noise, without a trace."""
    network = step.network
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    buffers = list(network.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            loss = combine(step(*noise(batch, side, device)), network.top_k, batch, World()).total
            # Not backward(), which would add to the gradients and run the hooks that sum them over ranks.
            torch.autograd.grad(loss, trained, allow_unused=True)
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


def _reason(error: BaseException) -> str:
    """The compiler's own message: torch puts it below a line that only names the backend."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith("raised:")), type(error).__name__)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's own warnings, which advise on how to write code for the compiler."""
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _compile_workers(count: int) -> Iterator[None]:
    """Let torch compile in at most `count` processes, and end them: they would keep their memory until the run ends."""
    from torch._inductor import config

    with config.patch(compile_threads=count):
        try:
            yield
        finally:
            if (pools := sys.modules.get("torch._inductor.async_compile")) is not None:
                pools.shutdown_compile_workers()
