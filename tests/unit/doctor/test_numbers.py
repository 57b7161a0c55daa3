"""What the doctor computes where presets as they are do not show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.doctor.check_machine import shared_memory_needed
from camoxpert_cli.doctor.check_preset import halved_batches
from camoxpert_cli.doctor.examine import judge
from camoxpert_cli.doctor.finding import Question
from camoxpert_cli.doctor.readings import GpuTrial, Network, Space, StageMemory
from tests.helpers.machines import GIB, H100, T4, examined, finding, machine

SMALL_T4 = replace(T4, memory=8 * GIB)


def question(**settings: Any) -> Question:
    flags = {f"train.{name}": value for name, value in settings.items()}
    return Question("kaggle-2xT4", resolve("kaggle-2xT4", flags).config)


def test_halves_of_odd_batches() -> None:
    """They are rounded up, so that no batch is left without an image."""
    assert halved_batches(question(batch_size=7, stage2_batch_size=1, accumulation_steps=3)) == (
        "--batch-size 4 --stage2-batch-size 1 --accumulation-steps 6"
    )


def test_one_card_for_a_recipe_of_two() -> None:
    """It accumulates as often as both did together."""
    examination = judge(machine(T4), question(batch_size=8, stage2_batch_size=6, accumulation_steps=2))

    assert finding(examination, "preset").command.endswith("--gpus 1 --accumulation-steps 4")


@pytest.mark.parametrize("cards", [(H100, SMALL_T4), (SMALL_T4, H100)])
def test_the_smallest_card_counts(cards: tuple[Any, ...]) -> None:
    """Whether the steps are tight there, and whether it has less memory than the presets were made for."""
    tight = examined(machine(*cards, recipe=(StageMemory(2, 12, int(7.9 * GIB)),)), "kaggle-2xT4")
    alone = examined(machine(*cards))

    assert finding(tight, "GPU memory").status == "warning"
    assert "8.0 GiB may not be enough" in " ".join(alone.recommendation.why)


def test_shared_memory_of_all_processes() -> None:
    """Of 4 cores for each of two processes: batches that 3 workers prepare ahead, and two in hand, for both."""
    image = 4 * 320 * 320

    asked = Question("kaggle-2xT4", resolve("kaggle-2xT4", {"data.img_size": 320}).config)
    largest = max(image, 3 * 320 * 320 + 2**20)
    assert shared_memory_needed(machine(T4, T4), asked) == 2 * (2 * 3 + 2) * 16 * largest
    assert shared_memory_needed(machine(T4), asked) == (2 * 3 + 2) * 16 * largest


@pytest.mark.parametrize(("free", "status"), [(3, "ok"), (2.9, "problem")])
def test_room_for_three_checkpoints(free: float, status: str) -> None:
    """Training asks for no less before it starts."""
    readings = machine(T4, network=Network(1, GIB, weights_here=True), disk=Space(20 * GIB, int(free * GIB)))

    assert finding(examined(readings), "disk").status == status


@pytest.mark.parametrize(("share", "status"), [(0.91, "ok"), (0.89, "warning")])
def test_memory_that_others_hold(share: float, status: str) -> None:
    """The probe itself takes a few percent of a card; where more is gone, another program has it."""
    readings = machine(T4, gpus=(GpuTrial(int(share * T4.memory), dtype="float16"),))

    assert finding(examined(readings), "GPU 0").status == status
