"""The scores that a run validates by, of any batches."""

from __future__ import annotations

import torch

from camoxpert_cli.data.dataset import ScoringBatch
from camoxpert_cli.data.loader import ImageLoader
from camoxpert_cli.evaluation.score import score_images
from camoxpert_cli.metrics.image_scores import quick_scores
from camoxpert_cli.metrics.score_set import SetScores, mean_scores
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World


def evaluate(network: CamoXpert, batches: ImageLoader[ScoringBatch], world: World | None = None) -> SetScores:
    """On the CPU, in float32."""
    scores = score_images(
        network, batches, torch.device("cpu"), None, lambda count, note: None, world, job=lambda _: quick_scores
    )
    return mean_scores(scores)
