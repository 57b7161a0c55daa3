from __future__ import annotations

from camoxpert_cli.errors import UsageError
from camoxpert_cli.parallel.worker import is_launched


def work() -> None:
    """Take part in a training run, as one of the processes that camox train starts."""
    if not is_launched():
        raise UsageError("camox work is for the processes that camox train starts", "camox train --help")

    from camoxpert_cli.launch.start import work as train_by_job

    train_by_job()
