"""Run an evaluation in this process, or in several that it starts and waits for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from camoxpert_cli.config.eval_options import Inference, Protocol, TestData
from camoxpert_cli.config.schema import RunConfig
from camoxpert_cli.data.cores import cores_each
from camoxpert_cli.evaluation.output import Destination
from camoxpert_cli.evaluation.results import Evaluation
from camoxpert_cli.evaluation.test_sets import evaluate_checkpoint
from camoxpert_cli.launch.workers import run_workers
from camoxpert_cli.parallel.device import place
from camoxpert_cli.parallel.worker import is_worker
from camoxpert_cli.parallel.world import expected_size


def evaluate(
    checkpoint: Path,
    data: TestData,
    inference: Inference,
    protocol: Protocol,
    run: RunConfig,
    destination: Destination,
    *,
    command: Sequence[str],
) -> Evaluation | None:
    """Score `checkpoint` on the test sets of `data`, unless `destination` keeps what an earlier evaluation has done.

    If `run` asks for several devices, that many processes share the work, each started with this process's `command`
    line. The first returns the evaluation, the others and the process that starts them return None. Raises CamoxError.
    """
    placement = place(run, expected_size())
    if placement.count > 1 and not is_worker():
        threads = cores_each(placement.count)
        if (error := run_workers(command, placement.count, threads=threads).error) is not None:
            raise error
        return None
    return evaluate_checkpoint(checkpoint, data, inference, protocol, placement, destination)
