"""Division of counts and of their ratios."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ratio(numerator: NDArray[Any], denominator: NDArray[Any], otherwise: float = 0.0) -> NDArray[np.float64]:
    """Compute numerator / denominator elementwise, and `otherwise` where the denominator is 0."""
    result = np.full(denominator.shape, otherwise, np.float64)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)
