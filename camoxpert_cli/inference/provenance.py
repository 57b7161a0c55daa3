"""What predictions were made from: noted in each file, so that an interrupted command can keep what it has made."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from camoxpert_cli import console
from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.data.writing import Note, is_complete, note_in
from camoxpert_cli.errors import UsageError, shown
from camoxpert_cli.regular_file import sha256_of

# What determines a prediction apart from its image: the checkpoint's digest and the options, as the command was given
# them. Nothing about the machine, so that the same command has the same settings wherever it runs again.
Settings: TypeAlias = Mapping[str, Any]
# Increase it when the same checkpoint and options give other predictions than before.
_VERSION = 1
_OTHERS = {
    "command": "another command",
    "checkpoint": "another checkpoint",
    "checkpoint_sha256": "another checkpoint",
    "data_sha256": "other images or masks",
    "image": "another image",
    "mask": "another mask",
    "version": "another version of camox",
}


@dataclass(frozen=True)
class Earlier:
    """Files that an earlier command made.

    `kept` are complete and of the same settings and input files. `outdated` will be replaced: they are incomplete or,
    if that was requested, of other settings or of input files with other contents.
    """

    kept: frozenset[Path] = frozenset()
    outdated: frozenset[Path] = frozenset()


def settings_of(command: str, checkpoint: str, tta: Tta, **options: Any) -> Settings:
    """Return the settings of predictions that `command` makes from a checkpoint with the digest `checkpoint`."""
    views = [*(["flip"] if tta.flip else []), *(f"{scale:g}" for scale in tta.scales)]
    return {
        "command": command,
        "version": _VERSION,
        "checkpoint": checkpoint,
        "tta": None if tta == NO_TTA else ",".join(views),
        **options,
    }


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, empty if it cannot be read: whoever reads it next reports why.

    Take it before the file is read: if it is replaced in between, the prediction then counts as outdated.
    """
    with suppress(OSError):
        return sha256_of(path)
    return ""


def find_earlier(
    files: Mapping[Path, Note], settings: Settings, folder: Path, *, overwrite: bool, hint: str
) -> Earlier:
    """Return which of `files`, all written by camox, are there already.

    A file is noted with `settings` and with the digests of its input files, the values of `files`. Raises UsageError if
    any has others, unless they may be replaced (`overwrite`): one folder would have predictions of two kinds, or lose
    those of other images with the same names.
    """
    kept, outdated, others = set(), set(), {}
    for path, inputs in files.items():
        if not path.exists():
            continue
        made, wanted = note_in(path), {**settings, **inputs}
        if made != wanted:
            others[path] = difference(made, wanted)
        if made == wanted and all(inputs.values()) and is_complete(path):
            kept.add(path)
        else:
            outdated.add(path)
    if others and not overwrite:
        first = next(iter(others))
        raise UsageError(
            f"{console.counted(len(others), 'file')} in {folder} {'is' if len(others) == 1 else 'are'} from other "
            f"images, another checkpoint or other options: {first} {others[first]}",
            f"{hint}, or add --overwrite to replace them",
        )
    return Earlier(frozenset(kept), frozenset(outdated))


def difference(made: Settings, settings: Settings) -> str:
    """Describe how `made`, from a file, differs from `settings`: "was made with another checkpoint and no tta"."""
    if not made.keys() & _OTHERS.keys():  # an earlier version of camox
        return "does not say how it was made"
    names = [name for name in settings if made.get(name) != settings[name]]
    words = [_OTHERS.get(name) or _value(name, made.get(name)) for name in names] or ["further options"]
    return f"was made with {' and '.join(filter(None, (', '.join(words[:-1]), words[-1])))}"


def _value(name: str, value: Any) -> str:
    return f"no {name}" if value is None else f"{name} {value if isinstance(value, str) else shown(value)}"
