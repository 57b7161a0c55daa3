"""Files of the original program, converted and loaded in every way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from camoxpert_cli.checkpoints.convert import convert_checkpoint
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import load_model
from tests.helpers.places import COMPAT

pytestmark = pytest.mark.skipif(
    not COMPAT.is_dir(), reason="the checkpoints of the original program are not beside the repository"
)


@pytest.mark.parametrize("name", ["camoxpert_xxs_7experts", "camoxpert_xxs_7experts_module_prefix"])
def test_original_files_both_ways(name: str, tmp_path: Path) -> None:
    """A real file of the original program goes to bare keys and back to `module.`, and gives its logits throughout."""
    expected = torch.load(COMPAT / f"{name}.expected.pt", weights_only=True)
    convert_checkpoint(COMPAT / f"{name}.pth", tmp_path / "bare.pth")
    convert_checkpoint(tmp_path / "bare.pth", tmp_path / "module.pth", add=True)
    content = read_checkpoint(tmp_path / "module.pth")

    assert all(key.startswith("module.") for key in content["model_state_dict"])
    assert not any(key.startswith("module.") for key in content["ema_state_dict"])
    for path in (tmp_path / "bare.pth", tmp_path / "module.pth"):
        with torch.no_grad():
            logits = load_model(path, ema=False)(expected["image"]).logits
            ema = load_model(path, ema=True)(expected["image"]).logits
        # The bound of the recorded logits: float32 rounding alone moves them by up to 1e-4.
        assert (logits - expected["logits"]).abs().max() < 5e-4
        assert (ema - expected["ema_logits"]).abs().max() < 5e-4
