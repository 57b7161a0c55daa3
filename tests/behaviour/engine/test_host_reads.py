"""What a step reads of its tensors: with a GPU, the host waits for each, and launches nothing meanwhile."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from camoxpert_cli.engine.run import enter_phase, prepare
from camoxpert_cli.engine.train import begin
from camoxpert_cli.engine.training_steps import training_steps
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.parallel.world import World
from tests.gpu.checks.host_waits import counted_reads
from tests.helpers.ranks import in_ranks
from tests.helpers.tiny_data import tiny_run

# The third step is like all that follow: what DistributedDataParallel settles in the first two is settled.
STEPS = 3


def reads_of_a_step(world: World, data: Path, folder: Path) -> Counter[str]:
    """Where the third step of a run reads a value, by file and function, with the EMA and BatchNorm in training."""
    settings: dict[str, Any] = {"epochs": 1, "skip_stage1": False, "batch_size": 1, "gpus": world.size}
    resolved = tiny_run(data, folder, **settings)
    run, _ = prepare(decide(resolved), None, world)
    begin(run, resolved.config, None)
    enter_phase(run, run.phases[0])
    run.state.network.train()
    stage = run.phases[0].stage
    batches, sizes = run.feed.training(stage, 0, 0)
    steps = training_steps(run, stage, 0, zip(sizes, batches, strict=True))
    for _ in range(STEPS - 1):
        next(steps)
    with counted_reads() as places:
        next(steps)
    found: Counter[str] = Counter()
    for place, count in places.items():
        file, _, function = place.split(" -> ")[0].replace(":", " ").split(" ")
        found[f"{file} {function}"] += count
    return found


def apart_from_routing(reads: Counter[str]) -> dict[str, int]:
    """Which experts a batch needs is read in the network."""
    routing = {place: count for place, count in reads.items() if place.startswith("model/")}
    assert 1 <= sum(routing.values()) <= 4, routing
    return {place: count for place, count in reads.items() if place not in routing}


def test_one_process(tiny_data: Path, tmp_path: Path) -> None:
    """Losses, counts of routed images and gradient norm are read at once, before the update."""
    reads = reads_of_a_step(World(), tiny_data, tmp_path / "run")

    assert apart_from_routing(reads) == {"engine/training_steps.py read": 1}


def test_ranks(tiny_data: Path, tmp_path: Path) -> None:
    """Also on several ranks, which agree on the CPU about who has gradients of which experts."""
    expected = {"engine/training_steps.py read": 1, "parallel/gradients.py sum_over_ranks": 1}
    for reads in in_ranks(2, reads_of_a_step, tiny_data, tmp_path / "run"):
        assert apart_from_routing(reads) == expected
