"""Settings as the command line that gives them, for processes that a program starts in place of a person."""

from __future__ import annotations

from camoxpert_cli.config.resolve import Resolved
from camoxpert_cli.config.schema import SETTINGS


def train_arguments(resolved: Resolved) -> list[str]:
    """What stands behind `camox` to train with the same preset and every setting that was given beside it.

    A setting without a value goes by `--set`, for no flag takes a value away. One that is an empty list of paths is
    left out: no command line says it.
    """
    arguments = ["train"] if resolved.preset is None else ["train", f"--preset={resolved.preset}"]
    for key in sorted(resolved.typed):
        setting = SETTINGS[key]
        value = getattr(getattr(resolved.config, setting.section), setting.name)
        if value is None:
            arguments.append(f"--set={key}=null")
        elif setting.type is bool:
            arguments.append(setting.flag if value else f"--no-{setting.flag[2:]}")
        else:
            arguments += [f"{setting.flag}={item}" for item in (value if isinstance(value, tuple) else [value])]
    return arguments
