"""Several processes that train together make the steps of one process with all of their images."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from camoxpert_cli.checkpoints.format import Checkpoint
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.dataset import ScoringImages
from camoxpert_cli.data.loader import scoring_loader
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.engine.train import begin, close_epoch, train_epoch
from camoxpert_cli.engine.validation import validate
from camoxpert_cli.errors import DataError
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World
from tests.helpers.batch_effects import train_without_batch_effects
from tests.helpers.plain_training import assert_same_training, train_plainly
from tests.helpers.ranks import in_ranks
from tests.helpers.scoring import evaluate
from tests.helpers.timed_runs import Machine, fitted_plan, on_machine
from tests.helpers.tiny_data import TRAINING_IMAGES, tiny_run


def train_held_still(world: World, data: Path, folder: Path, cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each of `cases` what `train_plainly` gives, where no image sees its batch."""
    CamoXpert.train = train_without_batch_effects  # type: ignore[assignment, method-assign]
    return [train_plainly(world, data, folder / str(at), case) for at, case in enumerate(cases)]


# Ranks, images, batch of a rank, accumulation.
TWO = [
    (2, 5, 2, 2),  # a batch of 2 + 2 and one with an image for one rank only, added up with it
    (2, 9, 1, 2),  # steps of two batches of 1 + 1, the second of which sums gradients as it goes back, and of 0 + 1
]
# A step of each stage, that moves something; the slow tests go on until all of the backbone trains.
BRIEF: dict[str, Any] = {"epochs": 2, "num_experts": 4, "lr": 0.1, "stage2_lr": 0.1}


def test_two_ranks_are_one_process(tiny_data: Path, tmp_path: Path) -> None:
    """Losses and weights are those of one process with batches twice as large, in both stages, to 1e-9.

    So is how many images chose each expert, to the image.
    """
    ranks_and_one(tiny_data, tmp_path, TWO, BRIEF)


def ranks_and_one(data: Path, folder: Path, sizes: list[tuple[int, int, int, int]], settings: dict[str, Any]) -> None:
    """Train as many ranks as all of `sizes` begin with, and one process, and compare them."""
    ((count,),) = [{count for count, *_ in sizes}]
    common = [
        {**settings, "val_fraction": 1 - images / TRAINING_IMAGES, "accumulation_steps": steps}
        for _, images, _, steps in sizes
    ]
    batches = [batch for _, _, batch, _ in sizes]
    shared = [
        {**each, "batch_size": b, "stage2_batch_size": b, "gpus": count}
        for each, b in zip(common, batches, strict=True)
    ]
    alone = [
        {**each, "batch_size": count * b, "stage2_batch_size": count * b}
        for each, b in zip(common, batches, strict=True)
    ]
    together = in_ranks(count, train_held_still, data, folder / "together", shared)
    (whole,) = in_ranks(1, train_held_still, data, folder / "one", alone)
    for case, *ranks, one in zip(sizes, *together, whole, strict=True):
        assert_same_training(case, ranks, one)


# Steps of 4 + 4 and of 1 image in stage 1, of 6 + 3 in stage 2: ranks with one image less than others, or none.
REAL: dict[str, Any] = {
    **{"epochs": 3, "stage1_epochs": 1, "num_experts": 3, "warmup_epochs": 0, "gpus": 2},
    **{"val_fraction": 1 - 9 / TRAINING_IMAGES, "batch_size": 2, "stage2_batch_size": 3, "accumulation_steps": 2},
}


def train_really(world: World, data: Path, folder: Path) -> dict[str, Any]:
    """With nothing held still: what each rank holds after each epoch, and what it makes of images to score."""
    resolved = tiny_run(data, folder, **REAL)
    run, _ = prepare(decide(resolved), None, world)
    begin(run, resolved.config, None)
    held = []
    for phase in run.phases:
        enter_phase(run, phase)
        for epoch in range(phase.first, phase.end):
            train_epoch(run, phase, epoch)
            scores = validate(run)
            assert isinstance(scores, Scores)
            close_epoch(run, phase, scores)
            held.append(
                {"stages": run.state.backbone_stages, "scores": run.state.progress.history[-1]["mae"], **digests(run)}
            )
    pairs = run.data.all_training[:5]
    broken = folder / f"broken{world.rank}.png"
    broken.write_bytes(b"no picture")
    unreadable = [replace(pair, image=broken) if at == 3 else pair for at, pair in enumerate(pairs)]
    try:
        problem = str(_score(run, unreadable, world))
    except DataError as error:
        problem = error.message
    run.clock.stopping.deadline = Deadline(0.0, "the time limit of 1s") if world.rank else Deadline()
    stops = [_stop(run)]
    with run.clock.stopping:
        if world.is_main:
            signal.raise_signal(signal.SIGTERM)
        stops.append(_stop(run))
    return {
        "held": held,
        "stops": stops,
        "alone": asdict(_score(run, pairs, World())),
        "together": asdict(_score(run, pairs, world)),
        "problem": problem,
    }


