"""Initial weights where torch's defaults would cost epochs of training. Names and shapes do not change."""

from __future__ import annotations

import math

import torch
from torch import nn

# The approximate share of an image that an animal covers.
FOREGROUND = 0.12
# The fraction of a feature that an untrained gate lets pass.
GATE = 0.27


def zero_init_residual_(last: nn.Conv2d) -> None:
    """Zero the last layer of a residual branch, so that the block starts as the identity.

    Goyal et al. 2017, section 5.1, do this with the last normalization layer of each residual block.
    """
    nn.init.zeros_(last.weight)
    _fill_bias(last, 0.0)


def init_gate_(gate: nn.Conv2d) -> None:
    """Initialize the last layer of a gate so that the sigmoid after it outputs `GATE` everywhere.

    Features of a pretrained backbone (root mean square 3 to 9 for `tf_efficientnet_lite0`) are large compared to the
    decoder's own, and a random gate is a random mask on them.
    """
    nn.init.zeros_(gate.weight)
    _fill_bias(gate, _logit(GATE))


@torch.no_grad()
def shrink_init_(kernel: nn.Conv2d) -> None:
    """Divide the kernel of a convolution followed by BatchNorm by four.

    BatchNorm cancels the scale of a kernel, so a step only changes its direction, by the learning rate relative to that
    scale (van Laarhoven 2017, section 3): a small kernel turns fast until training has found a scale for it.
    """
    kernel.weight.mul_(0.25)


def init_foreground_prior_(head: nn.Conv2d) -> None:
    """Initialize a head of logits to predict about `FOREGROUND`, with logits that vary by about one.

    From 0.5, the first epochs would be spent learning that most of an image is background (Lin et al. 2017, section
    4.1). torch's default weights are smaller by a factor of sqrt(6) than those that preserve the variance (He et al.
    2015, equation 10), and logits that hardly vary cost as many epochs.
    """
    nn.init.kaiming_normal_(head.weight, nonlinearity="relu")
    _fill_bias(head, _logit(FOREGROUND))


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _fill_bias(layer: nn.Conv2d, value: float) -> None:
    assert layer.bias is not None
    nn.init.constant_(layer.bias, value)
