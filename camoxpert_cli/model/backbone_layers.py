"""Layers of timm's models that run faster here: the same parameters and results, in place of timm's own."""

from __future__ import annotations

from types import SimpleNamespace

import timm.layers
import torch
from timm.models.edgenext import PositionalEncodingFourier
from torch import Tensor, nn

from camoxpert_cli.model.layers import LayerNorm, LayerNorm2d
from camoxpert_cli.model.per_size import of_size


class CachedPositionalEncoding(PositionalEncodingFourier):  # type: ignore[misc]
    """EdgeNeXt's positional encoding, whose sines are computed once per image size.

    timm computes them in each forward pass, for each image of the batch, from a tensor that it copies from the host to
    the device, for which the host waits.
    """

    _waves: dict[tuple[object, ...], Tensor]

    def forward(self, shape: tuple[int, int, int]) -> Tensor:
        """Return the encoding of a batch of feature maps (B, H, W): (B, C, H, W), expanded over the images."""
        batch, height, width = shape
        weight = self.token_projection.weight
        encoding: Tensor = self.token_projection(self._waves_of(height, width, weight.dtype, weight.device))
        return encoding.expand(batch, -1, -1, -1)

    # Otherwise code that is compiled in the first pass would not serve the second.
    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _waves_of(self, *key: object) -> Tensor:
        return of_size(self._waves, key, self._compute_waves)

    def _compute_waves(self, height: int, width: int, *_: object) -> Tensor:
        """What timm's layer would project, for the dtype and device of its weights."""
        with torch.inference_mode(False), torch.no_grad():  # they are used in training as well
            itself = _Identity()
            itself.weight = self.token_projection.weight
            source = SimpleNamespace(**{**vars(self), "token_projection": itself})
            waves: Tensor = PositionalEncodingFourier.forward(source, (1, height, width))
            return waves


class _Identity(nn.Identity):
    weight: Tensor


# Exact types: a subclass may compute something else.
_REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LayerNorm: LayerNorm,
    timm.layers.LayerNorm: LayerNorm,
    timm.layers.LayerNorm2d: LayerNorm2d,
    PositionalEncodingFourier: CachedPositionalEncoding,
}


def replace_layers(backbone: nn.Module) -> None:
    """Give layers of `backbone` the class that runs faster, in place. Its state dict does not change."""
    for module in backbone.modules():
        if type(module) in _REPLACEMENTS:
            module.__class__ = _REPLACEMENTS[type(module)]
            if isinstance(module, CachedPositionalEncoding):
                module._waves = {}
