"""The loss of a batch that one process holds as a whole."""

from __future__ import annotations

from camoxpert_cli.engine import step
from camoxpert_cli.engine.step import Losses, StepOutput
from camoxpert_cli.parallel.world import World


def combine(output: StepOutput, top_k: int) -> Losses:
    """`step.combine` for all images of `output` and a world of one."""
    return step.combine(output, top_k, len(output.terms), World())
