"""`camox eval`: what it refuses before it reads anything; see also `behaviour/commands/test_eval.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app


@pytest.mark.parametrize(
    ("flags", "exit_code", "message"),
    [([], 2, "already contains results.json"), (["--overwrite"], 3, " not found")],
)
def test_scores_that_are_there(tmp_path: Path, flags: list[str], exit_code: int, message: str) -> None:
    """Scores of another evaluation are replaced where that was asked for, and else nothing begins."""
    scores = '{"stretch": true, "sets": {}}'
    (tmp_path / "results.json").write_text(scores)
    nowhere = str(tmp_path / "maps")
    outcome = CliRunner().invoke(
        app, ["eval", "--predictions", nowhere, "--masks", nowhere, "--out", str(tmp_path), *flags]
    )

    assert outcome.exit_code == exit_code, outcome.output
    assert message in outcome.stderr
    assert (tmp_path / "results.json").read_text() == scores
