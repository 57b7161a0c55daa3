"""Presets shown to users: the list of presets, what one resolves to, and where each of its values comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from camoxpert_cli import console
from camoxpert_cli.config.presets import PRESET_FOLDER, Preset, own_presets, preset_names, read_chain, read_preset
from camoxpert_cli.config.resolve import DEFAULT_ORIGIN, resolve, to_mapping
from camoxpert_cli.config.schema import SETTINGS, Config
from camoxpert_cli.errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """A preset in the list. `problem` is why it cannot be used, empty if it can."""

    name: str
    summary: str
    hardware: str
    path: Path
    built_in: bool
    problem: str = ""


def catalogue() -> list[Entry]:
    """Return all presets, built-in ones first, each group sorted by name.

    An invalid preset of the user's has its problem in its entry, and does not hide the others.
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
        # By name, as a command would refer to it; a built-in one does not depend on the user's own presets.
        resolve(str(path) if built_in else name, {})
    except ConfigError as error:
        return Entry(name, "", "", path, built_in, error.message)
    return entry


@dataclass(frozen=True)
class Value:
    """A setting's `value` in plain types, and whether it comes from the preset, a parent, or the defaults.

    `origin` is the name of a built-in preset, or the path of another one.
    """

    key: str
    value: Any
    origin: str
    inherited: bool

    @property
    def text(self) -> str:
        """Return the value as a preset would write it."""
        written = yaml.safe_dump(self.value, default_flow_style=True, width=10**6)
        return written.removesuffix("\n").removesuffix("\n...")

    @property
    def source(self) -> str:
        """Return where the value comes from, in words."""
        return f"{self.origin} (inherited)" if self.inherited else self.origin


@dataclass(frozen=True)
class Explained:
    """A preset with its parents, eldest first and itself last, and every setting in schema order."""

    chain: list[Preset]
    config: Config
    values: list[Value]

    @property
    def preset(self) -> Preset:
        return self.chain[-1]


def explain(name: str) -> Explained:
    """Resolve `name`, as given to `--preset`. Raises ConfigError with all problems of the preset and its parents."""
    resolved = resolve(name, {})
    chain = read_chain(name)
    mapping = to_mapping(resolved.config)
    values = [
        Value(
            key,
            mapping[setting.section][setting.name],
            resolved.origins[key],
            resolved.origins[key] not in (DEFAULT_ORIGIN, chain[-1].origin),
        )
        for key, setting in SETTINGS.items()
    ]
    return Explained(chain, resolved.config, values)


def recipe(explained: Explained) -> str:
    """Return the preset as a YAML file without parents: its header comment, and all settings of it and its parents."""
    preset = explained.preset
    lines = preset.path.read_text(encoding="utf-8-sig").splitlines()
    header = [f"{line}\n" for line in takewhile(lambda line: line.startswith("#"), lines)]
    words = {"summary": preset.summary, "hardware": preset.hardware}
    sections: dict[str, dict[str, Any]] = {}
    for value in explained.values:
        if value.origin != DEFAULT_ORIGIN:
            setting = SETTINGS[value.key]
            sections.setdefault(setting.section, {})[setting.name] = value.value
    parts = [{word: text for word, text in words.items() if text}, *({name: part} for name, part in sections.items())]
    blocks = [yaml.safe_dump(part, sort_keys=False, allow_unicode=True, width=10**6) for part in parts if part]
    return "\n".join(["".join(header), *blocks] if header else blocks).rstrip("\n")


def account(explained: Explained) -> list[str]:
    """Return lines that describe what a preset resolves to: its parents, its own settings, and its stages."""
    preset, config = explained.preset, explained.config
    parents = [each.origin for each in reversed(explained.chain[:-1])]
    lines = [f"{preset.origin} is valid" + (f"; it extends {', which extends '.join(parents)}" if parents else "")]
    lines += [f"  {value.key}: {value.text}" for value in explained.values if value.origin == preset.origin]
    train, where = config.train, ""
    if config.run.gpus == "all":
        config, where = replace(config, run=replace(config.run, gpus=1)), " times the number of GPUs"
    epochs = (0 if train.skip_stage1 else train.stage1_epochs, train.epochs - train.stage1_epochs)
    rates = (train.lr, config.stage2_rate)
    for number, (count, images, rate) in enumerate(zip(epochs, config.global_batches, rates, strict=True), start=1):
        if count:
            lines.append(
                f"Stage {number}: {console.counted(count, 'epoch')}, global batch size {images}{where}, "
                f"learning rate {rate:g}"
            )
    return lines
