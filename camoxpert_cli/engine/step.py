"""A training step on one device: network and loss in one module, summed over images.

Letters: b images on this device, L MoE layers, E experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from camoxpert_cli import losses
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.layers import at_least_float32
from camoxpert_cli.model.moe import RoutingSums, balance_loss, routing_sums
from camoxpert_cli.model.normalize import Normalize
from camoxpert_cli.parallel.world import World


class StepOutput(NamedTuple):
    """Per-image loss terms (b, 4) in the order bce, iou, edge, deep; routing sums (1, L, E).

    Outputs of several devices are concatenated along the first dimension: nothing here is 0-dimensional.
    """

    terms: Tensor
    chosen: Tensor
    probability: Tensor


class Losses(NamedTuple):
    """Losses of a batch, or a rank's part of them, 0-dimensional each; `total` carries the gradient."""

    total: Tensor
    bce: Tensor
    iou: Tensor
    edge: Tensor
    deep: Tensor
    balance: Tensor


class LossValues(NamedTuple):
    """The same losses as Python numbers."""

    total: float
    bce: float
    iou: float
    edge: float
    deep: float
    balance: float


class TrainingStep(nn.Module):
    """Network and losses: uint8 images and masks in, per-image losses out.

    `autocast_dtype` None computes in float32. Autocast is entered here because its dtype does not propagate to the
    threads of DataParallel's replicas.
    """

    def __init__(self, network: CamoXpert, deep_supervision: bool, autocast_dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network = network
        self.normalize = Normalize(network.normalization)
        self.deep_supervision = deep_supervision
        self.autocast_dtype = autocast_dtype

    def forward(self, images: Tensor, masks: Tensor) -> StepOutput:
        """Compute losses and routing sums of `images` (b, 3, H, W) uint8 and `masks` (b, 1, H, W) uint8 of 0 and 1.

        With b = 0 the network is not called, and nothing returned carries a gradient.
        """
        if not len(images):
            like = next(self.network.parameters()).detach()
            no_experts = like.new_zeros(1, len(self.network.moe_layers), self.network.num_experts)
            return StepOutput(like.new_zeros(0, 4), no_experts, no_experts.clone())
        with torch.autocast(images.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            output = self.network(self.normalize(images))
        with torch.autocast(images.device.type, enabled=False):
            logits = at_least_float32(output.logits)
            targets = masks.to(logits.dtype)
            bce = losses.bce_loss(logits, targets)
            iou = losses.iou_loss(logits, targets)
            edge = losses.edge_loss(logits, targets)
            deep = losses.deep_loss(output.deep_logits, targets) if self.deep_supervision else torch.zeros_like(bce)
            sums = routing_sums(output.routing)
        return StepOutput(torch.stack([bce, iou, edge, deep], dim=1), sums.chosen[None], sums.probability[None])


def combine(output: StepOutput, top_k: int, images: int, world: World) -> Losses:
    """Compute this rank's part of the loss of a batch of `images` images over all ranks.

    `output` belongs to this rank's images, with several devices concatenated along the first dimension. Per-image terms
    are summed over this rank's images and divided by the number of all images, so their sum over ranks is the mean. The
    balance term depends on the whole batch: its value is split evenly, and its gradient is this rank's part of the
    whole. Losses and gradients, summed over ranks, thus equal those of one process with the whole batch.
    """
    bce, iou, edge, deep = output.terms.sum(dim=0) / images
    own = RoutingSums(output.chosen.sum(dim=0), output.probability.sum(dim=0))
    # Constants for autograd, except this rank's own part of the probabilities.
    chosen, probability = world.all_reduce(torch.stack([own.chosen, own.probability.detach()]))
    whole = RoutingSums(chosen, own.probability + (probability - own.probability.detach()))
    balance = balance_loss(whole, images, top_k)
    balance = balance - balance.detach() * (1 - 1 / world.size)
    total = (
        losses.BCE_WEIGHT * bce
        + losses.IOU_WEIGHT * iou
        + losses.EDGE_WEIGHT * edge
        + losses.DEEP_WEIGHT * deep
        + losses.BALANCE_WEIGHT * balance
    )
    return Losses(total, bce, iou, edge, deep, balance)
