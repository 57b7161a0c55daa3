"""Several processes that train together make the steps of one process with all of their images, in every division."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.train import begin, train_epoch
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.parallel.world import World
from tests.behaviour.test_ranks import TWO, digests, ranks_and_one
from tests.helpers.ranks import in_ranks
from tests.helpers.tiny_data import tiny_run

EVEN = [(2, 8, 2, 1), (2, 8, 2, 2)]  # steps of 2 + 2; one step of two batches of 2 + 2
SHORT = [(2, 7, 2, 2), (2, 5, 2, 1)]  # two batches, the last of 1 + 2; a step with an image for one rank only
# Steps of 1 + 1 + 1 and, of the last image or two, steps without one for some rank; in the second case of two batches.
THREE = [(3, 10, 1, 1), (3, 8, 1, 2)]


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(TWO, id="uneven"),
        pytest.param(EVEN, id="even"),
        pytest.param(SHORT, id="short"),
        pytest.param(THREE, id="three"),
    ],
)
def test_ranks_are_one_process(tiny_data: Path, tmp_path: Path, sizes: list[tuple[int, int, int, int]]) -> None:
    """Losses and weights are those of one process with batches as large as all of theirs, in all stages, to 1e-9."""
    ranks_and_one(tiny_data, tmp_path, sizes, {})


# The experts of each rank's images, batch after batch: a step of two batches in which each is used, and another.
ROUTES = [
    [(0, 1, 2), (3, 4, 5), (0, 1, 2), (2, 3, 4)],
    [(6, 0, 1), (2, 3, 4), (1, 2, 5), (2, 3, 4)],
]
IDLE = 6  # in the second step


def train_on_routes(world: World, data: Path, folder: Path) -> dict[str, Any]:
    """Which experts the second step moved, or changed what the optimizer remembers of; and digests."""
    resolved = tiny_run(
        data, folder, epochs=1, stage1_epochs=1, num_experts=7, batch_size=1, accumulation_steps=2, gpus=2
    )
    run, _ = prepare(decide(resolved), None, world)
    begin(run, resolved.config, None)
    for layer in run.state.network.moe_layers:
        layer.get_submodule("gate").register_forward_hook(_Route(ROUTES[world.rank]))
    enter_phase(run, run.phases[0])
    before: list[list[Tensor]] = []
    without_gradient: list[bool] = []
    original = run.strategy.reduce_gradients

    def reduce(*arguments: Any) -> None:
        before[:] = _experts(run)
        without_gradient[:] = [
            all(
                parameter.grad is None for layer in run.state.network.moe_layers for parameter in _expert(layer, number)
            )
            for number in range(7)
        ]
        original(*arguments)

    run.strategy.__dict__["reduce_gradients"] = reduce
    train_epoch(run, run.phases[0], 0)
    pairs = zip(before, _experts(run), strict=True)
    changed = [[not torch.equal(old, new) for old, new in zip(*states, strict=True)] for states in pairs]
    return {
        "unused here": [number for number in range(7) if without_gradient[number]],
        "moved": [number for number in range(7) if any(changed[number])],
        "all of them": [number for number in range(7) if sum(changed[number]) > len(changed[number]) // 2],
        **digests(run),
    }


class _Route:
    """A hook that has a gate choose the experts of `routes`, one entry a batch."""

    def __init__(self, routes: Sequence[tuple[int, ...]]) -> None:
        self.routes = iter(routes)

    def __call__(self, gate: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
        chosen = torch.zeros_like(logits)
        chosen[:, list(next(self.routes))] = 100.0
        return logits + chosen


def _expert(layer: nn.Module, number: int) -> list[nn.Parameter]:
    return list(layer.get_submodule(f"experts.{number}").parameters())


def _experts(run: Run) -> list[list[Tensor]]:
    """Copies of the weights of each expert in all layers, and of what the optimizer remembers of them."""
    assert run.state.optimizer is not None
    return [
        [
            value.detach().clone()
            for layer in run.state.network.moe_layers
            for parameter in _expert(layer, number)
            for value in (parameter, *run.state.optimizer.state.get(parameter, {}).values())
        ]
        for number in range(7)
    ]


def test_experts_that_few_use(tiny_data: Path, tmp_path: Path) -> None:
    """An expert that one rank used, or any did in an earlier batch of the step, moves alike on both; an idle one rests.

    The idle one has a past: AdamW would decay its weights and move them on with any gradient, zeros included.
    """
    first, second = in_ranks(2, train_on_routes, tiny_data, tmp_path / "run")

    assert first["unused here"] == [5, IDLE]
    assert second["unused here"] == [0, IDLE]
    assert first.pop("unused here") != second.pop("unused here")
    assert first == second
    assert first["moved"] == first["all of them"] == [0, 1, 2, 3, 4, 5]
