from __future__ import annotations

import torch

from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.backbone_layers import CachedPositionalEncoding, replace_layers
from camoxpert_cli.model.experts import SemanticContextExpert
from camoxpert_cli.model.per_size import of_size


def test_computed_once() -> None:
    """For each key, until there are many keys."""
    kept: dict[tuple[object, ...], int] = {}
    computed: list[int] = []

    def compute(number: int) -> int:
        computed.append(number)
        return 2 * number

    assert [of_size(kept, (number,), compute) for number in (1, 2, 1, 2)] == [2, 4, 2, 4]
    assert computed == [1, 2]


@torch.no_grad()
def test_layers_keep_few_sizes() -> None:
    """Images of ever other sizes do not fill the memory."""
    expert = SemanticContextExpert(8)
    backbone = create_backbone("edgenext_xx_small")
    replace_layers(backbone)
    (encoding,) = (each for each in backbone.modules() if isinstance(each, CachedPositionalEncoding))
    for width in range(2, 42):
        expert(torch.zeros(1, 8, 4, width))
        encoding((1, 4, width))

    assert len(expert._pyramids) <= 16
    assert len(encoding._waves) <= 16
