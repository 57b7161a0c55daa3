from __future__ import annotations

from camoxpert_cli.commands.imports import without_collecting


def work() -> None:
    """Run as one of the worker processes started by camox train."""
    with without_collecting():
        from camoxpert_cli.launch.start import work as train_by_job

    train_by_job()
