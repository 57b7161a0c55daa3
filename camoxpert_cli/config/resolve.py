"""Combines preset, flags and `--set` into one validated Config that knows where each value came from.

All errors are reported together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.config.parse import describe_unpaired
from camoxpert_cli.config.presets import PRESET_WORDS, collect_chain
from camoxpert_cli.config.schema import SECTIONS, SETTINGS, Config, DataConfig, field_of, name_of
from camoxpert_cli.config.values import AUTO, convert
from camoxpert_cli.errors import ConfigError, did_you_mean, nearest, one_line, shown

DEFAULT_ORIGIN = "default"
ASSIGNED = "--set"
_SETTINGS_HINT = "camox train --help"
_PRESETS_HINT = "camox presets"
# With names as in a file, which differ from flags.
_NAMES_HINT = "camox presets show baseline --explain"

# What `train.fit` chooses: only a preset may give them, as proportions.
CHOSEN_BY_FIT = ("train.epochs", "train.stage1_epochs", "train.warmup_epochs", "train.last_epoch_images")

# Problems shown; a file with more is probably not a preset at all.
_MOST_TOLD = 50

_KEYS = {setting.name: setting.key for setting in SETTINGS.values()}
# Keys of earlier versions, still read from checkpoints, config.yaml and presets.
_RENAMED = {"data.generated_pictures": "data.generated_images"}


@dataclass(frozen=True)
class Resolved:
    """A complete configuration, where each dotted key's value came from, and the preset's name or path.

    `base` is the configuration without the user's flags and assignments: the preset, the saved settings or the
    defaults. On its own it may be impossible. `auto` are the keys for which the user typed auto: until GPU memory has
    been measured they have the value of `base`, which determines the global batch size.
    """

    config: Config
    origins: Mapping[str, str]
    preset: str | None
    base: Config
    auto: frozenset[str] = frozenset()

    @property
    def typed(self) -> set[str]:
        """Return the keys that are set by flags and assignments."""
        return {key for key, origin in self.origins.items() if origin in (SETTINGS[key].flag, ASSIGNED)}

    @property
    def goes_on(self) -> bool:
        """Return whether a saved run is resumed."""
        return self.preset is None and self.base != Config()


@dataclass(frozen=True)
class _Given:
    key: str
    value: Any
    origin: str


def resolve(
    preset: str | None,
    flags: Mapping[str, Any],
    assignments: Sequence[str] = (),
    saved: tuple[Mapping[str, Any], str] | None = None,
) -> Resolved:
    """Resolve the settings. Later wins: defaults, saved settings, the preset's parents, the preset, flags, assignments.

    `flags` maps dotted keys to values and contains only what was typed; an assignment is `section.name=value`; `saved`
    is a mapping as returned by `to_mapping`, and the name of its origin.
    Raises ConfigError with every unknown key and wrong value or, if there are none, every impossible combination, one
    per line.
    """
    problems: list[str] = []
    hints: list[str] = []
    chain = collect_chain(preset, problems, hints) if preset is not None else []
    if problems:
        hint = hints[0] if hints else _PRESETS_HINT
    else:
        hint = _SETTINGS_HINT if flags or assignments or preset is None else _NAMES_HINT
    start = [
        *(_from_sections(*saved, problems) if saved is not None else []),
        *(item for level in chain for item in _from_sections(level.sections, level.origin, problems, PRESET_WORDS)),
    ]
    typed = [
        *(_Given(key, value, SETTINGS[key].flag) for key, value in flags.items()),
        *_from_assignments(assignments, problems),
    ]
    last = {item.key: item for item in typed}
    if "data.img_size" in last and "data.eval_img_size" not in last:
        # That of the preset or the saved run belongs to its own image size.
        start.append(_Given("data.eval_img_size", None, last["data.img_size"].origin))
    auto = frozenset(key for key, item in last.items() if _is_auto(item))
    typed = [item for item in typed if item.key not in auto and not _is_auto(item)]
    config, origins = _build([*start, *typed], problems)
    problems = problems or [
        *_impossible_combinations(config, origins),
        *(_refuse_beside_fit(config, origins) if saved is None else []),
    ]
    if problems:
        more = [f"and {len(problems) - _MOST_TOLD} more"] if len(problems) > _MOST_TOLD else []
        raise ConfigError("\n".join([*problems[:_MOST_TOLD], *more]), hint)
    return Resolved(config, origins, preset, _build(start, [])[0], auto)


def from_mapping(content: object, origin: str) -> Config:
    """Build a Config from nested plain types as returned by `to_mapping` (run folder, checkpoint).

    Raises ConfigError as `resolve` does; its lines name `origin`.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(f"{origin} is {shown(content)}, expected sections such as train that contain settings")
    return resolve(None, {}, saved=(content, origin)).config


