"""Weights of a short run whose maps reach from dark to bright, so that scores and files tell maps apart."""

from __future__ import annotations

from pathlib import Path

import torch

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import load_model
from camoxpert_cli.data.dataset import ScoringImages
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.inference.predictions import predict_probabilities
from tests.helpers.checkpoints import write_content
from tests.helpers.tiny_data import TEST_SET


def write_vivid_checkpoint(trained: Path, data: Path, path: Path) -> Path:
    """Write to `path` the best weights of a tiny run with the last layer of their average changed; returns `path`.

    Most of an image is bright, and so some of every object, of which a network this young knows nothing.
    """
    content = read_checkpoint(trained)
    dataset = ScoringImages(find_data([data]).tests[TEST_SET], 64)
    network = load_model(trained, ema=True)
    images = torch.stack([dataset[at][0] for at in range(len(dataset))])
    predictions = torch.stack(predict_probabilities(network, images, [(64, 64)] * len(dataset), None))
    logits = predictions.logit()
    steeper = 2 / logits.std()
    content["ema"]["final_conv.3.weight"] *= steeper
    content["ema"]["final_conv.3.bias"] = (content["ema"]["final_conv.3.bias"] - logits.quantile(0.3)) * steeper
    write_content(path, content)
    return path
