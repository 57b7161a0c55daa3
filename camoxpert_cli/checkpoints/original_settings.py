"""Translate the settings in a checkpoint of the original CamoXpert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camoxpert_cli.config.schema import SETTINGS

# Settings of the machine and session that the checkpoint came from.
_NOT_TAKEN = {"checkpoint_dir", "resume_from", "skip_stage1", "device", "num_workers"}


def settings_of_original(args: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return sections of settings from its `args`, for `resolve`; values are not validated.

    Settings of the machine, and those without a counterpart in camox, are dropped. Its batch size counts as that of
    one GPU.
    """
    taken = {
        (setting.section, setting.name): args[setting.name]
        for setting in SETTINGS.values()
        if setting.name in args and setting.name not in _NOT_TAKEN
    }
    if args.get("no_amp"):
        taken["train", "precision"] = "fp32"
    sections: dict[str, dict[str, Any]] = {}
    for (section, name), value in taken.items():
        sections.setdefault(section, {})[name] = value
    return sections
