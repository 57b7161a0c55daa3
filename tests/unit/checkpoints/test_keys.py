from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from camoxpert_cli.checkpoints.keys import (
    WRAPPER_PREFIXES,
    add_prefix,
    renamed_metadata,
    shared_prefix,
    strip_prefixes,
)
from camoxpert_cli.errors import CheckpointError

# Names as modules have them, those of the wrappers' prefixes among them, but not in front.
PARTS = st.sampled_from(["weight", "decoder", "submodule", "module", "_orig_mod", "my_module", "model", "network", "0"])
FIRST_PARTS = st.sampled_from(["backbone", "submodule", "modules", "module_", "x_orig_mod", "models", "network2"])
KEYS = st.builds(lambda first, rest: ".".join([first, *rest]), FIRST_PARTS, st.lists(PARTS, max_size=3))
STATES = st.dictionaries(KEYS, st.integers(), min_size=1, max_size=6)
WRAPPERS = st.lists(st.sampled_from(WRAPPER_PREFIXES), max_size=4).map("".join)


@settings(max_examples=20)
@given(STATES, WRAPPERS)
def test_round_trip(state: dict[str, int], wrappers: str) -> None:
    """What any nesting of wrappers puts in front is taken away, and nothing else; order and values stay."""
    wrapped = {wrappers + key: value for key, value in state.items()}

    assert list(strip_prefixes(wrapped).items()) == list(state.items())
    assert shared_prefix(wrapped) == wrappers


@settings(max_examples=20)
@given(STATES, WRAPPERS)
def test_idempotent(state: dict[str, int], wrappers: str) -> None:
    """A second time changes nothing, taking away as well as adding."""
    wrapped = {wrappers + key: value for key, value in state.items()}
    once, added = strip_prefixes(wrapped), add_prefix(wrapped)

    assert strip_prefixes(once) == once
    assert add_prefix(added) == added
    assert strip_prefixes(added) == state
    assert all(key.startswith("module.") for key in added)


@settings(max_examples=20)
@given(st.dictionaries(st.text(max_size=20), st.integers(), max_size=6))
def test_any_text(state: dict[str, int]) -> None:
    """Whatever the keys are, as many come out as went in, each the end of its own, or it is refused."""
    try:
        stripped = strip_prefixes(state)
    except CheckpointError:
        return

    assert list(stripped.values()) == list(state.values())
    assert all(before.endswith(after) for before, after in zip(state, stripped, strict=True))
    assert strip_prefixes(stripped) == stripped


def test_middle_of_a_key() -> None:
    """`module.` within a key stays: the original program made `decoder.subweight` of the first."""
    state = {"decoder.submodule.weight": 1, "decoder.module.bias": 2, "a._orig_mod.b": 3}

    assert strip_prefixes(state) == state
    assert strip_prefixes({f"module.{key}": value for key, value in state.items()}) == state


@settings(max_examples=20)
@given(STATES, STATES, st.sampled_from(WRAPPER_PREFIXES), WRAPPERS)
def test_mixed(without: dict[str, int], wrapped: dict[str, int], prefix: str, wrappers: str) -> None:
    """Where only some keys have a prefix, also below one that all have, the state dict is refused."""
    mixed = {wrappers + key: value for key, value in without.items()}
    mixed |= {wrappers + prefix + key: value for key, value in wrapped.items()}
    with pytest.raises(CheckpointError, match="two state dicts seem to be mixed"):
        strip_prefixes(mixed)


def test_mixed_is_explained() -> None:
    """The message says how many keys have which prefix and lists those that have not."""
    with pytest.raises(CheckpointError, match=r"2 of 3 keys begin with 'module\.' and others do .*: c\.weight"):
        strip_prefixes({"module.a": 1, "module.b": 2, "c.weight": 3})


def test_different_wrappers() -> None:
    """Keys under two wrappers would end in one namespace, where one could take the other's place: refused."""
    with pytest.raises(CheckpointError, match=r"begin with '_orig_mod\.' or 'module\.'"):
        strip_prefixes({"module.weight": 1, "_orig_mod.weight": 2})


def test_a_wrapper_and_nothing_else() -> None:
    """A tensor that is itself called module keeps its name: nothing of it would be left."""
    assert strip_prefixes({"module": 1}) == {"module": 1}
    assert strip_prefixes({"module.module": 1}) == {"module": 1}
    assert strip_prefixes({"module.": 1}) == {"module.": 1}


def test_averaged_model() -> None:
    """torch's AveragedModel counts beside the network; its counter goes with the prefix, but never a parameter."""
    assert strip_prefixes({"n_averaged": 5, "module.a": 1, "module.b.c": 2}) == {"a": 1, "b.c": 2}
    assert strip_prefixes({"n_averaged": 5, "a": 1}) == {"n_averaged": 5, "a": 1}


def test_metadata_follows() -> None:
    """The versions of modules, which torch reads when it loads, follow its prefix."""
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(3)))
    plain: OrderedDict[str, int] = network.state_dict()._metadata  # type: ignore[attr-defined]
    wrapper = nn.Module()
    wrapper.add_module("module", network)
    wrapped: OrderedDict[str, int] = wrapper.state_dict()._metadata  # type: ignore[attr-defined]

    assert renamed_metadata(wrapped, "module.", "") == plain
    assert renamed_metadata(plain, "", "module.") == {key: value for key, value in wrapped.items() if key}
    assert renamed_metadata(plain, "", "") == plain


def test_nothing() -> None:
    """No keys are no error."""
    assert strip_prefixes({}) == {}
