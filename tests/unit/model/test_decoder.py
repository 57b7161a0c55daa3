from __future__ import annotations

import pytest
import torch
from torch import nn

from camoxpert_cli.model.decoder import DecoderBlock, final_head
from tests.helpers import reference_network
from tests.helpers.networks import stir


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("skip_size", [(8, 10), (7, 9), None], ids=["exact", "odd", "none"])
def test_parity(skip_size: tuple[int, int] | None, training: bool) -> None:
    """Values are those of the reference with a skip of exactly twice the size, of an odd size, and without one."""
    torch.manual_seed(0)
    skip_channels = 3 if skip_size else 0
    block = DecoderBlock(6, skip_channels, 5).double()
    stir(block)
    reference = reference_network.DecoderBlock(6, skip_channels, 5).double()
    reference.load_state_dict(block.state_dict())
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    skip = torch.randn(2, 3, *skip_size, dtype=torch.float64) if skip_size else None

    output = block.train(training)(x, skip)
    expected = reference.train(training)(x, skip)

    assert output.shape == (2, 5, *(skip_size or (8, 10)))
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    for own, other in zip(block.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_batch_norm() -> None:
    """All batch norms have the statistics' constants that the original program's weights were trained with."""
    norms = [
        part
        for net in (DecoderBlock(4, 2, 3), final_head(64))
        for part in net.modules()
        if isinstance(part, nn.BatchNorm2d)
    ]

    assert [(norm.eps, norm.momentum) for norm in norms] == [(1e-5, 0.1)] * 3
