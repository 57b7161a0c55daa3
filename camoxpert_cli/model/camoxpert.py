"""CamoXpert: a backbone, gates and expert mixtures on its four feature maps, and a decoder.

Notation: B images, H x W input size. Names in the state dict are those of the original CamoXpert.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from camoxpert_cli.model.activation_checkpointing import checkpoint_activations
from camoxpert_cli.model.backbone import STRIDES, channels_first, normalization_of, parameters_by_stage
from camoxpert_cli.model.backbone_layers import replace_layers
from camoxpert_cli.model.cast_weights import with_cast_weights
from camoxpert_cli.model.decoder import DecoderBlock, final_head, logit_head
from camoxpert_cli.model.enhancement import ChannelSpatialGate
from camoxpert_cli.model.layers import resize
from camoxpert_cli.model.moe import MixtureOfExperts, experts_per_image
from camoxpert_cli.model.routes import Routes, Routing

LOGIT_LIMIT = 15.0
_LAST_WIDTH = 64


@dataclass(frozen=True)
class CamoXpertOutput:
    """`logits` (B, 1, H, W); `deep_logits` (B, 1, h, w) at strides 16, 8 and 4; `routing` of each mixture layer."""

    logits: Tensor
    deep_logits: tuple[Tensor, ...]
    routing: tuple[Routing, ...]


class CamoXpert(nn.Module):
    """The network, built on a backbone from `create_backbone` or `create_pretrained_backbone`.

    Input: (B, 3, H, W) floats normalized with `normalization`, with H and W of at least 64 pixels.
    `keep_backbone_statistics` keeps the running statistics of the backbone's BatchNorm as they are even while its
    weights are trained: those of small batches are worse (an ImageNet backbone lost 0.02 validation IoU with them).
    """

    # Image side it was validated at, if it was loaded from a checkpoint that specifies it.
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
        replace_layers(backbone)
        self.backbone = backbone
        self.backbone_name = backbone_name
        self.num_experts = num_experts
        self.gradient_checkpointing = gradient_checkpointing
        self.keep_backbone_statistics = keep_backbone_statistics
        self.normalization = normalization_of(backbone)
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
        # Channels last: LayerNorm works per pixel, and convolutions on CPUs and tensor cores are faster.
        self.to(memory_format=torch.channels_last)

    @property
    def top_k(self) -> int:
        """Number of experts selected per image."""
        return experts_per_image(self.num_experts)

    @cached_property
    def backbone_stages(self) -> list[list[nn.Parameter]]:
        """The backbone's parameters by stage, cached. Raises ConfigError if it only supports one fixed image size."""
        self.backbone.requires_grad_(True)
        return parameters_by_stage(self.backbone, self.backbone_name)

    def set_trainable(self, backbone_stages: int, deep_heads: bool) -> None:
        """Train the last `backbone_stages` (0 to 4) stages of the backbone and everything after it.

        Frozen parts keep their BatchNorm statistics and apply no dropout: `train()` leaves them in eval mode.
        """
        for stage, parameters in enumerate(self.backbone_stages):
            for parameter in parameters:
                parameter.requires_grad_(stage >= len(STRIDES) - backbone_stages)
        self.deep_heads.requires_grad_(deep_heads)
        # DataParallel replicas have no parameters to inspect, so this is stored as a plain attribute.
        self._frozen_backbone = backbone_stages == 0
        self.train(self.training)

    def train(self, mode: bool = True) -> CamoXpert:
        """Set training mode, except for frozen parts and statistics that are kept."""
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
        """Compute logits and routing for normalized images (B, 3, H, W)."""
        maps = self._backbone_maps(images.contiguous(memory_format=torch.channels_last))
        # The gates depend on the backbone alone: all layers are routed before any expert runs.
        gated = [with_cast_weights(gate, features) for gate, features in zip(self.sdta_blocks, maps, strict=True)]
        layers: Any = self.moe_layers
        routes = Routes([with_cast_weights(layer.gate, x) for layer, x in zip(layers, gated, strict=True)], self.top_k)
        enhanced, routing = [], []
        for number, (layer, features) in enumerate(zip(layers, gated, strict=True)):
            mixed, decision = self._run(layer, features, routes[number])
            enhanced.append(mixed)
            routing.append(decision)

        x = enhanced[-1]
        deep_logits = []
        for block, skip, head in zip(self.decoder_blocks[:-1], enhanced[-2::-1], self.deep_heads, strict=True):
            x = self._run(block, x, skip)
            deep_logits.append(with_cast_weights(head, x))
        x = self._run(self.decoder_blocks[-1], x)
        logits = with_cast_weights(self.final_conv, resize(x, (images.shape[-2], images.shape[-1])))
        if not self.training:
            # In training, clamping would remove the gradient of pixels that are badly wrong.
            logits = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
            deep_logits = [deep.clamp(-LOGIT_LIMIT, LOGIT_LIMIT) for deep in deep_logits]
        return CamoXpertOutput(logits, tuple(deep_logits), tuple(routing))

    def _backbone_maps(self, images: Tensor) -> list[Tensor]:
        if self._frozen_backbone:
            with torch.no_grad():
                return channels_first(self.backbone, with_cast_weights(self.backbone, images))
        return channels_first(self.backbone, self._run(self.backbone, images))

    def _run(self, module: nn.Module, *inputs: Any) -> Any:
        run = checkpoint_activations if self._checkpoints_activations else with_cast_weights
        return run(module, *inputs)

    @property
    def _checkpoints_activations(self) -> bool:
        return self.gradient_checkpointing and self.training and torch.is_grad_enabled()
