"""BatchNorm with the statistics of all ranks' pictures: each normalises as one process with the whole batch would.

torch's own SyncBatchNorm needs GPUs, where this one also works with processes on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.device import Placement
from camoxpert_cli.engine.world import Part
from camoxpert_cli.errors import UsageError
from camoxpert_cli.model.layers import at_least_float32


def refuse_data_parallel(config: Config, placement: Placement) -> None:
    """Raise UsageError where BatchNorm shall be synchronised and a single process works on several GPUs."""
    if config.train.sync_batchnorm and placement.strategy == "dp":
        raise UsageError(
            "--sync-batchnorm works between processes, and strategy dp is one process for all GPUs",
            "--strategy ddp, or --no-sync-batchnorm",
        )


@contextmanager
def synchronised(network: nn.Module, part: Part | None) -> Iterator[None]:
    """BatchNorm layers of `network` that are in training mode normalise over the batches of all ranks of `part`.

    Forward and backward pass belong inside; afterwards the layers are what they were. Each rank of `part` has samples
    and calls the same layers in the same order. On other ranks (None) and for a part of one rank nothing changes.
    """
    if part is None or part.size == 1:
        yield
        return
    norms = [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.training]
    for norm in norms:
        # The layer's own forward around it: timm's BatchNorm goes on with an activation.
        norm.forward = partial(_replacing_batch_norm, norm.forward, part)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def sync_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    part: Part,
) -> Tensor:
    """`F.batch_norm` in training over the samples of all ranks of `part`; `x` (B, C, ...), also of another B on each.

    Statistics are computed in float32 at least, and the running ones updated. Gradients of `weight` and `bias` are this
    rank's share: summed over ranks they are those of the whole batch.
    """
    mean, squares, count = _moments(x.detach(), part)
    variance = squares / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((squares / (count - 1)).to(running_var.dtype), momentum)
    normalised: Tensor = _Normalise.apply(x, weight, bias, mean, variance, count, eps, part)
    return normalised


def _replacing_batch_norm(forward: Callable[[Tensor], Tensor], part: Part, x: Tensor) -> Tensor:
    with _ReplacingBatchNorm(part):
        return forward(x)


class _ReplacingBatchNorm(TorchFunctionMode):
    """Has `F.batch_norm` be that over all ranks.

    Entered by each layer, not around the network: gradient checkpointing calls layers from threads of autograd's.
    """

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        assert training
        return sync_batch_norm(input, running_mean, running_var, weight, bias, momentum, eps, self.part)


def _moments(x: Tensor, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), sum of squared deviations from it (C,) and number of values a channel (0-dimensional), over ranks.

    Of each rank's own three by the formula of Chan et al. 1982, which does not subtract large sums from each other.
    """
    variance, mean = torch.var_mean(at_least_float32(x), dim=_all_but_channels(x), correction=0)
    own_count = x.numel() // x.shape[1]
    # Each fills its row, so that their sum is all of them, the same on each rank.
    rows = mean.new_zeros(part.size, 2 * len(mean) + 1)
    rows[part.rank] = torch.cat([mean, variance * own_count, mean.new_full((1,), own_count)])
    means, squares, counts = torch.split(part.sum(rows), [len(mean), len(mean), 1], dim=1)
    count = counts.sum()
    mean = (means * counts).sum(dim=0) / count
    return mean, (squares + counts * (means - mean) ** 2).sum(dim=0), count


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, with mean and variance of `x` over all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
        part: Part,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.part = part
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        gradient = at_least_float32(gradient)
        normalised = (at_least_float32(x) - _beside(mean, x)).mul_(_beside(scale, x))
        dims = _all_but_channels(x)
        of_bias = gradient.sum(dims)
        of_weight = (gradient * normalised).sum(dims)
        of_x = None
        if ctx.needs_input_grad[0]:
            # A value moves the mean and the variance that all ranks normalise with.
            sums = ctx.part.sum(torch.cat([of_weight, of_bias])) / count
            of_mean_and_variance = normalised.mul_(_beside(sums[: len(mean)], x)).add_(_beside(sums[len(mean) :], x))
            of_x = torch.sub(gradient, of_mean_and_variance, out=of_mean_and_variance)
            of_x = of_x.mul_(_beside(scale if weight is None else scale * weight, x)).to(x.dtype)
        return (
            of_x,
            of_weight if ctx.needs_input_grad[1] else None,
            of_bias if ctx.needs_input_grad[2] else None,
            *[None] * 5,
        )


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))


def _beside(channels: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), as many dimensions as `x` has."""
    return channels.view(1, -1, *[1] * (x.dim() - 2))
