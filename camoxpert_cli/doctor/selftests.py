"""Small training steps on one device and on several, each checked against a reference computation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.data.noise import noise
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.doctor.readings import GpuTrial, Peers, TeamTrial
from camoxpert_cli.engine.build import RunData, build_network
from camoxpert_cli.engine.run import assemble
from camoxpert_cli.engine.stages import WHOLE_BACKBONE
from camoxpert_cli.engine.state import set_trained
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.engine.training_steps import backward
from camoxpert_cli.errors import one_line
from camoxpert_cli.model.routing import spread
from camoxpert_cli.parallel.device import Placement
from camoxpert_cli.parallel.precision import choose_dtype
from camoxpert_cli.parallel.world import World, member
from camoxpert_cli.run_folder import RunFolder

# Relative to a tensor's largest value: bfloat16 keeps 8 bits, TF32 convolutions 10. Broken hardware is further off.
_TOLERANCE = 0.05
_SMALL = 1e-4
# Values in the all_reduce: 64 MiB on GPUs, half of what a step of edgenext_base reduces.
_GPU_VALUES = 16 * 2**20
_CPU_VALUES = 2**18
_WARM_UP, _REPETITIONS = 3, 10
_SECONDS = 60
# Overrides of quickstart. EMA weights are not tested.
SETTINGS = {"train.precision": "fp32", "train.use_ema": "off", "run.device": "auto"}
# As in float16 training, where small gradients underflow.
_LOSS_SCALE = 1024


def try_device(name: str) -> GpuTrial:
    """Run a kernel, then a mixed-precision convolution, forward and backward, on one device. CUDA errors propagate."""
    device = torch.device(name)
    free = 0
    if device.type == "cuda":
        torch.cuda.set_device(device)
        free = torch.cuda.mem_get_info(device)[0]
    dtype = choose_dtype("auto", device)
    dtype_name = str(dtype or torch.float32).removeprefix("torch.")
    try:
        # A GPU for which the build has no kernels can still store tensors: only a computation fails.
        if (torch.ones(1, device=device) + 1).item() != 2:
            return GpuTrial(free, "it computes 1 + 1 wrongly", dtype=dtype_name)
    except (RuntimeError, AssertionError) as error:
        return GpuTrial(free, one_line(error), dtype=dtype_name)
    try:
        own = _step(device, dtype)
        expected = _step(torch.device("cpu"), None)
        difference = largest_difference(own, expected)
        wrong = f"its gradients differ from the CPU's by {difference:.1%}" if difference > _TOLERANCE else ""
        return GpuTrial(free, convolution=wrong, dtype=dtype_name)
    except RuntimeError as error:
        return GpuTrial(free, convolution=one_line(error), dtype=dtype_name)


def try_peers(numbers: list[int]) -> Peers:
    """Copy between all ordered pairs of these GPUs, directly if they can, and compare what arrives."""
    direct, wrong = 0, []
    expected = torch.arange(2**18, dtype=torch.float32)
    pairs = [(source, target) for source in numbers for target in numbers if source != target]
    for source, target in pairs:
        direct += torch.cuda.can_device_access_peer(target, source)
        arrived = expected.to(f"cuda:{source}").to(f"cuda:{target}")
        if not torch.equal(arrived.cpu(), expected):
            wrong.append(f"{source} to {target}")
    return Peers(len(pairs), direct, tuple(wrong))


def try_data_parallel(devices: list[str]) -> TeamTrial:
    """Run one DataParallel step on an uneven batch. Raises RuntimeError if its gradients differ from one GPU's."""
    placement = Placement("dp", tuple(map(torch.device, devices)), len(devices))
    images, masks = _noise(2 * len(devices) + 1)
    gradients = _training_gradients(placement, World(), images, masks, len(images))
    alone = Placement("single", placement.devices[:1], 1)
    return TeamTrial(_accept(gradients, _training_gradients(alone, World(), images, masks, len(images))))


