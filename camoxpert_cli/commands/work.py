from __future__ import annotations


def work() -> None:
    """Take part in a training run, as one of the processes that camox train starts."""
    from camoxpert_cli.launch.start import work as train_by_job

    train_by_job()
