"""What a run keeps of the strategy that trials chose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from camoxpert_cli.engine import train
from camoxpert_cli.engine.strategy_choice import Choice
from camoxpert_cli.run_folder import STRATEGY_FILE
from tests.helpers.tiny_data import tiny_plan


def test_the_run_keeps_the_choice(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run folder holds it from the first step on, and settings that still say auto: the run may go on elsewhere."""

    def crash(run: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(train, "train_epochs", crash)
    choice = Choice("ddp", {"ddp": 9.0}, {"dp": "crashed"}, "key")
    with pytest.raises(ZeroDivisionError):
        train.train(replace(tiny_plan(tiny_data, tmp_path / "run"), choice=choice))

    assert Choice.from_text((tmp_path / "run" / STRATEGY_FILE).read_text()) == choice
    assert "strategy: auto\n" in (tmp_path / "run" / "config.yaml").read_text()
