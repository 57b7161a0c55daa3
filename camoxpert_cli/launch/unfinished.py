"""The exit code of a run that a time limit or a signal ended early: `run.unfinished_exit_code`.

It is given by the process that the user started, once the run has ended: processes that this one starts keep their
usual exit codes, which say why they ended. Does not import torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.config.schema import SETTINGS, Config
from camoxpert_cli.config.values import convert
from camoxpert_cli.errors import Interrupted
from camoxpert_cli.parallel import worker
from camoxpert_cli.signals import ASKING, number_of

_SETTING = SETTINGS["run.unfinished_exit_code"]


def code_of(config: Config) -> int | None:
    """Return the exit code for an unfinished run; None if the usual ones apply.

    They always do under torchrun, which exits with 1 whatever the code of a process, and restarts all for any but 0.
    """
    return None if _is_under_torchrun() else config.run.unfinished_exit_code


def code_typed(flags: Mapping[str, Any]) -> int | None:
    """Return the same from flags alone, for the time until the settings are known; None for an invalid one."""
    try:
        code: int | None = convert(_SETTING, flags.get(_SETTING.key))
    except ValueError:
        return None
    return None if _is_under_torchrun() else code


@contextmanager
def interrupted_with(code: int | None) -> Iterator[None]:
    """Give `code`, unless None, to the error of a signal that ends what is done within."""
    try:
        yield
    except Interrupted as error:
        if code is not None:
            error.exit_code = code
        raise
    except KeyboardInterrupt as error:
        if code is None:
            raise
        raise Interrupted(f"stopped by {ASKING[number_of(error)]}", exit_code=code) from error


def warn_of_torchrun(config: Config, folder: Path) -> None:
    """Warn, in the first process that torchrun started, that the exit code cannot be passed on."""
    code = config.run.unfinished_exit_code
    if code is not None and _is_under_torchrun() and worker.is_first():
        console.warn(
            f"torchrun does not pass on exit codes, so {_SETTING.flag} {code} has no effect; to have it, run this "
            f"after torchrun: camox status {shlex.quote(str(folder))} {_SETTING.flag} {code}"
        )


def _is_under_torchrun() -> bool:
    return worker.is_worker() and not worker.is_launched()
