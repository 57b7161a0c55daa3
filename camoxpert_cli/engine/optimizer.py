"""AdamW over what is trained at the moment: the network at the full rate, the backbone at a part of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from camoxpert_cli.checkpoints.format import OptimizerState
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.stored_tensors import not_finite, some


def build_optimizer(
    network: CamoXpert, *, weight_decay: float, backbone_lr_factor: float, previous: AdamW | None = None
) -> AdamW:
    """Parameter groups `network` and, where any of it is trained, `backbone`; each knows its `lr_factor`.

    `previous` gives its moments to the parameters that stay trained, so that unfreezing others does not set them back.
    """
    backbone = list(network.backbone.parameters())
    in_backbone = {id(parameter) for parameter in backbone}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in in_backbone]
    groups = [
        {"name": name, "params": trained, "lr_factor": factor}
        for name, parameters, factor in (("network", rest, 1.0), ("backbone", backbone, backbone_lr_factor))
        if (trained := _trained(parameters))
    ]
    # Fused: one pass over memory instead of about ten. On the CPU it takes parameters, gradients and moments for
    # granted to lie in memory alike; autograd sees to that for gradients, `load_state` for moments.
    optimizer = AdamW(groups, lr=0.0, weight_decay=weight_decay, fused=True)
    if previous is not None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in previous.state:
                    optimizer.state[parameter] = previous.state[parameter]
    return optimizer


def load_state(optimizer: AdamW, state: OptimizerState) -> None:
    """Go on with the moments and groups that a checkpoint holds, however its optimizer worked and they lay in memory.

    Raises ValueError where they are not those of an optimizer over the same parameters.
    """
    _refuse_other_moments(optimizer, state)
    groups = [{**group, "fused": True} for group in state["param_groups"]]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                moments[name] = torch.empty_like(parameter).copy_(value)


def _refuse_other_moments(optimizer: AdamW, state: OptimizerState) -> None:
    places = [place for group in state["param_groups"] for place in group["params"]]
    parameters = parameters_of(optimizer)
    if len(places) != len(parameters) or len({*places}) != len(places) or not state["state"].keys() <= {*places}:
        raise ValueError(f"training.optimizer is over {len(places)} parameters, expected {len(parameters)} others")
    wrong = []
    for place, parameter in zip(places, parameters, strict=True):
        for name, value in state["state"].get(place, {}).items():
            assert isinstance(value, Tensor)
            entry = f"training.optimizer.state.{place}.{name}"
            if value.shape != (() if name == "step" else parameter.shape):
                raise ValueError(f"{entry} has the size {tuple(value.shape)}, expected {tuple(parameter.shape)}")
            if complaint := ("" if value.is_floating_point() else str(value.dtype)) or not_finite(value.float()):
                wrong.append(f"{entry} ({complaint})")
    if wrong:
        raise ValueError(f"it holds numbers that no step can be made with, in {some(wrong, 'tensor')}")


def set_learning_rate(optimizer: AdamW, rate: float) -> None:
    """Give every group its own part of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


def learning_rates(optimizer: AdamW) -> dict[str, float]:
    """Of each group, by its name."""
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def parameters_of(optimizer: AdamW) -> list[nn.Parameter]:
    """All that it trains, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _trained(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]
