"""Presets as YAML files: where they are found and how they are read, parents (`extends:`) included."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from camoxpert_cli.errors import ConfigError, did_you_mean, nearest, one_line, shown
from camoxpert_cli.regular_file import read_regular
from camoxpert_cli.user_path import user_path

_PACKAGE = Path(__file__).resolve().parents[1]
# The wheel has the presets inside the package; in a checkout they are next to it.
PRESET_FOLDER = _PACKAGE / "presets" if (_PACKAGE / "presets").is_dir() else _PACKAGE.parent / "presets"

# Top-level keys of a preset other than its sections.
PRESET_WORDS = ("summary", "hardware", "claim", "extends")
# Built-in ones have 2 KiB; anything much larger is not a preset, and parsing YAML is slow.
_MOST_BYTES = 2**16


@dataclass(frozen=True)
class Preset:
    """One YAML file: `sections` maps each section's name to its content, unchecked, with every value as text."""

    name: str
    path: Path
    summary: str
    hardware: str
    claim: str  # speed stated by some document
    extends: str | None
    sections: dict[str, Any]

    @property
    def origin(self) -> str:
        """Return what messages call it: a built-in preset by its name, any other by its path."""
        return f"preset {self.name}" if self.path.parent == PRESET_FOLDER else str(self.path)


def preset_names() -> list[str]:
    """Return the names of the built-in presets."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.yaml"))


def own_folder() -> Path | None:
    """Return the folder of the user's own presets: `camox/presets` in the user's configuration folder.

    None if there is no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "camox" / "presets"
    except RuntimeError:  # of Path.home
        return None


def own_presets() -> dict[str, Path]:
    """Return the preset files in `own_folder` by name."""
    folder = own_folder()
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.is_file()}


def read_chain(name: str) -> list[Preset]:
    """Return the preset and its parents, eldest first.

    Raises ConfigError for an unknown name, circular parents, an unreadable file or a key of the wrong type: one problem
    per line.
    """
    problems: list[str] = []
    chain = collect_chain(name, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return chain


def collect_chain(name: str, problems: list[str], hints: list[str] | None = None) -> list[Preset]:
    """Return what can be read of the preset and its parents, eldest first.

    Problems are appended to `problems`, and what to do about them, where that is known, to `hints`.
    """
    chain: list[Preset] = []
    wanted: str | None = name
    while wanted is not None:
        child = chain[-1] if chain else None
        try:
            preset = _read(wanted, child.path.parent if child else None, problems)
        except ConfigError as error:
            problems.append(f"{child.origin}: extends is {shown(wanted)}: {error.message}" if child else error.message)
            if error.hint and hints is not None:
                hints.append(error.hint)
            break
        if child and any(preset.path == earlier.path for earlier in chain):
            circle = " -> ".join(each.name for each in [*chain, preset])
            problems.append(f"{child.origin}: extends is {shown(wanted)}, which is circular: {circle}")
            break
        chain.append(preset)
        wanted = preset.extends
    return chain[::-1]


def read_preset(name: str) -> Preset:
    """Read a preset by name, or by path if `name` ends in .yaml or .yml.

    Raises ConfigError if there is no such preset, its file cannot be read or a key in it is of the wrong type.
    """
    problems: list[str] = []
    preset = _read(name, None, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return preset


def _read(name: str, beside: Path | None, problems: list[str]) -> Preset:
    """Read a preset; `beside` is the folder of the preset that extends this one, to which relative paths refer."""
    path = _locate(name, beside)
    content = _parse(path)
    words = {}
    for word in PRESET_WORDS:
        value = content.pop(word, "")
        if not isinstance(value, str):
            problems.append(f"{path}: {word} is {shown(value)}, expected text")
        elif "\n" in value.strip():
            problems.append(f"{path}: {word} is {shown(value)}, expected one line")
        words[word] = value.strip() if isinstance(value, str) else ""
    return Preset(
        path.stem, path, words["summary"], words["hardware"], words["claim"], words["extends"] or None, content
    )


def _locate(name: str, beside: Path | None) -> Path:
    if name.endswith((".yaml", ".yml")):
        try:
            path = user_path((beside or Path()) / Path(name).expanduser())
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"preset file {shown(name)} not found: {error}") from error
        if not path.exists():
            raise ConfigError(f"preset file {path} not found", "check the path for typos, or camox presets")
        return path.resolve()
    # A built-in preset does not depend on the user's own presets.
    own = {} if beside == PRESET_FOLDER else own_presets()
    built_in = preset_names()
    if name in own and name in built_in:
        raise ConfigError(f"there are two presets named {name!r}, the built-in one and {own[name]}; rename the latter")
    if name in own:
        return own[name].resolve()
    if name not in built_in:
        file = (beside or Path()) / name
        if os.path.isfile(file):  # noqa: PTH113 -- False for an impossible name
            raise ConfigError(
                f"the name of a preset file must end in .yaml: {file}", f"rename it, for example to {file.name}.yaml"
            )
        names = sorted([*built_in, *own])
        expected = f"expected the path of a .yaml file or one of {', '.join(names)}"
        file = Path(f"{file}.yaml")
        guess = [str(file)] if os.path.isfile(file) else nearest(name, names)  # noqa: PTH113
        raise ConfigError(f"unknown preset {shown(name)}, {expected}{did_you_mean(guess)}")
    return PRESET_FOLDER / f"{name}.yaml"


class _TextLoader(yaml.BaseLoader):
    """YAML loader without surprises: duplicate keys are an error, and every value is text.

    YAML reads `1e-4` as text, `off` as False and `1:30` as 90: the schema's types decide instead. Aliases are refused,
    because nested ones can expand to gigabytes.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            problem = f"*{one_line(event.anchor)} is an alias, expected the value itself"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.id != "scalar":
                raise yaml.MarkedYAMLError(problem="a key is not text", problem_mark=key_node.start_mark)
            if key_node.value in seen:
                problem = f"key {shown(key_node.value)} is duplicated"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")
        content = yaml.load(text, Loader=_TextLoader)  # noqa: S506 -- builds nothing but text, lists and dicts
    except OSError as error:
        hint = f"check its permissions: ls -l {quote(str(path))}" if isinstance(error, PermissionError) else ""
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read: {error}, expected text in UTF-8") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply, expected sections that contain settings") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        problem = one_line(getattr(error, "problem", None) or error)
        line = f"line {mark.line + 1}" if mark else "it"
        fix = f"indent {line} with spaces instead of tabs" if "'\\t'" in problem else f"correct {line}"
        hint = f"{fix}, then: camox presets check {quote(str(path))}"
        raise ConfigError(f"{path}{where} is not valid YAML: {problem}", hint) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is {shown(content)}, expected sections such as `train:` that contain settings")
    return content
