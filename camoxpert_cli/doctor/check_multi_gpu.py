"""Judge the readings of all GPUs together."""

from __future__ import annotations

from camoxpert_cli.doctor.finding import Finding
from camoxpert_cli.doctor.readings import Peers, Readings, TeamTrial
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.parallel.strategy import StrategyName


def team_findings(readings: Readings) -> list[Finding]:
    """Return findings on peer access and on one training step with each strategy."""
    if len(readings.working) < 2:
        return [Finding("several GPUs", "skipped", "", "needs two working GPUs")] if readings.working else []
    return [_peers(readings), _data_parallel(readings), _ddp(readings)]


def works_without_peers(readings: Readings) -> bool:
    """Return whether ddp failed with peer access between the GPUs and worked without it."""
    return isinstance(readings.ddp, Failure) and isinstance(readings.ddp_without_peers, TeamTrial)


def best_strategy(readings: Readings) -> StrategyName | None:
    """Return the strategy for all working GPUs: ddp, dp if only that passed its test, or None if neither did."""
    if isinstance(readings.ddp, TeamTrial) or works_without_peers(readings):
        return "ddp"
    return "dp" if isinstance(readings.data_parallel, TeamTrial) else None


def _peers(readings: Readings) -> Finding:
    ran = "copies between all GPUs"
    peers = readings.peers
    advice = ("make NCCL copy through host memory", "export NCCL_P2P_DISABLE=1")
    if not isinstance(peers, Peers):
        return Finding("peer access", "warning", ran, _why(peers), *advice)
    if peers.wrong:
        return Finding("peer access", "warning", ran, f"wrong values copied from GPU {', '.join(peers.wrong)}", *advice)
    if peers.direct == 0:
        return Finding("peer access", "ok", ran, "none; copies go through host memory")
    return Finding("peer access", "ok", ran, f"direct in {peers.direct} of {peers.pairs} directions")


def _data_parallel(readings: Readings) -> Finding:
    ran = "one training step with DataParallel"
    trial = readings.data_parallel
    if isinstance(trial, TeamTrial):
        return Finding("dp", "ok", ran, f"gradients match a single GPU's (relative difference {trial.difference:.1g})")
    instead = "use ddp, which works" if isinstance(readings.ddp, TeamTrial) else "see ddp"
    return Finding("dp", "warning", ran, _why(trial), instead)


def _ddp(readings: Readings) -> Finding:
    ran = "one training step with one process per GPU, and an all_reduce"
    trial = readings.ddp
    if isinstance(trial, TeamTrial):
        speed = "" if trial.bandwidth is None else f", all_reduce at {trial.bandwidth / 1e9:.1f} GB/s"
        same = f"gradients match a single GPU's (relative difference {trial.difference:.1g})"
        return Finding("ddp", "ok", ran, f"{same}{speed}")
    if works_without_peers(readings):
        return Finding(
            "ddp",
            "warning",
            ran,
            f"{_why(trial)}; it works without peer access",
            "make NCCL copy through host memory",
            "export NCCL_P2P_DISABLE=1",
        )
    others = "--strategy dp" if isinstance(readings.data_parallel, TeamTrial) else "--gpus 1"
    return Finding("ddp", "warning", ran, _why(trial), f"train with {others}")


def _why(reading: object) -> str:
    return reading.why if isinstance(reading, Failure) else "not tested"
