"""When a run is trained: after its last epoch, or earlier if it has a `train.patience`. Does not import torch."""

from __future__ import annotations

from camoxpert_cli import console
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.phases import build_phases


def is_trained(config: Config, epoch: int, best_epoch: int | None) -> bool:
    """Return whether no epoch is left after `epoch` complete ones, of which `best_epoch` was the best.

    It is 0 for the weights that the run started with, None if there are no best weights yet.
    """
    return epoch >= config.train.epochs or early_stop(config, epoch, best_epoch) is not None


def early_stop(config: Config, epoch: int, best_epoch: int | None) -> str | None:
    """Return why a run ends after `epoch` complete epochs, before its last one; None if it does not.

    It does after `train.patience` epochs in a row without a better validation IoU. Only epochs of the last phase count,
    after its warmup: otherwise, a run could end before the backbone has been trained at all. This depends on nothing
    but the settings and what checkpoints contain, so that a resumed run ends where an uninterrupted one does.
    """
    patience = config.train.patience
    # Without a best epoch, there are no weights to score: the next epoch is the best.
    if patience is None or best_epoch is None or epoch >= config.train.epochs:
        return None
    waited = epoch - max(best_epoch, epochs_before_patience(config))
    if waited < patience:
        return None
    best = f"best in epoch {best_epoch}" if best_epoch else "the weights that the run started with are the best"
    return f"no better validation IoU for {console.counted(waited, 'epoch')}, {best}"


def epochs_before_patience(config: Config) -> int:
    """Return how many epochs a run always trains before `train.patience` begins to count."""
    phase = build_phases(config)[-1]
    return max(phase.first, phase.stage.first + phase.stage.warmup_epochs)


def describe_trained(config: Config, epoch: int, best_epoch: int | None) -> str:
    """Describe how a trained run ended: "40 epochs", or "12 of 40 epochs" and why."""
    reason = early_stop(config, epoch, best_epoch)
    if reason is None:
        return console.counted(epoch, "epoch")
    return f"{epoch} of {console.counted(config.train.epochs, 'epoch')}: {reason}; a larger --patience continues it"
