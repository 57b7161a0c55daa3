"""Images are validated and scored at another size than they are trained at."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.checkpoints.load import load_model
from camoxpert_cli.engine.run import prepare
from camoxpert_cli.engine.train import carry_out
from tests.helpers.tiny_data import tiny_plan


@pytest.mark.parametrize("cache", ["off", "on"])
def test_which_images_have_which_size(tiny_data: Path, tmp_path: Path, cache: str) -> None:
    """Training at one, validation and the test set at the other, with a cache or without; so it is used later."""
    plan = tiny_plan(
        tiny_data,
        tmp_path / "run",
        eval_img_size=96,
        epochs=1,
        stage1_epochs=1,
        cache="off" if cache == "off" else str(tmp_path / "cache"),
        use_ema=False,
    )
    run, _ = prepare(plan)
    seen: list[tuple[bool, int]] = []
    network = run.state.network
    network.register_forward_pre_hook(lambda module, args: seen.append((module.training, args[0].shape[-1])))
    folder = carry_out(run, plan, None).folder

    assert {*seen} == {(True, 64), (False, 96)}
    assert load_model(folder.best).img_size == 96
    scored = CliRunner().invoke(app, ["eval", str(folder.best), "--dataset-path", str(tiny_data), "--json"])
    assert '"img_size": 96' in scored.stdout
