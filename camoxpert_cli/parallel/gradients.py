"""Sum the gradients of an optimizer step over all ranks, so that each rank makes the same step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World

# Values per collective, as in DistributedDataParallel: 25 MB.
_BUCKET = 25 * 2**18


@torch.no_grad()
def sum_over_ranks(parameters: Sequence[nn.Parameter], others: Sequence[Tensor], world: World) -> list[int]:
    """Replace the gradients of `parameters`, and in place the tensors `others`, by their sums over ranks.

    The sums are bitwise identical on all ranks. A rank may lack a gradient that others have: that of an expert selected
    for none of its images, or all gradients if a batch had no image for it. Gradients that no rank has stay None, so
    that the optimizer skips the parameter, as on one GPU. Returns how many ranks had a gradient for each parameter.
    Call this once per optimizer step, after all accumulated batches: an expert used in any of them counts.
    """
    # On the CPU: the flags are known and needed there, and a missing rank is detected there, even if there are none.
    flags = torch.tensor([1.0, *(float(each.grad is not None) for each in parameters)])
    had: list[int] = world.all_reduce(flags)[1:].int().tolist()
    used = [each for each, count in zip(parameters, had, strict=True) if count]
    own = [torch.zeros_like(each) if each.grad is None else each.grad for each in used]
    sums = _sums([*own, *others], world)
    for parameter, total in zip(used, sums, strict=False):
        parameter.grad = total
    if others:
        torch._foreach_copy_(list(others), sums[len(used) :])
    return had


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


def _sums(tensors: list[Tensor], world: World) -> list[Tensor]:
    """The sum of each tensor over ranks, as views of a few large ones."""
    sums: list[Tensor] = []
    bucket: list[Tensor] = []
    size = 0
    for at, tensor in enumerate(tensors):
        bucket.append(tensor)
        size += tensor.numel()
        if size >= _BUCKET or at == len(tensors) - 1:
            # Values in the order in which memory holds them: a channels-last weight needs no copy of its own.
            flat = world.all_reduce(torch.cat([each.as_strided((each.numel(),), (1,)) for each in bucket]))
            parts = torch.split(flat, [each.numel() for each in bucket])
            sums += [
                part.as_strided(each.shape, each.stride(), part.storage_offset())
                for each, part in zip(bucket, parts, strict=True)
            ]
            bucket, size = [], 0
    return sums
