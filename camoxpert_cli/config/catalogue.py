"""The presets that can be called by name: those that come with camox, and the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from camoxpert_cli.config.presets import PRESET_FOLDER, own_presets, preset_names, read_preset
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """A preset in the list. `problem` is why it cannot be used, empty where it can."""

    name: str
    summary: str
    hardware: str
    path: Path
    built_in: bool
    problem: str = ""


def catalogue() -> list[Entry]:
    """All presets, those that come with camox first, each part sorted by name.

    What is wrong with a preset of the user's is said in its entry and does not hide the others.
    """
    return [
        *(_entry(name, PRESET_FOLDER / f"{name}.yaml", built_in=True) for name in preset_names()),
        *(_entry(name, path, built_in=False) for name, path in own_presets().items()),
    ]


def _entry(name: str, path: Path, *, built_in: bool) -> Entry:
    try:
        preset = read_preset(str(path))
        summary = preset.summary or (f"extends {preset.extends}" if preset.extends else "")
        entry = Entry(name, summary, preset.hardware, path, built_in)
        # Under its name, as a command would call it; one that comes with camox is whole, whatever the user keeps.
        resolve(str(path) if built_in else name, {})
    except ConfigError as error:
        return Entry(name, "", "", path, built_in, error.message)
    return entry
