"""What a run is made ready with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from camoxpert_cli.engine import run
from camoxpert_cli.engine.fit import Budget, Pace
from camoxpert_cli.engine.fitting import Fitting
from tests.helpers.tiny_data import tiny_plan


@pytest.mark.parametrize(("asked", "ranks", "warned"), [(4, 1, False), (2, 2, False), (3, 2, True), (5, 1, True)])
def test_more_workers_than_cores(
    asked: int, ranks: int, warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many are taken as were asked for, and said to take turns where those of all ranks are more than the cores."""
    monkeypatch.setattr(run, "usable_cores", lambda: 4)

    assert run._choose_workers(asked, ranks, on_gpu=False) == asked
    assert (f"{asked * ranks} loader workers share" in capsys.readouterr().err) is warned


def test_memory_and_kernels_are_kept_on_the_cpu(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From before the first step on; whatever assembles a run does it, `camox benchmark` too."""
    asked: list[str] = []
    monkeypatch.setattr(run, "keep_freed_memory", lambda: asked.append("memory"))
    monkeypatch.setattr(run, "keep_compiled_kernels", lambda: asked.append("kernels"))
    run.prepare(tiny_plan(tiny_data, tmp_path / "run"))

    assert sorted(asked) == ["kernels", "memory"]


@pytest.mark.parametrize(("sessions", "ends"), [(1, True), (2, False)])
def test_a_run_knows_its_fit(tiny_data: Path, tmp_path: Path, sessions: int, ends: bool) -> None:
    """Saving takes as long as it was measured to take; the end is planned only if this session has it."""
    made, _ = run.prepare(tiny_plan(tiny_data, tmp_path / "run"))
    pace = Pace({(1, 0): 1.0, (2, 4): 1.0}, 1.0, 1.0)
    made.fit_to(Fitting(made.config, Budget(sessions, 100.0, 100.0, 1.0), pace, 8, saving=2.5, pause=0.5))

    assert (made.clock.reserve.saving, made.clock.reserve.pause) == (2.5, 0.5)
    assert made.clock.reserve.planned == made.ends_in_time == ends


def test_a_run_that_follows(tiny_data: Path, tmp_path: Path) -> None:
    """With another number of epochs, phases and what is saved are other ones too, and nothing is frozen again."""
    made, _ = run.prepare(tiny_plan(tiny_data, tmp_path / "run", epochs=7))
    made.state.progress.epoch = 3
    made.state.backbone_stages = 2
    made.follow(replace(made.config, train=replace(made.config.train, epochs=10)))

    assert made.saver.config == made.config
    assert [(each.first, each.end, each.backbone_stages) for each in made.phases] == [(0, 1, 0), (1, 7, 2), (7, 10, 4)]
