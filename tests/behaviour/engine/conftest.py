"""A run that differs from `plain_run` in every setting that must not matter for what is learned."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from camoxpert_cli.engine.run import prepare
from camoxpert_cli.engine.train import carry_out
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.tiny_data import tiny_plan


class OtherRun(NamedTuple):
    """A finished run: its folder, and how often parts of its network were computed in training. Change nothing."""

    folder: RunFolder
    computed: Counter[str]


@pytest.fixture(scope="session")
def other_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> OtherRun:
    """`plain_run` with loader workers, gradient checkpointing, curves, and a save after every step."""
    settings: dict[str, Any] = {
        "num_workers": 2,
        "gradient_checkpointing": True,
        "tensorboard": True,
        "save_every": "1",
    }
    plan = tiny_plan(tiny_data, tmp_path_factory.mktemp("other") / "run", **settings)
    run, _ = prepare(plan)
    computed: Counter[str] = Counter()
    network = run.state.network
    for name in ("backbone", "moe_layers.0", "decoder_blocks.3"):
        network.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: computed.update([name]))
    return OtherRun(carry_out(run, plan, None).folder, computed)
