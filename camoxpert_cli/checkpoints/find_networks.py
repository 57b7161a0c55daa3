"""Find the tensors of a CamoXpert network in a file, however they are nested and wrapped."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from camoxpert_cli import console
from camoxpert_cli.errors import CheckpointError, cut, shown
from camoxpert_cli.model.stored_tensors import (
    COUNTER,
    Keys,
    defect,
    entries_of,
    is_averaged,
    some,
    tensors_in,
    without_wrappers,
)

# The network's top-level modules; the second is unique to CamoXpert.
CHILDREN = frozenset({"backbone", "moe_layers", "sdta_blocks", "decoder_blocks", "deep_heads", "final_conv"})
_MARK = "moe_layers"
_MARK_ENDS = ("weight", "bias")
# torch's AveragedModel stores next to the network how many it has averaged.
_AVERAGED_COUNT = "n_averaged"
_MOST_NETWORKS = 16
_MOST_SHOWN = 8


class Place(NamedTuple):
    """Location of a network: the keys of the dict with its tensors (none for the whole file) and its name prefix.

    That dict may have nested dicts, one per module.
    """

    entry: Keys
    prefix: str = ""

    def __str__(self) -> str:
        return ".".join((*self.entry, *filter(None, [self.prefix.removesuffix(".")])))


class StoredNetwork(NamedTuple):
    """A network in a file, with its tensors under camox's names."""

    place: Place
    weights: dict[str, Tensor]


class StoredNetworks(NamedTuple):
    """The network and, if stored, its EMA.

    `others` are names of tensors that are stored next to the network's and belong to no network.
    """

    network: StoredNetwork
    ema: StoredNetwork | None
    others: tuple[str, ...]


def find_networks(content: Any) -> list[StoredNetwork]:
    """Return every network whose mixture layers are anywhere in `content`, complete or not.

    Raises CheckpointError if tensors of two networks are mixed or a tensor is not an ordinary dense one.
    """
    tensors = [(keys, value) for keys, value in tensors_in(content) if keys]
    places = list(dict.fromkeys(place for keys, _ in tensors if (place := _place_by_mark(keys)) is not None))
    if len(places) > _MOST_NETWORKS:
        raise CheckpointError(f"it contains {len(places)} networks, expected at most {_MOST_NETWORKS}")
    return [StoredNetwork(place, _weights_at(place, tensors)) for place in places]


def choose_networks(content: Any, networks: Sequence[StoredNetwork]) -> StoredNetworks:
    """Choose the network and its EMA among those found in `content`: the EMA is recognized by its name.

    A network that is a part of another one is ignored. Raises CheckpointError if more than two remain, or two of which
    neither is an EMA.
    """
    averaged: list[StoredNetwork] = []
    plain: list[StoredNetwork] = []
    for each in networks:
        (averaged if is_averaged(str(each.place)) else plain).append(each)
    plain = [each for each in plain if not any(_parameters(each) < _parameters(other) for other in plain)]
    if not plain:
        plain, averaged = averaged, []
    if len(plain) > 1 or len(averaged) > 1:
        entries = [str(each.place) for each in (*plain, *averaged)]
        names = [cut(entry) or "the file itself" for entry in entries]
        raise CheckpointError(
            f"it contains {len(names)} networks, and it is unclear which one to use: {', '.join(names)}",
            f"extract one of them: camox convert-ckpt FILE NEW.pth --entry {shlex.quote(entries[0])}",
        )
    return StoredNetworks(plain[0], averaged[0] if averaged else None, _others(content, plain[0].place, networks))


def describe_content(content: Any) -> str:
    """Describe a file in lines: its entries, how many tensors each contains, and the first of their names."""
    if not isinstance(content, Mapping):
        return f"it contains {shown(content)}"
    entries = entries_of(content)
    alone = [key for key, value in entries if isinstance(value, Tensor)]
    lines = [some(alone, "tensor")] if alone else []
    others = [item for item in entries if not isinstance(item[1], Tensor)]
    for key, value in others[:_MOST_SHOWN]:
        names = [".".join(keys) for keys, _ in tensors_in(value)]
        lines.append(f"{cut(key)}: {some(names, 'tensor') if names else shown(value)}")
    more = (
        [f"and {console.counted(len(others) - _MOST_SHOWN, 'more entry', 'more entries')}"]
        if len(others) > _MOST_SHOWN
        else []
    )
    return "\n".join(["it contains", *lines, *more] if lines else ["it is empty"])


def _place_by_mark(keys: Keys) -> Place | None:
    # An optimizer may keep its moments under the parameters' names.
    if keys[-1].rpartition(".")[2] not in _MARK_ENDS or any("optim" in key for key in keys):
        return None
    for at, key in enumerate(keys):
        parts = key.split(".")
        if _MARK in parts:
            first = parts.index(_MARK)
            inside = without_wrappers(".".join([*parts[first + 1 :], *keys[at + 1 :]]))
            prefix = "".join(f"{part}." for part in parts[:first])
            return Place(keys[:at], prefix) if inside.partition(".")[0].isdecimal() else None
    return None


def _weights_at(place: Place, tensors: Sequence[tuple[Keys, Tensor]]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    odd: list[str] = []
    for keys, value in tensors:
        if keys[: len(place.entry)] != place.entry:
            continue
        stored = ".".join(keys[len(place.entry) :])
        if _belongs(stored, place):
            name = without_wrappers(stored.removeprefix(place.prefix))
            if name in weights:
                odd.append(stored)
            weights[name] = value
        elif (prefix := _wrapped(stored)) is not None and prefix == without_wrappers(place.prefix):
            odd.append(stored)
    if odd:
        raise CheckpointError(
            f"only some keys of the network start with {place.prefix!r}, so two state dicts seem to be mixed: "
            f"{some(odd, 'key')}",
            "save a single state dict with the program that wrote it",
        )
    for name, value in weights.items():
        if wrong := defect(value):
            raise CheckpointError(
                f"{name} is {wrong}, expected an ordinary one", "save the weights as ordinary dense tensors"
            )
    return weights


def _belongs(stored: str, place: Place) -> bool:
    """Whether a tensor below the place's entry has a name of the network there."""
    return stored.startswith(place.prefix) and stored.removeprefix(place.prefix).partition(".")[0] in CHILDREN


def _wrapped(stored: str) -> str | None:
    """The prefix, without wrappers, of a name that ends like one of a network; None for other names."""
    parts = stored.split(".")
    first = next((at for at, part in enumerate(parts) if part in CHILDREN), None)
    return None if first is None else without_wrappers("".join(f"{part}." for part in parts[:first]))


def _others(content: Any, place: Place, networks: Sequence[StoredNetwork]) -> tuple[str, ...]:
    beside = [each.place for each in networks if each.place.entry == place.entry]
    return tuple(
        name
        for name, value in entries_of(below(content, place.entry))
        if isinstance(value, Tensor)
        and not any(_belongs(name, each) for each in beside)
        and name.rpartition(".")[2] != _AVERAGED_COUNT
    )


def below(content: Any, entry: Keys) -> Any:
    """Return the value at these nested keys."""
    for key in entry:
        content = dict(entries_of(content))[key]
    return content


def _parameters(network: StoredNetwork) -> set[str]:
    """Names without counters, which some files lack."""
    return {name for name in network.weights if not name.endswith(COUNTER)}