def _stop(run: Run) -> tuple[int, str]:
    stop = run.clock.stop_before_batch()
    assert stop is not None
    return stop.exit_code, stop.reason


def _score(run: Run, pairs: Sequence[Pair], world: World) -> Scores:
    """In batches of 2, 2 and 1: rank 0 gets the first and the third."""
    batches = scoring_loader(ScoringImages(pairs, 64), 2, 0, False, world.rank, world.size)
    return evaluate(run.state.scored_network.eval(), batches, world)


def digests(run: Run) -> dict[str, str]:
    """Of every bit of the training state; network and average with their buffers."""
    assert run.state.ema is not None
    assert run.state.optimizer is not None
    states = {
        "network": run.state.network.state_dict(),
        "average": run.state.ema.network.state_dict(),
        "optimizer": {
            f"{number}.{name}": value
            for number, state in run.state.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        },
    }
    return {name: _digest(tensors) for name, tensors in states.items()}


def _digest(tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, value in tensors.items():
        found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()


def test_ranks_stay_the_same_to_the_bit(tiny_data: Path, tmp_path: Path) -> None:
    """Network, EMA, optimizer and BatchNorm's statistics, through a stage change, an unfreezing and small batches.

    Scores of a number of images that does not divide are those of one process, an image that one rank cannot read is
    an error on all, and what ends one of them ends all for the same reason.
    """
    (tmp_path / "run").mkdir()
    first, second = in_ranks(2, train_really, tiny_data, tmp_path / "run", interpreters=[1])

    assert first["held"] == second["held"]
    assert len({each["network"] for each in first["held"]}) == len(first["held"]) == 3
    assert len({each["stages"] for each in first["held"]}) == 3  # frozen, then in two steps
    assert first["together"] == second["together"] == first["alone"] == second["alone"]
    assert first["together"]["images"] == 5
    assert first["problem"] == second["problem"]
    assert "broken1.png" in first["problem"]  # rank 1 met it
    # The clock of one of them, then also a signal to the other.
    assert first["stops"] == second["stops"]
    assert [code for code, _ in first["stops"]] == [0, 143]
    assert first["stops"][1][1] == "stopped by SIGTERM"


def train_fitted(world: World, data: Path, folder: Path) -> dict[str, Any]:
    """A fitted run on a machine that is twice as fast as that of rank 0, unless it is that one."""
    settings = {"epochs": 8, "stage1_epochs": 4, "progressive_unfreeze": False, "gpus": 2, "batch_size": 1}
    begun: list[Config] = []

    def carry_out(run: Run, plan: Plan, checkpoint: Checkpoint | None) -> Outcome:
        begun.append(run.config)
        return honest(run, plan, checkpoint)

    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(slowness=lambda now: 0.5 if world.rank else 1.0)
        on_machine(machine, patch)
        honest = train_module.carry_out
        patch.setattr(train_module, "carry_out", carry_out)
        outcome = train_module.train(fitted_plan(data, folder, "100s", **settings), world)
    configs = [to_mapping(each)["train"] for each in (*begun, outcome.config)]
    return {"now": machine.now, "agreed": [configs, outcome.epochs, outcome.images]}


def test_ranks_are_fitted_together(tiny_data: Path, tmp_path: Path) -> None:
    """Rank 0 measures and decides for all; the run ends in its time, and nothing of the measuring is left."""
    first, second = in_ranks(2, train_fitted, tiny_data, tmp_path / "run")
    (_, last), epochs, _ = first["agreed"]

    assert 0.9 * 100 <= first["now"] <= 100
    assert second["now"] < first["now"]
    assert first["agreed"] == second["agreed"]
    assert epochs == last["epochs"] > 2
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
