"""Settings as a command line: the command that is started means what was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.config.command_line import train_arguments
from camoxpert_cli.config.resolve import Resolved, resolve

# A value of each kind that a setting can have, odd ones included.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "data.dataset_path": st.lists(st.sampled_from(["A", "b c", "-x", "--lr", "ü=1"]), min_size=1),
    "train.lr": st.floats(1e-5, 1e-2),
    "train.stage2_lr": st.none() | st.floats(1e-5, 1e-2),
    "train.use_ema": st.booleans(),
    "data.num_workers": st.just("auto") | st.integers(0, 9),
    "run.gpus": st.none() | st.just("all") | st.integers(1, 9),
    "run.save_every": st.none() | st.just("5m"),
    "run.checkpoint_dir": st.sampled_from(["runs/a", "-run", "a b"]),
    "train.scheduler": st.sampled_from(["cosine", "none"]),
}


@settings(max_examples=25)
@given(preset=st.sampled_from([None, "kaggle-2xT4"]), flags=st.fixed_dictionaries({}, optional=VALUES))
def test_the_command_line_means_the_settings(preset: str | None, flags: dict[str, Any]) -> None:
    """`camox` with these arguments comes to the same settings, from the same preset."""
    asked = resolve(preset, flags)
    seen: list[Resolved] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("camoxpert_cli.launch.start.start", lambda resolved, command, **_: seen.append(resolved))
        outcome = CliRunner().invoke(app, train_arguments(asked))

    assert outcome.exit_code == 0, outcome.output
    assert (seen[0].config, seen[0].preset, seen[0].base) == (asked.config, asked.preset, asked.base)
    assert seen[0].typed == asked.typed