def try_ddp(rank: int, devices: list[str], store: str) -> TeamTrial:
    """Run one rank of a training step with one process per device, and a timed all_reduce (NCCL on GPUs, else gloo).

    `store` is a path that does not exist yet, the same for all ranks. Raises RuntimeError as `try_data_parallel` does.
    """
    size, device = len(devices), torch.device(devices[rank])
    placement = Placement("ddp", tuple(map(torch.device, devices)), size)
    images, masks = _noise(2 * size)
    first = 2 * rank
    own = slice(first, first + 2)
    with member(rank, size, rank, size, f"file://{store}", timedelta(seconds=_SECONDS)) as world:
        # Each rank has images for experts for which another rank has none.
        gradients = _training_gradients(placement, world, images[own], masks[own], len(images), first=first)
        alone = Placement("single", (device,), 1)
        difference = _accept(gradients, _training_gradients(alone, World(), images, masks, len(images), first=0))
        bandwidth = all_reduce_bandwidth(device, world)
        world.require_all()  # no rank leaves while another still reduces
    return TeamTrial(difference, bandwidth)


def largest_difference(values: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference from `expected`, relative to each tensor's largest expected value.

    Infinity if a value is not finite. A tensor whose values are far below all others' is mostly rounding error, so its
    scale is at least `_SMALL` times the largest of all.
    """
    largest = [each.abs().max().item() for each in expected]
    least = _SMALL * max(largest)
    differences = [
        (own.double().cpu() - each.double().cpu()).abs().max().item() / max(size, least)
        for own, each, size in zip(values, expected, largest, strict=True)
    ]
    return max(differences) if all(map(math.isfinite, differences)) else math.inf


def _noise(count: int) -> tuple[Tensor, Tensor]:
    return noise(count, 64, torch.device("cpu"), torch.Generator().manual_seed(1))


def _training_gradients(
    placement: Placement, world: World, images: Tensor, masks: Tensor, size: int, first: int | None = None
) -> list[Tensor | None]:
    """Gradients of this process's part of a batch of `size` images, summed over ranks.

    Uses the network of the quickstart preset and the functions that train it. `first` is the index of the first image
    in the batch: experts are then assigned to images in rotation; if it is None, the gates select them. None for
    experts to which no image was routed.
    """
    config = resolve("quickstart", SETTINGS).config
    network = build_network(config.model, config.train.seed, weights_follow=False)
    data = RunData((), [Pair("", Path(), Path())] * size, [], {}, generated=True)
    run = assemble(config, RunFolder(Path(), writes=False), data, network, placement, world, Deadline())
    set_trained(run.state, run.strategy, config, WHOLE_BACKBONE)
    run.state.network.eval()  # BatchNorm would see the images of one device
    with nullcontext() if first is None else spread(run.state.network, first):
        _, chosen = backward(run, images, masks, epoch=0, size=size, share=1.0)
    parameters = list(run.state.network.parameters())
    run.strategy.reduce_gradients(parameters, chosen)
    return [each.grad for each in parameters]


def _accept(gradients: list[Tensor | None], expected: list[Tensor | None]) -> float:
    """Return how far gradients are from those of a single device. Raises RuntimeError if that is too far."""
    if [each is None for each in gradients] != [each is None for each in expected]:
        raise RuntimeError("it updates different weights than a single device")
    difference = largest_difference(
        [each for each in gradients if each is not None], [each for each in expected if each is not None]
    )
    if difference > _TOLERANCE:
        raise RuntimeError(f"its gradients differ from a single device's by {difference:.1%}")
    return difference


def all_reduce_bandwidth(device: torch.device, world: World, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return bytes/s over each link of a ring; `clock` returns seconds. Raises RuntimeError if the sums are wrong."""
    values = torch.ones(_GPU_VALUES if device.type == "cuda" else _CPU_VALUES, device=device)
    started = 0.0
    for repetition in range(_WARM_UP + _REPETITIONS):
        if repetition == _WARM_UP:
            _finish(device)
            started = clock()
        values.fill_(1.0)
        world.all_reduce(values)
    _finish(device)
    seconds = (clock() - started) / _REPETITIONS
    if not bool((values == world.size).all()):
        raise RuntimeError(f"the sum of {world.size} ones is not {world.size}")
    return 2 * (world.size - 1) / world.size * values.numel() * values.element_size() / seconds


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _network() -> nn.Module:
    """Two convolutions with the same weights on every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 4, 3, padding=1))


def _images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _step(device: torch.device, dtype: torch.dtype | None) -> list[Tensor]:
    """Gradients of a forward and backward pass, in mixed precision if `dtype` is given."""
    network = _network().to(device).to(memory_format=torch.channels_last)
    images = _images(4).to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        output = network(images)
    (_LOSS_SCALE * output.float().square().mean()).backward()
    return _gradients(network)


def _gradients(network: nn.Module) -> list[Tensor]:
    return [each.grad for each in network.parameters() if each.grad is not None]
