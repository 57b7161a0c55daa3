"""A network nobody trained whose predictions reach from dark to bright, so that scores and files tell them apart."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from camoxpert_cli.data.dataset import ScoringImages
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.inference.predictions import predict_probabilities
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.checkpoints import write_content
from tests.helpers.networks import small_network
from tests.helpers.tiny_data import TEST_SET

SIZE = 64


def vivid_network(data: Path) -> CamoXpert:
    """In eval mode; of the tiny data set's test images most is bright, and so some of every object."""
    dataset = ScoringImages(find_data([data]).tests[TEST_SET], SIZE)
    network = small_network("test_resnet", 2).eval()
    images = torch.stack([dataset[at][0] for at in range(len(dataset))])
    logits = torch.stack(predict_probabilities(network, images, [(SIZE, SIZE)] * len(dataset), None)).logit()
    last = network.final_conv[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    steeper = 2 / logits.std()
    with torch.no_grad():
        last.weight *= steeper
        last.bias.copy_((last.bias - logits.quantile(0.3)) * steeper)
    network.img_size = SIZE
    return network


def write_vivid_checkpoint(network: CamoXpert, path: Path) -> Path:
    """Write to `path` a checkpoint with `network` as the average of other weights; returns `path`."""
    others = {name: 0.5 * value for name, value in network.state_dict().items()}
    content = {
        "backbone": network.backbone_name,
        "num_experts": network.num_experts,
        "network": others,
        "ema": network.state_dict(),
        "epoch": 3,
        "config": {"data": {"img_size": SIZE}},
    }
    write_content(path, content)
    return path
