from __future__ import annotations

import math

import pytest

from camoxpert_cli.engine.compile_choice import ASSUMED, Experience, is_measured, share_saved, step_time


def test_what_is_assumed() -> None:
    """Before anything was compiled, half an hour of training is enough, and six minutes must be left in any case."""
    assert ASSUMED.pays_from == 30 * 60
    assert [ASSUMED.fits(seconds) for seconds in (6 * 60, 6 * 60 - 1)] == [True, False]


@pytest.mark.parametrize(
    ("seconds", "saving", "pays_from"), [(60.0, 0.5, 240.0), (60.0, 0.25, 480.0), (30.0, 0.03, 2000.0)]
)
def test_pays_from(seconds: float, saving: float, pays_from: float) -> None:
    """What is saved in that time is twice what compiling takes."""
    assert Experience(seconds, saving).pays_from == pytest.approx(pays_from)


@pytest.mark.parametrize("saving", [0.029, 0.0, -0.5])
def test_what_hardly_saves_never_pays(saving: float) -> None:
    """Steps that are less than 3 % faster, or slower, are no reason for other rounding."""
    assert not Experience(0.1, saving).is_faster
    assert Experience(0.1, saving).pays_from == math.inf


def test_time_of_a_step() -> None:
    """The first three do not count, and neither do a few that waited for a disk."""
    seconds = [90.0, 9.0, 9.0, *[0.2] * 5, *[0.25] * 3, 5.0, 5.0]

    assert step_time(seconds) == pytest.approx((0.2 + 0.25) / 2)
    assert is_measured(seconds)
    assert not is_measured(seconds[1:])


def test_share_saved() -> None:
    """Of 0.4 s, 0.3 s are left; slower steps save less than nothing."""
    assert share_saved(0.4, 0.3) == pytest.approx(0.25)
    assert share_saved(0.4, 0.5) == pytest.approx(-0.25)
