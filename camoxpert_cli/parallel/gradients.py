"""Reduce the gradients of an optimizer step over all ranks, so that each rank makes the same step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World

# Values per bucket, as in DistributedDataParallel: 25 MB.
_BUCKET = 25 * 2**18


@torch.no_grad()
def all_reduce_gradients(parameters: Sequence[nn.Parameter], world: World) -> None:
    """Replace each gradient by its sum over ranks, in a fixed order and so bitwise identical on all.

    A rank may lack a gradient that others have: that of an expert selected for none of its images, or all gradients if
    a batch had no image for it. Gradients that no rank has stay None, so that the optimizer skips the parameter, as on
    one GPU. Call this once per optimizer step, after all accumulated batches: an expert used in any of them counts.
    """
    if world.size == 1:
        return
    # On the CPU: the flags are computed and needed there, and a missing rank is detected there.
    used = world.all_reduce(torch.tensor([float(each.grad is not None) for each in parameters])).tolist()
    chosen = [each for each, count in zip(parameters, used, strict=True) if count]
    for each in chosen:
        if each.grad is None:
            each.grad = torch.zeros_like(each)
    _all_reduce_in_buckets([each.grad for each in chosen if each.grad is not None], world)


def leave_idle_experts(network: CamoXpert, chosen: Tensor) -> None:
    """Set the gradients of experts that were selected for no image of a step to None; `chosen` (L, E) counts images.

    DataParallel returns zeros for parameters that none of its replicas used, with which AdamW would still apply weight
    decay and its momentum. With other strategies they have no gradient to begin with.
    """
    layers: Any = network.moe_layers  # typed as modules, without the names of their parts
    for layer, counts in zip(layers, chosen.tolist(), strict=True):
        for expert, count in zip(layer.experts, counts, strict=True):
            if count == 0:
                for parameter in expert.parameters():
                    parameter.grad = None


@torch.no_grad()
def average_statistics(network: nn.Module, images: int, world: World) -> None:
    """Average the running statistics of BatchNorm over ranks, weighted by the `images` that each rank has seen.

    Each rank normalizes with the statistics of its own images; the statistics kept for validation are the same on all.
    """
    if world.size == 1:
        return
    layers = [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.training]
    kept = [each for layer in layers for each in (layer.running_mean, layer.running_var) if each is not None]
    counts = [layer.num_batches_tracked for layer in layers if layer.num_batches_tracked is not None]
    if not kept:
        return
    weight = torch.full((1,), float(images), device=kept[0].device, dtype=kept[0].dtype)
    for each in kept:
        each.mul_(weight)
    _all_reduce_in_buckets([*kept, weight], world)
    for each in kept:
        each.div_(weight)
    # A rank without images has not counted the batch.
    for count, most in zip(counts, world.all_reduce_max(torch.stack(counts)), strict=True):
        count.copy_(most)


def _all_reduce_in_buckets(tensors: list[Tensor], world: World) -> None:
    bucket: list[Tensor] = []
    size = 0
    for at, tensor in enumerate(tensors):
        bucket.append(tensor)
        size += tensor.numel()
        if size >= _BUCKET or at == len(tensors) - 1:
            flat = world.all_reduce(torch.cat([each.reshape(-1) for each in bucket]))
            for each, part in zip(bucket, torch.split(flat, [each.numel() for each in bucket]), strict=True):
                each.copy_(part.view_as(each))
            bucket, size = [], 0
