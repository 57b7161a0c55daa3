"""Cut anywhere and resumed, a run ends with the bits of the uncut one, whatever its settings."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from camoxpert_cli.engine.run import prepare
from camoxpert_cli.engine.train import carry_out, train
from tests.helpers.compare import differences
from tests.helpers.cut_runs import CIRCUMSTANCES, SETTINGS, differing
from tests.helpers.tiny_data import tiny_plan

# Python 3.12 warns of any fork while threads run; workers use none of the parent's.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

# Where a run is cut: after so many optimizer steps, saving after each or at ends of epochs only, and whether before
# the next batch, or between the epoch's last step and its validation.
CUTS: dict[str, tuple[int, str | None, bool]] = {
    "within the first epoch": (1, "1", False),
    "end of an epoch": (2, None, False),
    "within a group of accumulated batches": (3, "1", False),
    "stage boundary": (4, None, False),
    "within stage 2": (5, "1", False),
    "unfreezing": (6, None, False),
    "before validation": (6, "1", True),
    "within the last epoch": (7, "1", False),
}
SCHEDULERS = ["cosine", "onecycle", "cosine_restart", "none"]


class Cut(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def uncut_runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """The uncut run with a scheduler, with or without an EMA of the weights; each is trained once."""

    @functools.cache
    def train_once(scheduler: str, use_ema: bool) -> Path:
        settings = {**SETTINGS, "scheduler": scheduler, "use_ema": use_ema}
        return train(tiny_plan(tiny_data, tmp_path_factory.mktemp("uncut") / "run", **settings)).folder.path

    return train_once


def train_until(data: Path, folder: Path, steps: int, before_validation: bool, **settings: Any) -> None:
    """A run that is cut after so many optimizer steps."""
    plan = tiny_plan(data, folder, **settings)
    run, _ = prepare(plan)
    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        done += 1

    def end(*_: Any) -> None:
        if done == steps:
            raise Cut

    if before_validation:
        run.state.scored_network.register_forward_pre_hook(end)
    else:
        run.strategy.step.register_forward_pre_hook(end)
    counting = register_optimizer_step_post_hook(count)
    try:
        with pytest.raises(Cut):
            carry_out(run, plan, None)
    finally:
        counting.remove()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("use_ema", [True, False])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("cut", CUTS)
def test_every_combination(
    tiny_data: Path,
    tmp_path: Path,
    uncut_runs: Callable[[str, bool], Path],
    cut: str,
    scheduler: str,
    use_ema: bool,
    num_workers: int,
) -> None:
    """Results too are those of the uncut run."""
    uncut, folder = uncut_runs(scheduler, use_ema), tmp_path / "run"
    steps, save_every, before_validation = CUTS[cut]
    settings = {**SETTINGS, "scheduler": scheduler, "use_ema": use_ema, "num_workers": num_workers}
    settings["save_every"] = save_every
    train_until(tiny_data, folder, steps, before_validation, **settings)
    train(tiny_plan(tiny_data, folder, resume_from=str(folder / "last.pth"), **settings))

    assert differing(folder, uncut) == []
    results = [json.loads((each / "results.json").read_text(encoding="utf-8")) for each in (folder, uncut)]
    assert differences(results[0], results[1], CIRCUMSTANCES) == []
