"""Recipes as YAML files: where they lie and what one says, parents (`extends:`) included."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from camoxpert_cli.errors import ConfigError, nearest

_PACKAGE = Path(__file__).resolve().parents[1]
# The wheel carries the presets inside the package; in a checkout they lie beside it.
PRESET_FOLDER = _PACKAGE / "presets" if (_PACKAGE / "presets").is_dir() else _PACKAGE.parent / "presets"

# What a preset may say at top level beside its sections.
PRESET_WORDS = ("summary", "hardware", "claim", "extends")


@dataclass(frozen=True)
class Preset:
    """One YAML file: `sections` maps section name to what the file says, unchecked, every value as text."""

    name: str
    path: Path
    summary: str
    hardware: str
    claim: str  # how fast some document says it is
    extends: str | None
    sections: dict[str, Any]

    @property
    def origin(self) -> str:
        """How messages call it: by name where it comes with camox, else by path."""
        return f"preset {self.name}" if self.path.parent == PRESET_FOLDER else str(self.path)


def preset_names() -> list[str]:
    """The names of the presets that come with camox."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.yaml"))


def read_chain(name: str) -> list[Preset]:
    """The preset and its parents, eldest first.

    Raises ConfigError for an unknown name, a circle or a file that cannot be read.
    """
    chain = [read_preset(name)]
    while (wanted := chain[-1].extends) is not None:
        child = chain[-1]
        try:
            parent = read_preset(wanted, beside=child.path.parent)
        except ConfigError as error:
            raise ConfigError(f"{child.origin}: extends is {wanted!r}: {error.message}") from error
        chain.append(parent)
        if any(parent.path == earlier.path for earlier in chain[:-1]):
            circle = " -> ".join(preset.name for preset in chain)
            raise ConfigError(f"{child.origin}: extends is {wanted!r}, which goes round in a circle: {circle}")
    return chain[::-1]


def read_preset(name: str, beside: Path | None = None) -> Preset:
    """Read a preset by name, or by path where `name` ends in .yaml or .yml.

    A relative path starts at the folder `beside`, or at the current one where that is not given.
    Raises ConfigError where there is no such preset or its file cannot be read.
    """
    path = _locate(name, beside)
    content = _parse(path)
    words = {word: content.pop(word, "") for word in PRESET_WORDS}
    for word, value in words.items():
        if not isinstance(value, str):
            raise ConfigError(f"{path}: {word} is {value!r}, expected text")
    return Preset(
        path.stem, path, words["summary"], words["hardware"], words["claim"], words["extends"] or None, content
    )


def _locate(name: str, beside: Path | None) -> Path:
    if name.endswith((".yaml", ".yml")):
        path = (beside or Path()) / Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(f"there is no preset file {path}")
        return path.resolve()
    names = preset_names()
    if name not in names:
        expected = f"expected the path of a .yaml file or one of {', '.join(names)}"
        guess = nearest(name, names)
        meant = f"; did you mean {guess[0]}?" if guess else ""
        raise ConfigError(f"there is no preset {name!r}, {expected}{meant}")
    return PRESET_FOLDER / f"{name}.yaml"


class _TextLoader(yaml.BaseLoader):
    """YAML without surprises: a key that stands twice is an error, and every value is text.

    YAML reads `1e-4` as text, `off` as False and `1:30` as 90: the schema's types decide instead.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.id != "scalar":
                raise yaml.MarkedYAMLError(problem="a key is not text", problem_mark=key_node.start_mark)
            if key_node.value in seen:
                problem = f"key {key_node.value!r} stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_TextLoader)  # noqa: S506 -- builds nothing but text, lists and dicts
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where} is not valid YAML: {getattr(error, 'problem', error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is {content!r}, expected sections such as `train:` with settings below them")
    return content
