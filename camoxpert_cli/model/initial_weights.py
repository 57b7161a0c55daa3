"""The weights a network starts from where torch's own would cost epochs. Names and shapes stay as they are."""

from __future__ import annotations

import math

import torch
from torch import nn

# The share of an image that an animal covers, about.
FOREGROUND = 0.12
# A gate's share of a feature at the start, before it has seen any.
GATE = 0.27


def zero_init_residual_(last: nn.Conv2d) -> None:
    """Zero the last layer of a branch that adds to its input, so that it starts as the identity.

    Goyal et al. 2017, section 5.1, do so with the last normalisation of each residual block.
    """
    nn.init.zeros_(last.weight)
    _fill_bias(last, 0.0)


def init_gate_(gate: nn.Conv2d) -> None:
    """Have the sigmoid behind the last layer of a gate let `GATE` of everything pass.

    Features of a pretrained backbone are large (root mean square 3 to 9 of `tf_efficientnet_lite0`) beside the
    decoder's own, and a random gate is a random mask on them.
    """
    nn.init.zeros_(gate.weight)
    _fill_bias(gate, _logit(GATE))


@torch.no_grad()
def shrink_init_(kernel: nn.Conv2d) -> None:
    """Quarter the kernel of a convolution that BatchNorm follows.

    BatchNorm takes a kernel's size out again, so that what a step changes is its direction, by the rate over that size
    (van Laarhoven 2017, section 3): a small kernel turns fast until training has found a size of its own.
    """
    kernel.weight.mul_(0.25)


def init_foreground_prior_(head: nn.Conv2d) -> None:
    """Have a head of logits say `FOREGROUND` at the start, more or less, and move by about one with its features.

    From 0.5 the first epochs would go into learning that most of an image is background (Lin et al. 2017, section
    4.1). torch's own weights are smaller by the root of six than what keeps a signal's size (He et al. 2015, equation
    10), and a logit that hardly moves takes as long.
    """
    nn.init.kaiming_normal_(head.weight, nonlinearity="relu")
    _fill_bias(head, _logit(FOREGROUND))


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _fill_bias(layer: nn.Conv2d, value: float) -> None:
    assert layer.bias is not None
    nn.init.constant_(layer.bias, value)
