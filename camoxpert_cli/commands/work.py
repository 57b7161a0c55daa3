from __future__ import annotations


def work() -> None:
    """Run as one of the worker processes started by camox train."""
    from camoxpert_cli.launch.start import work as train_by_job

    train_by_job()
