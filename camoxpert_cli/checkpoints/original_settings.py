"""The settings in a checkpoint of the original program, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camoxpert_cli.config.schema import SETTINGS

# Of the machine and session the checkpoint came from.
_NOT_TAKEN = {"checkpoint_dir", "resume_from", "skip_stage1", "device", "num_workers"}


def settings_of_original(args: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sections with settings from its `args`, for `resolve`; values are unchecked.

    Where it trained is not taken over, and neither is what no setting of ours corresponds to. Its batch size is taken
    as one GPU's.
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
