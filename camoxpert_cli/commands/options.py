"""Options shared by several commands, and options generated from the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_type_hints

import typer

from camoxpert_cli import console
from camoxpert_cli.config import eval_options
from camoxpert_cli.config.schema import LARGEST_SIDE, SETTINGS, SMALLEST_SIDE, Setting, field_of
from camoxpert_cli.config.values import AUTO
from camoxpert_cli.errors import UsageError, shown
from camoxpert_cli.rerun import scheduler_variable

# The callback does everything; a command with this option need not look at its value.
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", help="Print only results, warnings and errors.", callback=console.be_quiet)
]


def file_path(text: str) -> Path:
    """Return the path of a file to write. Raises UsageError if `text` ends in /, which a Path would drop."""
    if text.endswith("/"):
        raise UsageError(f"{shown(text)} is a folder, expected a file", "name a file, without the trailing /")
    return Path(text)


_PANELS = {"model": "Network", "data": "Data", "train": "Training", "run": "Run"}
_WORDS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}


def with_settings(
    keys: Iterable[str], *, helps: Mapping[str, str] | None = None, defaults: bool = True, autos: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a flag for each of the settings `keys` (dotted) to a command whose last parameter is `**flags`.

    `helps` replaces the help of some keys, for a command in which they mean something else. Without `defaults`, help
    names none: the command takes the values of flags that are not given from elsewhere. Without `autos`, help does not
    offer auto for settings that are `fitted`. In `flags` the command receives the dotted keys that the user gave, as
    text, whole lists or booleans. The configuration checks them, and reports all mistakes together.
    """
    keys = tuple(keys)
    chosen = {field_of(SETTINGS[key].name): SETTINGS[key] for key in keys}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # Typer reads annotations from the signature; here they are still strings.
        hints = get_type_hints(command, include_extras=True)
        own = [
            item.replace(annotation=hints[item.name])
            for item in inspect.signature(command).parameters.values()
            if item.kind is not item.VAR_KEYWORD
        ]

        def wrapped(**arguments: Any) -> None:
            command(**{item.name: arguments.pop(item.name) for item in own}, **_given(chosen, arguments))

        flags = []
        for setting in chosen.values():
            text = (helps or {}).get(setting.key, _sentence(setting.help))
            notes = _notes(setting) if defaults else ""
            flags.append(_parameter(setting, text + notes, autos=autos))
        wrapped.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {item.name: item.annotation for item in [*own, *flags]}
        wrapped.__doc__ = command.__doc__
        return wrapped

    return decorate


def _given(chosen: Mapping[str, Setting], arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {chosen[name].key: value for name, value in arguments.items() if value is not None}


def _parameter(setting: Setting, text: str, *, autos: bool) -> inspect.Parameter:
    names = [setting.flag]
    kind: Any = str | None
    if setting.is_switch:
        names = [f"{setting.flag}/--no-{setting.flag[2:]}"]
        kind = bool | None
    elif setting.type == tuple[str, ...]:
        kind = list[str] | None
    option = typer.Option(
        *names,
        help=text,
        metavar=_metavar(setting, autos=autos),
        rich_help_panel=_PANELS[setting.section],
        show_default=False,
    )
    return inspect.Parameter(
        field_of(setting.name), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _notes(setting: Setting) -> str:
    notes = []
    if setting.default is not None and setting.default != ():
        shown = setting.default
        if setting.is_switch:
            shown = "on" if setting.default else "off"
        notes.append(f"default: {shown}")
    if setting.original:
        notes.append(f"original CamoXpert: {setting.original}")
    return f" [{'; '.join(notes)}]" if notes else ""


def _metavar(setting: Setting, *, autos: bool) -> str | None:
    if setting.is_switch:
        return None
    kinds = (setting.type, *get_args(setting.type))
    texts = [choice for kind in kinds for choice in get_args(kind) if isinstance(choice, str)]
    word = setting.stands_for or next((_WORDS[kind] for kind in kinds if kind in _WORDS), "")
    return "|".join(filter(None, (word, *texts, AUTO if setting.fitted and autos else "")))


Continue: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--continue/--no-continue",
        help="Finish an interrupted command: keep what it wrote with this checkpoint and these options, and compute "
        "the rest. [default: on in jobs of Slurm, SkyPilot or Kubernetes]",
    ),
]


def continues(asked: bool | None) -> bool:
    """Return whether to continue: as `asked`, or if it was not, whether a scheduler may have run the command before."""
    return scheduler_variable() is not None if asked is None else asked


AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
NetworkSide: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--img-size",
        min=SMALLEST_SIDE,
        max=LARGEST_SIDE,
        metavar="N",
        help="Input size in pixels per side; as in validation if not given.",
    ),
]
Views: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tta",
        metavar="VIEWS",
        help="Test-time augmentation, averaging the predictions for several views: flip (mirror image), scales (0.75, "
        "1 and 1.25) or flip,scales.",
    ),
]
NetworkPrecision: TypeAlias = Annotated[
    eval_options.Precision,
    typer.Option(
        "--precision",
        metavar="fp32|fp16|bf16|auto",
        help="Precision of the network; auto uses half precision on GPUs.",
    ),
]
Weights: TypeAlias = Annotated[
    eval_options.Weights | None,
    typer.Option(
        "--weights",
        metavar="model|ema",
        help="Raw (model) or EMA weights; if not given, EMA if the checkpoint has them.",
    ),
]
