from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.engine.convert import WRAPPER_PREFIXES, strip_prefixes
from camoxpert_cli.errors import CheckpointError

# Names as modules have them, those of the wrappers' prefixes among them, but not in front.
PARTS = st.sampled_from(["weight", "decoder", "submodule", "module", "_orig_mod", "my_module", "0"])
FIRST_PARTS = st.sampled_from(["backbone", "submodule", "modules", "module_", "x_orig_mod"])
KEYS = st.builds(lambda first, rest: ".".join([first, *rest]), FIRST_PARTS, st.lists(PARTS, max_size=3))
STATES = st.dictionaries(KEYS, st.integers(), min_size=1, max_size=6)
WRAPPERS = st.lists(st.sampled_from(WRAPPER_PREFIXES), max_size=4).map("".join)


@given(STATES, WRAPPERS)
def test_round_trip(state: dict[str, int], wrappers: str) -> None:
    """What any nesting of wrappers puts in front is taken away, and nothing else; the order stays."""
    wrapped = {wrappers + key: value for key, value in state.items()}

    assert list(strip_prefixes(wrapped).items()) == list(state.items())


@given(STATES, WRAPPERS)
def test_idempotent(state: dict[str, int], wrappers: str) -> None:
    """A second time changes nothing."""
    once = strip_prefixes({wrappers + key: value for key, value in state.items()})

    assert strip_prefixes(once) == once


def test_middle_of_a_key() -> None:
    """`module.` within a key stays: the original program made `decoder.subweight` of the first."""
    state = {"decoder.submodule.weight": 1, "decoder.module.bias": 2, "a._orig_mod.b": 3}

    assert strip_prefixes(state) == state
    assert strip_prefixes({f"module.{key}": value for key, value in state.items()}) == state


@given(STATES, STATES, st.sampled_from(WRAPPER_PREFIXES), WRAPPERS)
def test_mixed(bare: dict[str, int], wrapped: dict[str, int], prefix: str, wrappers: str) -> None:
    """Where only some keys have a prefix, also below one that all have, the state dict is refused."""
    mixed = {wrappers + key: value for key, value in bare.items()}
    mixed |= {wrappers + prefix + key: value for key, value in wrapped.items()}
    with pytest.raises(CheckpointError, match="two state dicts seem to be mixed"):
        strip_prefixes(mixed)


def test_mixed_is_explained() -> None:
    """The message says how many keys have which prefix and names one that has not."""
    with pytest.raises(CheckpointError, match=r"2 of 3 keys begin with 'module\.' and others, such as c\.weight"):
        strip_prefixes({"module.a": 1, "module.b": 2, "c.weight": 3})


def test_nothing() -> None:
    """No keys are no error."""
    assert strip_prefixes({}) == {}
