"""Means over grids of cells, and features of cells spread over all pixels, as matrix products.

Adaptive pooling and bilinear resizing have no deterministic gradient on CUDA, and take one pass over the pixels for
each grid; these take one for all grids. Notation: B images, C channels, H x W pixels; the cells of all grids together
are numbered row by row, grid by grid.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Cells per side of each grid, and where the cells of each one start and end.
GRIDS = (8, 4, 2, 1)
CELLS = tuple(accumulate((side**2 for side in GRIDS), initial=0))
_Matrix = NDArray[np.float64]


class Pyramid(NamedTuple):
    """The matrices for one size: with R rows of cells in all grids, (R, H), (cells, R * W), (cells, 1), (R * W, cells),
    (H, R).
    """

    sum_lines: Tensor
    sum_columns: Tensor
    scale: Tensor
    spread_columns: Tensor
    spread_lines: Tensor

    def means(self, x: Tensor) -> Tensor:
        """Return the means over cells as `F.adaptive_avg_pool2d` defines them: (B, C, H, W) -> (B, cells, C)."""
        batch, channels, height, width = x.shape
        sums = self.sum_lines @ x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        means = self.sum_columns @ sums.view(batch, -1, channels)
        return (means * self.scale).to(x.dtype)

    def spread(self, cells: Tensor) -> Tensor:
        """Resize each grid bilinearly and add all: (B, cells, C) -> (B, C, H, W)."""
        batch, _, channels = cells.shape
        columns = (self.spread_columns @ cells).view(batch, self.spread_lines.shape[1], -1)
        pixels = (self.spread_lines @ columns).view(batch, len(self.spread_lines), -1, channels)
        return pixels.permute(0, 3, 1, 2)


def pyramid(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Pyramid:
    """Build the matrices for a size, on `device`. In half precision only rounding separates them from those in float64:
    sums are of 0 and powers of two, since rounding 1 / size would bias all means and whole sums could overflow.
    """
    with torch.inference_mode(False):  # they are used in training as well
        lines = [_means(height, side) for side in GRIDS]
        columns = [_means(width, side) for side in GRIDS]
        sum_lines = np.concatenate([weights for weights, _ in lines])
        sum_columns = _blocks([weights for weights, _ in columns])
        scale = np.concatenate([np.outer(lines[at][1], columns[at][1]).ravel() for at in range(len(GRIDS))])
        spread_columns = _blocks([_resizing(width, side).T for side in GRIDS]).T
        spread_lines = np.concatenate([_resizing(height, side) for side in GRIDS], axis=1)
        wide = torch.promote_types(dtype, torch.float32)
        return Pyramid(
            *(
                torch.from_numpy(np.ascontiguousarray(matrix)).to(device, own)
                for matrix, own in (
                    (sum_lines, dtype),
                    (sum_columns, dtype),
                    (scale[:, None], wide),
                    (spread_columns, dtype),
                    (spread_lines, dtype),
                )
            )
        )


def _means(size: int, cells: int) -> tuple[_Matrix, _Matrix]:
    """(cells, size), which sums the rows of each cell into a fraction of their mean; (cells,), the missing factors."""
    cell, row = np.arange(cells), np.arange(size)
    start, end = cell * size // cells, -((cell + 1) * -size // cells)  # cells overlap if they do not divide the size
    most = 2.0 ** int(-(-size // cells) + 1).bit_length()  # at least the rows of a cell
    inside = (start[:, None] <= row) & (row < end[:, None])
    return inside / most, most / (end - start)


def _resizing(size: int, cells: int) -> _Matrix:
    """(size, cells), which resizes a grid bilinearly, without aligned corners."""
    source = np.maximum((np.arange(size) + 0.5) * (cells / size) - 0.5, 0)
    below = source.astype(int)
    share = (source - below)[:, None]
    cell = np.arange(cells)
    above = np.minimum(below + 1, cells - 1)
    return (cell == below[:, None]) * (1 - share) + (cell == above[:, None]) * share


def _blocks(matrices: list[_Matrix]) -> _Matrix:
    """(cells, R * W), which applies each grid's matrix (side, W) to each of the grid's rows of cells."""
    width = matrices[0].shape[1]
    whole = np.zeros((CELLS[-1], sum(GRIDS) * width))
    row = cell = 0
    for matrix in matrices:
        side = len(matrix)
        for _ in range(side):
            whole[cell : cell + side, row * width : (row + 1) * width] = matrix
            row, cell = row + 1, cell + side
    return whole
