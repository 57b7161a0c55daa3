"""CamoXpert: a backbone, gates and expert mixtures on its four maps, and a decoder.

Letters: B images, H x W the input's size. Names in the state dict are those of the original program.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from camoxpert_cli.model.activation_checkpointing import checkpoint_activations
from camoxpert_cli.model.backbone import STRIDES, maps_of, normalisation_of, parameters_by_stage
from camoxpert_cli.model.decoder import DecoderBlock, final_head, logit_head
from camoxpert_cli.model.enhancement import ChannelSpatialGate
from camoxpert_cli.model.layers import resize
from camoxpert_cli.model.moe import MixtureOfExperts, Routing

LOGIT_LIMIT = 15.0
_LAST_WIDTH = 64


@dataclass(frozen=True)
class CamoXpertOutput:
    """`logits` (B, 1, H, W); `deep_logits` (B, 1, h, w) at strides 16, 8 and 4; the routing of each mixture layer."""

    logits: Tensor
    deep_logits: tuple[Tensor, ...]
    routing: tuple[Routing, ...]


class CamoXpert(nn.Module):
    """The network over a ready backbone from `create_backbone` or `create_pretrained_backbone`.

    Input: (B, 3, H, W) floats normalised by `normalisation`; any H, W from 64 pixels on. `keep_backbone_statistics`
    leaves the backbone's BatchNorm with the running statistics it came with, also where its weights train: those of
    small batches are worse (an ImageNet backbone lost 0.02 of validation IoU to them).
    """

    # Side of the images it was trained on, where it came from a checkpoint that says so.
    img_size: int | None = None

    def __init__(
        self,
        backbone: nn.Module,
        backbone_name: str,
        num_experts: int = 7,
        *,
        gradient_checkpointing: bool = False,
        keep_backbone_statistics: bool = False,
    ) -> None:
        super().__init__()
        channels: list[int] = backbone.feature_info.channels()  # type: ignore[union-attr, operator]
        self.backbone = backbone
        self.backbone_name = backbone_name
        self.num_experts = num_experts
        self.gradient_checkpointing = gradient_checkpointing
        self.keep_backbone_statistics = keep_backbone_statistics
        self.normalisation = normalisation_of(backbone)
        self.sdta_blocks = nn.ModuleList(ChannelSpatialGate(width) for width in channels)
        self.moe_layers = nn.ModuleList(MixtureOfExperts(width, num_experts) for width in channels)
        # Deepest first; the last block has no skip.
        widths = [*channels[::-1], _LAST_WIDTH]
        skips = [*channels[-2::-1], 0]
        self.decoder_blocks = nn.ModuleList(
            DecoderBlock(inputs, skip, outputs)
            for inputs, skip, outputs in zip(widths[:-1], skips, widths[1:], strict=True)
        )
        self.deep_heads = nn.ModuleList(logit_head(width) for width in channels[-2::-1])
        self.final_conv = final_head(_LAST_WIDTH)
        self._frozen_backbone = False
        # Channels last: LayerNorm works on pixels, and convolutions are faster that way on CPUs and tensor cores.
        self.to(memory_format=torch.channels_last)

    @property
    def top_k(self) -> int:
        """Experts chosen for each image."""
        layer = self.moe_layers[0]
        assert isinstance(layer, MixtureOfExperts)
        return layer.top_k

    @cached_property
    def backbone_stages(self) -> list[list[nn.Parameter]]:
        """The backbone's parameters by stage, found once. Raises ConfigError where it takes one image size only."""
        self.backbone.requires_grad_(True)
        return parameters_by_stage(self.backbone, self.backbone_name)

    def set_trainable(self, backbone_stages: int, deep_heads: bool) -> None:
        """Train the last `backbone_stages` (0 to 4) of the backbone and everything behind it.

        A frozen part keeps its BatchNorm statistics and drops nothing: `train()` leaves it in eval mode.
        """
        for stage, parameters in enumerate(self.backbone_stages):
            for parameter in parameters:
                parameter.requires_grad_(stage >= len(STRIDES) - backbone_stages)
        self.deep_heads.requires_grad_(deep_heads)
        # Replicas of DataParallel list no parameters, so what they need to know is a plain attribute.
        self._frozen_backbone = backbone_stages == 0
        self.train(self.training)

    def train(self, mode: bool = True) -> CamoXpert:
        super().train(mode)
        if mode:
            for module in self.backbone.modules():
                parameters = list(module.parameters())
                frozen = parameters and not any(parameter.requires_grad for parameter in parameters)
                keeps = self.keep_backbone_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm)
                if frozen or keeps:
                    module.eval()
        return self

    def forward(self, images: Tensor) -> CamoXpertOutput:
        maps = self._backbone_maps(images.contiguous(memory_format=torch.channels_last))
        enhanced, routing = [], []
        for features, gate, mixture in zip(maps, self.sdta_blocks, self.moe_layers, strict=True):
            mixed, decision = self._run(mixture, gate(features))
            enhanced.append(mixed)
            routing.append(decision)

        x = enhanced[-1]
        deep_logits = []
        for block, skip, head in zip(self.decoder_blocks[:-1], enhanced[-2::-1], self.deep_heads, strict=True):
            x = self._run(block, x, skip)
            deep_logits.append(head(x))
        x = self._run(self.decoder_blocks[-1], x)
        logits = self.final_conv(resize(x, (images.shape[-2], images.shape[-1])))
        if not self.training:
            # In training a clamp would take the gradient from pixels that are badly wrong.
            logits = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
            deep_logits = [deep.clamp(-LOGIT_LIMIT, LOGIT_LIMIT) for deep in deep_logits]
        return CamoXpertOutput(logits, tuple(deep_logits), tuple(routing))

    def _backbone_maps(self, images: Tensor) -> list[Tensor]:
        if self._frozen_backbone:
            with torch.no_grad():
                return maps_of(self.backbone, images)
        if self._checkpoints_activations:
            return list(checkpoint_activations(_Maps(self.backbone), images))
        return maps_of(self.backbone, images)

    def _run(self, module: nn.Module, *inputs: Tensor | None) -> Any:
        return checkpoint_activations(module, *inputs) if self._checkpoints_activations else module(*inputs)

    @property
    def _checkpoints_activations(self) -> bool:
        return self.gradient_checkpointing and self.training and torch.is_grad_enabled()


class _Maps(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(maps_of(self.backbone, images))
