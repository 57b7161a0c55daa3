"""Small steps on one device and on several, each compared with what another way of computing gives."""

from __future__ import annotations

import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from camoxpert_cli.engine.doctor.readings import GpuTrial, Peers, TeamTrial
from camoxpert_cli.engine.doctor.words import one_line
from camoxpert_cli.engine.precision import choose_dtype

# Of the largest value: bfloat16 keeps 8 bits, and TF32 convolutions 10. What is broken is wrong by more.
_TOLERANCE = 0.05
# Values in the all-reduce: 64 MiB on GPUs, half of what a step of edgenext_base sums.
_GPU_VALUES = 16 * 2**20
_CPU_VALUES = 2**18
_WARM_UP, _REPETITIONS = 3, 10
_SECONDS = 60
# As training does in float16, in which small gradients vanish.
_LOSS_SCALE = 1024


def try_device(name: str) -> GpuTrial:
    """A kernel, then a convolution in mixed precision, forward and backward, on one device. Raises what CUDA raises."""
    device = torch.device(name)
    free = 0
    if device.type == "cuda":
        torch.cuda.set_device(device)
        free = torch.cuda.mem_get_info(device)[0]
    dtype = choose_dtype("auto", device)
    number_format = str(dtype or torch.float32).removeprefix("torch.")
    try:
        # A card that the build has no kernels for is there, and holds tensors: only computing shows it.
        if (torch.ones(1, device=device) + 1).item() != 2:
            return GpuTrial(free, "1 + 1 is not 2 on it", number_format=number_format)
    except (RuntimeError, AssertionError) as error:
        return GpuTrial(free, one_line(error), number_format=number_format)
    try:
        own = _step(device, dtype)
        expected = _step(torch.device("cpu"), None)
        difference = largest_difference(own, expected)
        wrong = f"its gradients differ from the CPU's by {difference:.1%}" if difference > _TOLERANCE else ""
        return GpuTrial(free, convolution=wrong, number_format=number_format)
    except RuntimeError as error:
        return GpuTrial(free, convolution=one_line(error), number_format=number_format)


def try_peers(numbers: list[int]) -> Peers:
    """Copy between all ordered pairs of these GPUs, directly where they can, and look at what arrives."""
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
    """A step of DataParallel on GPUs, uneven batch; raises RuntimeError where its gradients are not one GPU's."""
    first = torch.device(devices[0])
    images = _images(2 * len(devices) + 1).to(first)
    network = _network().to(first)
    team = nn.DataParallel(network, [torch.device(each) for each in devices])
    team(images).square().mean().backward()
    return TeamTrial(_accept(_gradients(network), _gradients_of_one(images)))


def try_ddp(rank: int, devices: list[str], store: str) -> TeamTrial:
    """One rank of a step of DistributedDataParallel and of a timed all-reduce, NCCL on GPUs and gloo on CPUs.

    `store` is a path that does not exist yet, the same for all ranks. Raises RuntimeError as `try_data_parallel` does.
    """
    device, size = torch.device(devices[rank]), len(devices)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=_SECONDS),
    )
    images = _images(2 * size).to(device)
    network = _network().to(device)
    team = nn.parallel.DistributedDataParallel(network, [device] if on_gpu else None)
    team(images[2 * rank : 2 * rank + 2]).square().mean().backward()
    difference = _accept(_gradients(network), _gradients_of_one(images))
    bandwidth = _all_reduce_bandwidth(device, size)
    dist.destroy_process_group()
    return TeamTrial(difference, bandwidth)


def largest_difference(values: list[Tensor], expected: list[Tensor]) -> float:
    """Between tensors and those expected, relative to the largest value expected; infinity for what is not finite."""
    largest = max(each.abs().max().item() for each in expected)
    difference = max(
        (own.double().cpu() - each.double().cpu()).abs().max().item()
        for own, each in zip(values, expected, strict=True)
    )
    return difference / largest if difference == difference else float("inf")


def _accept(values: list[Tensor], expected: list[Tensor]) -> float:
    difference = largest_difference(values, expected)
    if difference > _TOLERANCE:
        raise RuntimeError(f"its gradients differ from one device's by {difference:.1%}")
    return difference


def _all_reduce_bandwidth(device: torch.device, size: int) -> float:
    values = torch.ones(_GPU_VALUES if device.type == "cuda" else _CPU_VALUES, device=device)
    started = 0.0
    for repetition in range(_WARM_UP + _REPETITIONS):
        if repetition == _WARM_UP:
            _finish(device)
            started = time.perf_counter()
        values.fill_(1.0)
        dist.all_reduce(values)
    _finish(device)
    seconds = (time.perf_counter() - started) / _REPETITIONS
    if not bool((values == size).all()):
        raise RuntimeError(f"the sum of {size} ones is not {size}")
    return 2 * (size - 1) / size * values.numel() * values.element_size() / seconds


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _network() -> nn.Module:
    """Two convolutions with the same weights everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 4, 3, padding=1))


def _images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _step(device: torch.device, dtype: torch.dtype | None) -> list[Tensor]:
    """The gradients of a forward and backward pass, in mixed precision where `dtype` is given."""
    network = _network().to(device).to(memory_format=torch.channels_last)
    images = _images(4).to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        output = network(images)
    (_LOSS_SCALE * output.float().square().mean()).backward()
    return _gradients(network)


def _gradients_of_one(images: Tensor) -> list[Tensor]:
    network = _network().to(images.device)
    network(images).square().mean().backward()
    return _gradients(network)


def _gradients(network: nn.Module) -> list[Tensor]:
    return [each.grad for each in network.parameters() if each.grad is not None]
