from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.config.parse import NO_TTA, Tta, parse_tta
from camoxpert_cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flip", Tta(flip=True, scales=(1.0,))),
        ("scales", Tta(flip=False, scales=(0.75, 1.0, 1.25))),
        ("flip,scales", Tta(flip=True, scales=(0.75, 1.0, 1.25))),
        (" scales , flip ", Tta(flip=True, scales=(0.75, 1.0, 1.25))),
    ],
)
def test_what_is_known(text: str, expected: Tta) -> None:
    """Each of the two alone, or both in any order."""
    assert parse_tta(text) == expected
    assert parse_tta(text) != NO_TTA


@given(st.text(alphabet="flipscae ,1", max_size=12) | st.text(max_size=12))
def test_anything_else_is_refused(text: str) -> None:
    """What is not one or both of the two, once each, is refused with its value, what is known and what to type."""
    names = sorted(name.strip() for name in text.split(","))
    if names in (["flip"], ["scales"], ["flip", "scales"]):
        return
    with pytest.raises(UsageError) as caught:
        parse_tta(text)

    assert caught.value.message == f"--tta is {text!r}, expected flip, scales or flip,scales"
    assert caught.value.hint in ("--tta flip", "--tta scales")


def test_a_near_miss_leads_to_what_was_meant() -> None:
    """A slip of the finger is answered with the name it looks like."""
    with pytest.raises(UsageError) as caught:
        parse_tta("flip,scale")

    assert caught.value.hint == "--tta scales"
