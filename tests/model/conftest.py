from __future__ import annotations

import pytest
from torch import Tensor


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks compute in float64 throughout: `.float()`, their guard against half precision, does nothing.

    In float32 a rounding error flips a ReLU here and there and so moves whole gradients by percents; in float64 two
    programs of the same formula agree to twelve digits, and a tolerance can be tight enough to see a wrong term.
    """
    monkeypatch.setattr(Tensor, "float", lambda self: self)
