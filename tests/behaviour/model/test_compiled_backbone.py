from __future__ import annotations

import torch

from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.backbone_layers import CachedPositionalEncoding, replace_layers


def test_compiled_in_the_first_pass() -> None:
    """A graph without breaks, made before anything is cached, serves the next pass, with what is cached by then."""
    backbone = create_backbone("edgenext_xx_small")
    replace_layers(backbone)
    (encoding,) = (part for part in backbone.modules() if isinstance(part, CachedPositionalEncoding))
    torch.compiler.reset()
    compiled = torch.compile(encoding._call_impl, dynamic=False, backend="eager", fullgraph=True)
    first = compiled((2, 4, 6))
    with torch.compiler.set_stance("fail_on_recompile"):
        second = compiled((2, 4, 6))
    torch.compiler.reset()

    assert len(encoding._waves) == 1
    assert torch.equal(first, second)
    assert torch.equal(first, encoding((2, 4, 6)))