def to_mapping(config: Config) -> dict[str, Any]:
    """Convert to nested plain types (lists for tuples), for YAML, JSON and `from_mapping`."""
    return {
        section: {name_of(name): list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        for section, values in asdict(config).items()
    }


def with_absolute_paths(data: DataConfig) -> DataConfig:
    """Return `data` with absolute paths, independent of the current folder."""
    return replace(
        data,
        dataset_path=_absolute(data.dataset_path),
        images=_absolute(data.images),
        masks=_absolute(data.masks),
        val_images=_absolute(data.val_images),
        val_masks=_absolute(data.val_masks),
        negatives=_absolute(data.negatives),
        cache=_absolute([data.cache])[0] if data.cache not in ("auto", "off") else data.cache,
    )


def _build(given: Sequence[_Given], problems: list[str]) -> tuple[Config, dict[str, str]]:
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    origins = dict.fromkeys(SETTINGS, DEFAULT_ORIGIN)
    for item in given:
        setting = SETTINGS[item.key]
        try:
            values[setting.section][field_of(setting.name)] = convert(setting, item.value)
        except ValueError as error:
            name = item.origin if item.origin == setting.flag else f"{item.origin}: {item.key}"
            problems.append(f"{name} is {shown(item.value)}, expected {error}")
        origins[item.key] = item.origin
    return Config(**{name: section(**values[name]) for name, section in SECTIONS.items()}), origins


def _impossible_combinations(config: Config, origins: Mapping[str, str]) -> list[str]:
    train, model, data = config.train, config.model, config.data

    def said(key: str) -> str:
        return f"{key} is {shown(SETTINGS[key].of(config))} ({origins[key]})"

    problems = []
    epochs, stage1_epochs = said("train.epochs"), said("train.stage1_epochs")
    stage2_epochs = train.epochs - train.stage1_epochs
    if stage2_epochs < 0:
        problems.append(f"{stage1_epochs}, expected at most the total number of epochs: {epochs}")
    elif stage2_epochs < train.warmup_epochs:
        problems.append(
            f"{said('train.warmup_epochs')}, expected at most {stage2_epochs}, the number of epochs of stage 2: "
            f"{epochs}, {stage1_epochs}"
        )
    if train.skip_stage1 and stage2_epochs == 0:
        problems.append(f"{said('train.skip_stage1')}, expected stage 2 to have epochs: {epochs}, {stage1_epochs}")
    rates = {"train.lr": train.lr, "train.stage2_lr": train.stage2_lr}
    for key, rate in rates.items():
        if rate is not None and rate < train.min_lr and train.scheduler != "none":
            problems.append(f"{said('train.min_lr')}, expected at most the learning rate it decays from: {said(key)}")
    problems += [
        f"{said(key)}, expected null when {said('model.init_from')}, which has the weights"
        for key in ("model.backbone_weights", "run.resume_from")
        if model.init_from is not None and SETTINGS[key].of(config) is not None
    ]
    if model.backbone_weights is not None and not model.pretrained:
        problems.append(f"{said('model.backbone_weights')}, expected null when {said('model.pretrained')}")
    for images, masks in (("images", "masks"), ("val_images", "val_masks")):
        counts = [len(getattr(data, name)) for name in (images, masks)]
        flags = [SETTINGS[f"data.{name}"].flag for name in (images, masks)]
        if counts[0] == counts[1]:
            continue
        if {origins[f"data.{name}"] for name in (images, masks)} <= {*flags, DEFAULT_ORIGIN}:
            problems.append(describe_unpaired(flags[0], flags[1], counts[0], counts[1]))
        else:
            problems.append(
                f"data.{images} lists {console.counted(counts[0], 'folder')} ({origins[f'data.{images}']}), "
                f"expected as many as data.{masks}, which lists {counts[1]} ({origins[f'data.{masks}']})"
            )
    return problems


def _refuse_beside_fit(config: Config, origins: Mapping[str, str]) -> list[str]:
    """Numbers of epochs that the user typed for a new run although `train.fit` chooses them, one line each."""
    fit = config.train.fit
    return [
        f"{key} is {SETTINGS[key].of(config)} ({origins[key]}), expected it not to be given when train.fit is {fit} "
        f"({origins['train.fit']}), which chooses it in the proportions of the preset"
        for key in CHOSEN_BY_FIT
        if fit is not None and origins[key] in (SETTINGS[key].flag, ASSIGNED)
    ]


def _from_sections(
    content: Mapping[str, Any], origin: str, problems: list[str], words: Sequence[str] = ()
) -> list[_Given]:
    given = []
    top_level = {name: name for name in (*SECTIONS, *words)} | _KEYS
    for section, settings in content.items():
        if section not in SECTIONS:
            value = "" if isinstance(settings, Mapping) else f" (given {shown(settings)})"
            meant = _did_you_mean(str(section), top_level) if len(problems) < _MOST_TOLD else ""
            problems.append(f"{origin}: unknown section {shown(section)}{value}{meant}")
        elif not isinstance(settings, Mapping):
            problems.append(f"{origin}: {section} is {shown(settings)}, expected a mapping of settings")
        else:
            keys = [(f"{section}.{name}", value) for name, value in settings.items()]
            given += [_Given(_RENAMED.get(key, key), value, origin) for key, value in keys]
    return _known(given, problems)


def _from_assignments(assignments: Sequence[str], problems: list[str]) -> list[_Given]:
    given = []
    for text in assignments:
        key, _, value = (part.strip() for part in text.partition("="))
        if key and value:
            given.append(_Given(key, value, ASSIGNED))
        else:
            problems.append(f"--set: {shown(text)}, expected section.name=value, such as train.lr=0.001")
    return _known(given, problems)


def _known(given: Sequence[_Given], problems: list[str]) -> list[_Given]:
    for item in given:
        if item.key not in SETTINGS:
            # Names are unique across sections, so the name alone also reveals a missing or wrong section.
            meant = _did_you_mean(item.key.rpartition(".")[2], _KEYS) if len(problems) < _MOST_TOLD else ""
            problems.append(f"{item.origin}: unknown setting {one_line(item.key)} (given {shown(item.value)}){meant}")
    return [item for item in given if item.key in SETTINGS]


def _is_auto(item: _Given) -> bool:
    return SETTINGS[item.key].fitted and item.value == AUTO


def _did_you_mean(name: str, known: Mapping[str, str]) -> str:
    return did_you_mean(known[guess] for guess in nearest(name, known))


def _absolute(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(Path(path).expanduser().absolute()) for path in paths)
