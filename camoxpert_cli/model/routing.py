"""Prescribed routing instead of gates, for measurements with random weights.

Random gates select nearly the same experts for every image. Trained gates use all experts, which takes more calls, and
over an epoch they also use those that need the most memory.

Notation: B images, K experts selected per image, E experts in total.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.moe import MixtureOfExperts


@contextmanager
def spread(network: CamoXpert, first: int = 0) -> Iterator[None]:
    """Route image b of a batch to experts (b + first) * K ... (b + first) * K + K - 1, modulo E, in each mixture layer.

    So E / K images use all experts. Each DataParallel replica counts its own images. Keep the context active during
    the backward pass: activation checkpointing runs the layers, and so the routing, again.
    """
    top_k, experts = network.top_k, network.num_experts
    rows = [[((first + image) * top_k + at) % experts for at in range(top_k)] for image in range(experts)]
    with _routed(network, [rows] * len(network.moe_layers)):
        yield


@contextmanager
def only(network: CamoXpert, chosen: Sequence[Sequence[int]]) -> Iterator[None]:
    """Route all images to the same K experts per mixture layer. Keep it active during the backward pass as well."""
    with _routed(network, [[experts] for experts in chosen]):
        yield


def costliest(network: CamoXpert, images: Tensor, autocast_dtype: torch.dtype | None) -> list[list[int]]:
    """Return, for each mixture layer, the K experts whose forward passes save the most bytes for the backward pass.

    Each expert is measured on as many inputs as there are `images` (B, 3, H, W), at the size that its layer receives.
    `network` must be in training mode, in which dropout saves its masks.
    """
    with torch.autocast(images.device.type, autocast_dtype, enabled=autocast_dtype is not None):
        kept = [
            [_bytes_kept(expert, features) for expert in layer.experts]
            for layer, features in zip(_layers(network), _features(network, images), strict=True)
        ]
    return [sorted(sorted(range(len(layer)), key=layer.__getitem__)[-network.top_k :]) for layer in kept]


@contextmanager
def _routed(network: CamoXpert, plan: Sequence[Sequence[Sequence[int]]]) -> Iterator[None]:
    """Route image b of a batch to the experts in row b, modulo the number of rows, of each layer's part of `plan`."""
    device = next(network.parameters()).device
    with ExitStack() as hooks:
        for layer, rows in zip(_layers(network), plan, strict=True):
            # A hook, since DataParallel copies hooks to its replicas; stateless, because replicas run concurrently.
            hook = partial(_choose, torch.tensor(rows, device=device))
            hooks.callback(layer.gate.register_forward_hook(hook).remove)
        yield


def _choose(rows: Tensor, gate: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
    """Logits (B, E, 1, 1) that are 1 for the prescribed experts and 0 for others, with the gate's own gradient."""
    images = torch.arange(len(logits), device=logits.device) % len(rows)
    chosen = rows.to(logits.device)[images]
    own = logits.nan_to_num(0.0, 0.0, 0.0)  # random weights may overflow in half precision
    return own - own.detach() + torch.zeros_like(own).scatter(1, chosen[..., None, None], 1.0)


def _layers(network: CamoXpert) -> list[MixtureOfExperts]:
    layers: Any = network.moe_layers  # typed as modules, without the names of their parts
    return list(layers)


@torch.no_grad()
def _features(network: CamoXpert, images: Tensor) -> list[Tensor]:
    """The input of each mixture layer. Runs in eval mode, so that running statistics do not change."""
    features: list[Tensor] = []
    mode = network.training
    with ExitStack() as hooks:
        for layer in _layers(network):
            hooks.callback(layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0])).remove)
        network.eval()(images)
    network.train(mode)
    return features


def _bytes_kept(module: nn.Module, features: Tensor) -> int:
    """Bytes of the storages that autograd saves from a forward pass, excluding the weights."""
    weights = {each.untyped_storage().data_ptr() for each in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        output = module(features.detach().requires_grad_())
    del output  # until here the graph kept the counted storages alive, so that no address was reused
    return sum(kept.values())
