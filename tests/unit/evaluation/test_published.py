from __future__ import annotations

import pytest

from camoxpert_cli.evaluation.published import published_for
from camoxpert_cli.metrics.measures import COLUMNS


@pytest.mark.parametrize("name", ["COD10K", "cod10k-v3", "CAMO", "CAMO_TestingDataset", "NC4K", "CHAMELEON"])
def test_known_sets(name: str) -> None:
    """A set of the field is known by what its name begins with; every row names its source and our own measures."""
    rows = published_for(name)

    assert len(rows) >= 5
    assert all(row.source.startswith("README of github.com/") for row in rows)
    assert all(set(row.scores) <= set(COLUMNS) and 0 < min(row.scores.values()) < 1 for row in rows)
    assert [row.scores["s_measure"] for row in rows] == sorted((row.scores["s_measure"] for row in rows), reverse=True)


def test_sets_are_told_apart() -> None:
    """ZoomNeXt with PVTv2-B2 has the S-measures its README prints, each for its own set."""
    found = {
        name: row.scores["s_measure"]
        for name in ("CAMO", "CHAMELEON", "COD10K", "NC4K")
        for row in published_for(name)
        if row.system == "ZoomNeXt PVTv2-B2"
    }

    assert found == {"CAMO": 0.874, "CHAMELEON": 0.922, "COD10K": 0.887, "NC4K": 0.892}


@pytest.mark.parametrize("name", ["", "GT", "my own", "TINY"])
def test_unknown_sets(name: str) -> None:
    """Nothing is published for a user's own images."""
    assert published_for(name) == []
