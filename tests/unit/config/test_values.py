from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.config.schema import SETTINGS, Setting
from camoxpert_cli.config.values import convert, expected

# Not only ASCII and never blank; `null` and `~` mean "none" wherever they stand, and `~` at the start a home folder.
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).filter(
    lambda text: text.lower() != "null" and not text.startswith("~")
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def values_of(kind: Any, row: Setting) -> st.SearchStrategy[Any]:
    """What a setting of type `kind` accepts, in that very type."""
    if row.key == "run.devices":
        return st.sampled_from(["0", "0,2", "3,1"])
    if row.parse is not None:
        return st.sampled_from(["30s", "10m", "11h30m"])
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is tuple:
        return st.lists(names, max_size=3).map(tuple)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        type(None): st.none(),
        bool: st.booleans(),
        str: names,
        int: st.integers(row.low, row.high) if row.low is not None else st.integers(),  # type: ignore[arg-type]
        float: st.floats(row.low, row.high, allow_nan=False, allow_infinity=False),
    }
    return simple[kind] if kind in simple else st.one_of([values_of(option, row) for option in get_args(kind)])


rows_with_value = st.sampled_from(list(SETTINGS.values())).flatmap(
    lambda row: st.tuples(st.just(row), values_of(row.type, row))
)


@given(rows_with_value)
def test_a_value_of_the_right_type_stays_as_it_is(pair: tuple[Setting, Any]) -> None:
    """What a setting holds, it accepts, unchanged in value and type."""
    row, value = pair
    converted = convert(row, value)

    assert converted == value
    assert type(converted) is type(value)


@given(rows_with_value.filter(lambda pair: not isinstance(pair[1], tuple)))
def test_text_becomes_the_value_it_stands_for(pair: tuple[Setting, Any]) -> None:
    """Written out as text, as YAML and --set give it, a value comes back in its own type."""
    row, value = pair
    converted = convert(row, "null" if value is None else str(value))

    assert converted == value
    assert type(converted) is type(value)


@given(st.sampled_from(list(SETTINGS.values())), junk)
def test_anything_is_either_accepted_in_type_and_bounds_or_refused(row: Setting, value: Any) -> None:
    """No input ends in another error than ValueError, and none slips past type and bounds."""
    try:
        converted = convert(row, value)
    except ValueError:
        return

    assert converted is None or isinstance(converted, str | int | float | tuple)
    assert convert(row, converted) == converted
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        assert math.isfinite(converted)
        assert row.low is None or converted >= row.low
        assert row.high is None or converted <= row.high


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("train.lr", "1e-4", 1e-4),
        ("train.lr", 0, 0.0),
        ("train.epochs", "140", 140),
        ("train.epochs", 140.0, 140),
        ("train.use_ema", "off", False),
        ("train.compile", "on", "on"),
        ("train.compile", True, "on"),
        ("train.compile", False, "off"),
        ("train.use_ema", "On", True),
        ("train.use_ema", "no", False),
        ("train.use_ema", 1, True),
        ("train.scheduler", "none", "none"),
        ("data.num_workers", "4", 4),
        ("data.num_workers", "auto", "auto"),
        ("data.dataset_path", "/data", ("/data",)),
        ("data.dataset_path", ["/a", "/b"], ("/a", "/b")),
        ("data.dataset_path", [Path("/a")], ("/a",)),
        ("run.checkpoint_dir", Path("/a"), "/a"),
        ("run.save_every", 500, "500"),
        ("run.gpus", "2", 2),
        ("run.gpus", "all", "all"),
        ("run.devices", 0, "0"),
        ("run.gpus", "null", None),
        ("run.gpus", "~", None),
    ],
)
def test_the_schema_decides_what_a_value_means(key: str, value: Any, wanted: Any) -> None:
    """Numbers, switches and paths may be written in any of the usual ways."""
    converted = convert(SETTINGS[key], value)

    assert converted == wanted
    assert type(converted) is type(wanted)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.epochs", "ten", "an integer of at least 1"),
        ("train.epochs", "2.5", "an integer of at least 1"),
        ("train.epochs", 2.5, "an integer of at least 1"),
        ("train.epochs", 0, "an integer of at least 1"),
        ("train.epochs", True, "an integer of at least 1"),
        ("train.epochs", [3], "an integer of at least 1"),
        ("train.epochs", None, "an integer of at least 1"),
        ("train.epochs", "null", "an integer of at least 1"),
        ("train.seed", 2**32, "an integer from 0 to 4294967295"),
        ("train.lr", "nan", "a number of at least 0"),
        ("train.lr", float("inf"), "a number of at least 0"),
        ("train.lr", -1e-9, "a number of at least 0"),
        ("train.lr", 10**400, "a number of at least 0"),
        ("data.val_fraction", 0.95, "a number from 0.001 to 0.9"),
        ("run.target_iou", 72, "a number from 0 to 1, or null"),
        ("run.gpus", "both", "an integer from 1 to 1024, or all, or null"),
        ("run.devices", "0,0", "distinct GPU indices, such as 0,2"),
        ("data.num_workers", "many", "an integer from 0 to 256, or auto"),
        ("data.num_workers", 257, "an integer from 0 to 256, or auto"),
        ("train.use_ema", "maybe", "true or false"),
        ("train.use_ema", 2, "true or false"),
        ("train.scheduler", "linear", "one of cosine, onecycle, cosine_restart, none"),
        ("model.backbone", "", "text"),
        ("model.backbone", True, "text"),
        ("run.resume_from", ["a"], "text, or null"),
        ("data.dataset_path", "", "a path or a list of paths"),
        ("data.dataset_path", ["/a", 3], "a path or a list of paths"),
        ("run.session_limit", "12", "a duration above zero, such as 30s, 10m or 11h30m"),
        ("run.save_every", ["10m"], "a duration such as 30s, 10m or 1h, or a number of optimizer steps above zero"),
    ],
)
def test_a_refusal_says_what_was_expected(key: str, value: Any, words: str) -> None:
    """The error's text is what the setting accepts, bounds and `null` included."""
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        convert(SETTINGS[key], value)


def test_expected_describes_without_a_value() -> None:
    """The same words are there for help texts."""
    assert expected(SETTINGS["train.lr"]) == "a number of at least 0"
    assert expected(SETTINGS["run.device"]) == "one of auto, cuda, cpu"
