from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from camoxpert_cli.metrics.overlap import dice, iou

Measure = Callable[[Tensor, Tensor], Tensor]
both = pytest.mark.parametrize("measure", [iou, dice])

pairs_of_maps = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda size: st.tuples(
        *[
            st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
                lambda cells: torch.tensor(cells).view(size)
            )
        ]
        * 2
    )
)


def maps(*rows: str) -> tuple[Tensor, Tensor]:
    """Prediction and mask from cells: P prediction only, M mask only, B both, . neither."""
    cells = [list(row) for row in rows]
    prediction = torch.tensor([[cell in "PB" for cell in row] for row in cells])
    return prediction, torch.tensor([[cell in "MB" for cell in row] for row in cells])


@pytest.mark.parametrize(
    ("rows", "expected_iou", "expected_dice"),
    [
        (("BB", "BB"), 1.0, 1.0),
        (("PP", "MM"), 0.0, 0.0),
        (("BBP", "M.."), 2 / 4, 4 / 6),
        (("B....", "PPPPP", "....."), 1 / 6, 2 / 7),
        (("PP.",), 0.0, 0.0),
        (("M..",), 0.0, 0.0),
    ],
)
def test_values(rows: tuple[str, ...], expected_iou: float, expected_dice: float) -> None:
    """Counted by hand: shared over united pixels, and twice the shared over the sum of both."""
    assert iou(*maps(*rows)).item() == pytest.approx(expected_iou, abs=1e-15)
    assert dice(*maps(*rows)).item() == pytest.approx(expected_dice, abs=1e-15)


@both
def test_nothing_there_and_nothing_claimed(measure: Measure) -> None:
    """A picture without an object in which none is found is right."""
    assert measure(*maps("...", "...")).item() == 1.0


@given(pairs_of_maps)
def test_relations(pair: tuple[Tensor, Tensor]) -> None:
    """Both are symmetric, within 0 and 1, and Dice is 2 IoU / (1 + IoU)."""
    overlap, twice = iou(*pair).item(), dice(*pair).item()

    assert 0 <= overlap <= twice <= 1
    assert twice == pytest.approx(2 * overlap / (1 + overlap))
    assert (iou(*pair[::-1]).item(), dice(*pair[::-1]).item()) == (overlap, twice)


@both
def test_large_maps_are_counted_exactly(measure: Measure) -> None:
    """Beyond 2^24 pixels, where float32 stops counting, one pixel more still shows."""
    mask = torch.ones(4101, 4101, dtype=torch.bool)
    prediction = mask.clone()
    prediction[0, 0] = False
    result = measure(prediction, mask)

    assert result.dtype == torch.float64
    assert result.shape == ()
    assert result.item() < 1.0
