from __future__ import annotations

from camoxpert_cli.commands.score_tables import to_text
from tests.helpers.example_evaluation import example_evaluation


def test_tables() -> None:
    """Own scores, slices and what others publish in one table of at most 80 columns, each source named once."""
    evaluation = example_evaluation()
    text = to_text(evaluation)
    own = next(line for line in text.splitlines() if line.startswith("best.pth"))

    assert max(map(len, text.splitlines())) <= 80
    assert own.split()[1:3] == ["3", f"{evaluation.sets[0].means.s_measure:.3f}"]
    assert "  Aquatic" in text
    assert text.count("ZoomNeXt PVTv2-B2") == 2  # in the table, and beside its source
    assert text.count("README of github.com/lartpang/ZoomNeXt") == 1
