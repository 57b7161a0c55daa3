from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli import losses
from camoxpert_cli.engine.step import StepOutput, TrainingStep
from camoxpert_cli.model.camoxpert import CamoXpert, CamoXpertOutput
from tests.helpers.networks import random_images, small_network
from tests.helpers.training_steps import bytes_of, join, step_of
from tests.helpers.whole_batch import combine


def test_nothing_is_scalar() -> None:
    """Every output has a first dimension along which devices are joined: images for the terms, one for the sums."""
    output = step_of()(*bytes_of(3))

    assert output.terms.shape == (3, 4)
    assert output.chosen.shape == (1, 4, 5)
    assert output.probability.shape == (1, 4, 5)
    assert output.chosen.sum(dim=2).tolist() == [[6.0] * 4]  # three images, two experts each


def test_combine_exactly() -> None:
    """In float64, terms and sums split over devices in any way give the same losses to the last digits."""
    generator = torch.Generator().manual_seed(0)
    terms = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    chosen = torch.randint(0, 3, (5, 4, 7), generator=generator).double()
    probability = torch.rand(5, 4, 7, generator=generator, dtype=torch.float64)
    whole = combine(StepOutput(terms, chosen.sum(0, keepdim=True), probability.sum(0, keepdim=True)), 3)
    split = combine(
        join(
            [
                StepOutput(terms[part], chosen[part].sum(0, keepdim=True), probability[part].sum(0, keepdim=True))
                for part in (slice(0, 1), slice(1, 3), slice(3, 5))
            ]
        ),
        3,
    )

    torch.testing.assert_close(torch.stack(split), torch.stack(whole), rtol=1e-14, atol=0)


def test_weights() -> None:
    """total = 5 BCE + 3 IoU + 2 edge + 0.4 deep + 0.1 balance; terms are in the order bce, iou, edge, deep."""
    even = torch.full((1, 4, 7), 3.0)
    combined = combine(StepOutput(torch.tensor([[1.0, 10.0, 100.0, 1000.0]] * 7), even, even / 3), 3)

    assert [part.item() for part in combined] == pytest.approx([5 + 30 + 200 + 400 + 0.4, 1, 10, 100, 1000, 4])


class Recorder(nn.Module):
    """A network that gives what it is told, and remembers under which autocast it was called."""

    def __init__(self, output: CamoXpertOutput, statistics: CamoXpert) -> None:
        super().__init__()
        self.output = output
        self.normalization = statistics.normalization
        self.autocast: list[torch.dtype | None] = []

    def forward(self, images: Tensor) -> CamoXpertOutput:
        enabled = torch.is_autocast_enabled("cpu")
        self.autocast.append(torch.get_autocast_dtype("cpu") if enabled else None)
        return self.output


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, None])
@pytest.mark.parametrize("outer", [True, False])
def test_autocast_around_the_network_alone(dtype: torch.dtype | None, outer: bool) -> None:
    """The network runs under the step's own autocast, whatever is around it; the losses are float32 outside of it."""
    network = small_network("test_resnet", 2).eval()
    images, masks = bytes_of(2)
    with torch.no_grad():
        output = network(random_images(2))
    half = CamoXpertOutput(
        (output.logits * 5).half(), tuple((deep * 5).half() for deep in output.deep_logits), output.routing
    )
    recorder = Recorder(half, network)
    step = TrainingStep(recorder, True, dtype)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16, enabled=outer):
        result = step(images, masks)

    assert recorder.autocast == [dtype]
    assert result.terms.dtype == torch.float32
    targets = masks.float()
    wide = half.logits.float()
    expected = [
        losses.bce_loss(wide, targets),
        losses.iou_loss(wide, targets),
        losses.edge_loss(wide, targets),
        losses.deep_loss(tuple(deep.float() for deep in half.deep_logits), targets),
    ]
    assert torch.equal(result.terms, torch.stack(expected, dim=1))
