"""The scores that a run validates by, of any batches, and a network whose logits can be told from the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camoxpert_cli.data.dataset import ScoringBatch
from camoxpert_cli.data.loader import ImageLoader
from camoxpert_cli.evaluation.score import score_images
from camoxpert_cli.metrics.image_scores import quick_scores
from camoxpert_cli.metrics.score_set import SetScores, mean_scores
from camoxpert_cli.model.backbone import Normalization
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World


@dataclass
class Logits:
    """What a network returns, as far as scoring looks at it."""

    logits: Tensor


class RedIsObject(nn.Module):
    """Stands in for the network: the logit of a pixel is its red value, less `mean` and scaled."""

    def __init__(self, mean: float = 0.5) -> None:
        super().__init__()
        self.normalization = Normalization((mean,) * 3, (0.1, 0.1, 0.1))

    def forward(self, images: Tensor) -> Logits:
        return Logits(images[:, :1])


def evaluate(network: CamoXpert, batches: ImageLoader[ScoringBatch], world: World | None = None) -> SetScores:
    """On the CPU, in float32."""
    scores = score_images(
        network, batches, torch.device("cpu"), None, lambda count, note: None, world, job=lambda _: quick_scores
    )
    return mean_scores(scores)
