"""AdamW over the parameters being trained: the network at the full learning rate, the backbone at a fraction of it."""

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
    """Build AdamW with the parameter groups `network` and, if any of it is trained, `backbone`, each with `lr_factor`.

    Parameters that stay trainable keep their moments from `previous`, so unfreezing others does not reset them.
    """
    backbone = list(network.backbone.parameters())
    in_backbone = {id(parameter) for parameter in backbone}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in in_backbone]
    groups = [
        {"name": name, "params": trained, "lr_factor": factor}
        for name, parameters, factor in (("network", rest, 1.0), ("backbone", backbone, backbone_lr_factor))
        if (trained := _trained(parameters))
    ]
    # Fused: one pass over memory instead of about ten. On the CPU it assumes that parameters, gradients and moments
    # have the same strides; autograd ensures that for gradients, `load_state` for moments.
    optimizer = AdamW(groups, lr=0.0, weight_decay=weight_decay, fused=True)
    if previous is not None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in previous.state:
                    optimizer.state[parameter] = previous.state[parameter]
    return optimizer


def load_state(optimizer: AdamW, state: OptimizerState) -> None:
    """Load the moments and groups of a checkpoint, whatever their optimizer's implementation and memory layout.

    Raises ValueError if they do not belong to an optimizer over the same parameters.
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
        raise ValueError(
            f"training.optimizer lists {len(places)} parameters, expected the {len(parameters)} that are trained"
        )
    wrong = []
    for place, parameter in zip(places, parameters, strict=True):
        for name, value in state["state"].get(place, {}).items():
            assert isinstance(value, Tensor)
            entry = f"training.optimizer.state.{place}.{name}"
            if value.shape != (() if name == "step" else parameter.shape):
                raise ValueError(f"{entry} has shape {tuple(value.shape)}, expected {tuple(parameter.shape)}")
            if complaint := ("" if value.is_floating_point() else str(value.dtype)) or not_finite(value.float()):
                wrong.append(f"{entry} ({complaint})")
    if wrong:
        raise ValueError(f"it contains values that the optimizer cannot use, in {some(wrong, 'tensor')}")


def set_learning_rate(optimizer: AdamW, rate: float) -> None:
    """Set every group's learning rate to `rate` times its `lr_factor`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


def learning_rates(optimizer: AdamW) -> dict[str, float]:
    """Return the learning rate of each group by name."""
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def parameters_of(optimizer: AdamW) -> list[nn.Parameter]:
    """Return all parameters of the optimizer, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _trained(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]
