"""The list of mutants fits the package as it stands."""

from __future__ import annotations

import ast

import pytest

from tests.helpers.places import PACKAGE, ROOT
from tests.mutants.__main__ import all_mutants
from tests.mutants.mutant import Mutant

DEFAULT = ("unit", "behaviour", "e2e", "gpu", "benchmarks")


@pytest.mark.parametrize("mutant", all_mutants(), ids=str)
def test_can_be_planted(mutant: Mutant) -> None:
    """Its text is there once, what it makes of it is another program, and its tests are in the default run."""
    text = (PACKAGE / mutant.file).read_text(encoding="utf-8")

    assert ast.dump(ast.parse(mutant.written_over(text))) != ast.dump(ast.parse(text))
    for selected in mutant.tests.split():
        path, _, name = selected.partition("::")
        assert path.split("/")[0] in DEFAULT
        assert name.partition("[")[0].split("::")[-1] in (ROOT / "tests" / path).read_text(encoding="utf-8")
