"""What the readings of all GPUs together mean."""

from __future__ import annotations

from camoxpert_cli.doctor.finding import Finding
from camoxpert_cli.doctor.readings import Peers, Readings, TeamTrial
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.parallel.strategy import StrategyName


def team_findings(readings: Readings) -> list[Finding]:
    """Peer access, and a training step by each strategy."""
    if len(readings.working) < 2:
        return [Finding("several GPUs", "skipped", "", "takes two GPUs that work")] if readings.working else []
    return [_peers(readings), _data_parallel(readings), _ddp(readings)]


def works_without_peers(readings: Readings) -> bool:
    """Whether ddp failed and, kept from direct access between the cards, did not."""
    return isinstance(readings.ddp, Failure) and isinstance(readings.ddp_without_peers, TeamTrial)


def best_strategy(readings: Readings) -> StrategyName | None:
    """What the cards that work can train by together: ddp, or dp where only that passed its trial; None: neither."""
    if isinstance(readings.ddp, TeamTrial) or works_without_peers(readings):
        return "ddp"
    return "dp" if isinstance(readings.data_parallel, TeamTrial) else None


def _peers(readings: Readings) -> Finding:
    ran = "copies between all GPUs"
    peers = readings.peers
    advice = ("have NCCL go through main memory", "export NCCL_P2P_DISABLE=1")
    if not isinstance(peers, Peers):
        return Finding("peer access", "warning", ran, _why(peers), *advice)
    if peers.wrong:
        return Finding("peer access", "warning", ran, f"wrong values from GPU {', '.join(peers.wrong)}", *advice)
    if peers.direct == 0:
        return Finding("peer access", "ok", ran, "not direct, through main memory")
    return Finding("peer access", "ok", ran, f"direct in {peers.direct} of {peers.pairs} directions")


def _data_parallel(readings: Readings) -> Finding:
    ran = "a training step by DataParallel"
    trial = readings.data_parallel
    if isinstance(trial, TeamTrial):
        return Finding("dp", "ok", ran, f"gradients are one GPU's ({trial.difference:.1g} apart)")
    instead = "take ddp, which works" if isinstance(readings.ddp, TeamTrial) else "see ddp"
    return Finding("dp", "warning", ran, _why(trial), instead)


def _ddp(readings: Readings) -> Finding:
    ran = "a training step in a process for each GPU, and an all_reduce"
    trial = readings.ddp
    if isinstance(trial, TeamTrial):
        speed = "" if trial.bandwidth is None else f", all_reduce at {trial.bandwidth / 1e9:.1f} GB/s"
        return Finding("ddp", "ok", ran, f"gradients are one GPU's ({trial.difference:.1g} apart){speed}")
    if works_without_peers(readings):
        return Finding(
            "ddp",
            "warning",
            ran,
            f"{_why(trial)}; without direct access it works",
            "have NCCL go through main memory",
            "export NCCL_P2P_DISABLE=1",
        )
    others = "--strategy dp" if isinstance(readings.data_parallel, TeamTrial) else "--gpus 1"
    return Finding("ddp", "warning", ran, _why(trial), f"train with {others}")


def _why(reading: object) -> str:
    return reading.why if isinstance(reading, Failure) else "not asked"
