"""Mistakes in what processes and devices do together."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = [
    Mutant(
        "parallel/world.py",
        "os.getppid() != read_job",
        "os.getppid() == read_job",
        "behaviour/parallel/test_world.py::test_a_rank_that_fails_ends_at_once",
    ),
]
