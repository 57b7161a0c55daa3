from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from camoxpert_cli.metrics.histogram import Empty
from camoxpert_cli.metrics.image_scores import ImageScores, quick_scores, score_image
from camoxpert_cli.metrics.measures import CURVES, MEASURES, Measure
from tests.unit.metrics.make_golden import GOLDEN, checksum
from tests.unit.metrics.pairs import Grey, Mask, generated_pair

ENTRIES: list[dict[str, Any]] = json.loads(GOLDEN.read_text())
# What scores 1 where nothing is there and nothing is claimed, and 0 where something is.
OVERLAPS = ["precision", "f", "e", "iou", "dice"]

# An example takes four milliseconds; tests/slow compares thousands of pairs with PySODMetrics.
few = settings(max_examples=25)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
levels = st.one_of(st.integers(0, 255), st.sampled_from([0, 127, 128, 255]))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Grey, Mask]:
    shape = draw(shapes)
    return draw(arrays.arrays(np.uint8, shape, elements=levels)), draw(arrays.arrays(np.bool_, shape))


def scalars(scores: ImageScores) -> dict[str, float]:
    return {**scores.measures, "area": scores.area}


def empty_mask(grey: Grey) -> Mask:
    return np.zeros(grey.shape, bool)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry['seed']}-{entry['stretch']}")
def test_golden(entry: dict[str, Any]) -> None:
    """Generated pairs score as PySODMetrics scored them, within 1e-6; where it gives NaN there is a number."""
    grey, mask = generated_pair(entry["seed"])
    ours = score_image(grey, mask, stretch=entry["stretch"])
    found = scalars(ours) | {f"mean {name}": float(curve.mean()) for name, curve in ours.curves.items()}

    assert checksum(grey, mask) == entry["checksum"], "the generator's pixels have changed: run make_golden again"
    assert found.keys() >= entry["scores"].keys()
    assert np.isfinite(list(found.values())).all()
    known = {name: score for name, score in entry["scores"].items() if score is not None}
    assert {name: found[name] for name in known} == pytest.approx(known, abs=1e-6)


@few
@given(pairs(), st.booleans(), st.sampled_from(["reference", "exact"]))
def test_quick_scores_are_those_of_all(pair: tuple[Grey, Mask], stretch: bool, empty: Empty) -> None:
    """The three quick measures are the same to the last bit."""
    scores = score_image(*pair, stretch=stretch, empty=empty)

    assert quick_scores(*pair, stretch=stretch, empty=empty).measures == {
        name: scores.measures[name] for name in ("iou", "dice", "mae")
    }


@few
@given(pairs(), st.booleans())
def test_bounds(pair: tuple[Grey, Mask], stretch: bool) -> None:
    """With exact values for what is empty all scores are in their range, but for the E-measure's N / (N - 1)."""
    scores = score_image(*pair, stretch=stretch, empty="exact")
    most = pair[0].size / max(pair[0].size - 1, 1)

    assert 0 <= scores.area <= 1
    for measure in MEASURES:
        lowest, highest = measure.range
        over = most if measure.name.startswith("e_") else 1
        assert lowest <= scores.measures[measure.name] <= highest * over + 1e-9, measure.name
    for name, curve in scores.curves.items():
        assert curve.shape == (256,)
        assert curve.dtype == np.float64
        assert curve.min() >= 0
        assert curve.max() <= (most if name == "e" else 1) + 1e-9


@few
@given(pairs(), st.booleans())
def test_higher_thresholds_claim_less(pair: tuple[Grey, Mask], stretch: bool) -> None:
    """Recall never rises with the threshold; at threshold 0 all is claimed."""
    curves = score_image(*pair, stretch=stretch).curves

    assert (np.diff(curves["recall"]) <= 0).all()
    assert curves["recall"][0] == float(pair[1].any())
    assert curves["precision"][0] == pytest.approx(pair[1].mean(), abs=1e-15)


@few
@given(pairs())
def test_stretching_twice_is_stretching_once(pair: tuple[Grey, Mask]) -> None:
    """A map that holds 0 and 255 scores the same whether it is stretched or not."""
    grey, mask = pair[0].copy(), pair[1]
    if grey.size > 1:
        grey.flat[0], grey.flat[-1] = 0, 255

    assert scalars(score_image(grey, mask)) == scalars(score_image(grey, mask, stretch=False))


@few
@given(pairs(), st.booleans())
def test_empty_changes_only_what_is_empty(pair: tuple[Grey, Mask], stretch: bool) -> None:
    """Masks with an object and a background score alike under both."""
    grey, mask = pair[0], pair[1].copy()
    if mask.size > 1:
        mask.flat[0], mask.flat[-1] = True, False
        reference, exact = (score_image(grey, mask, stretch=stretch, empty=each) for each in ("reference", "exact"))

        assert scalars(reference) == scalars(exact)
        assert all(np.array_equal(reference.curves[each.name], exact.curves[each.name]) for each in CURVES)


@few
@given(pairs())
def test_perfect_map(pair: tuple[Grey, Mask]) -> None:
    """The mask itself scores best in every measure, by image and at its own thresholds."""
    mask = pair[1]
    scores = score_image(mask.astype(np.uint8) * 255, mask, empty="exact")

    assert (scores.mae, scores.ber) == (0, 0)
    assert (scores.iou, scores.dice, scores.f_max, scores.iou_max) == (1, 1, 1, 1)
    assert (scores.f_adaptive, scores.weighted_f) == pytest.approx((1, 1), abs=1e-12)
    assert (scores.e_max, scores.e_adaptive) == pytest.approx((1, 1), abs=1 / max(mask.size - 1, 1))
    # One pixel among others has no variance to agree in, and what is said of it by the region does not count as alike.
    assert scores.s_measure == pytest.approx(1) or mask.sum() == 1 or (~mask).sum() == 1


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_which_way_is_better(measure: Measure) -> None:
    """The mask itself scores better than its opposite, in the direction that the table tells."""
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:6] = True
    right, wrong = (score_image(each.astype(np.uint8) * 255, mask).measures[measure.name] for each in (mask, ~mask))

    assert right < wrong if measure.best == "lowest" else right > wrong


def test_nothing_there_and_nothing_claimed() -> None:
    """Without an object a map of zeros is right, at each threshold that claims nothing, which 0 does not."""
    grey = np.zeros((8, 9), np.uint8)
    scores = score_image(grey, empty_mask(grey), empty="exact")

    assert (scores.iou, scores.dice, scores.weighted_f, scores.f_adaptive, scores.e_adaptive) == (1, 1, 1, 1, 1)
    assert (scores.mae, scores.ber, scores.s_measure, scores.area) == (0, 0, 1, 0)
    for name in OVERLAPS:
        assert scores.curves[name].tolist() == [0.0] + [1.0] * 255
    assert scores.f_mean == scores.e_mean == scores.iou_mean == 255 / 256
    assert scores.f_max == 1
    assert scores.curves["recall"].tolist() == [1.0] * 256


def test_nothing_there_and_something_claimed() -> None:
    """Without an object a map is wrong at each threshold at which it claims a single pixel, and right above."""
    grey = np.zeros((8, 9), np.uint8)
    grey[3, 4] = 200
    scores = score_image(grey, empty_mask(grey), stretch=False, empty="exact")

    assert (scores.iou, scores.dice, scores.weighted_f, scores.f_adaptive, scores.e_adaptive) == (0, 0, 0, 0, 0)
    assert scores.ber == 1 / 72
    for name in OVERLAPS:
        assert scores.curves[name].tolist() == [0.0] * 201 + [1.0] * 55


def test_reference_values_of_empty_masks() -> None:
    """PySODMetrics' own: a right blank map has an F of 0 and an adaptive E of 0, a map of one level an E above 1."""
    blank = np.zeros((64, 64), np.uint8)
    right, grey = score_image(blank, empty_mask(blank)), score_image(blank + 100, empty_mask(blank))

    assert (right.mae, right.s_measure) == (0, 1)
    assert (right.weighted_f, right.f_max, right.iou, right.e_adaptive) == (0, 0, 0, 0)
    assert right.e_mean == pytest.approx(255 / 256 * 4096 / 4095)
    assert grey.e_adaptive == pytest.approx(4096 / 4095)


def test_reference_values_of_full_masks() -> None:
    """PySODMetrics' own: the adaptive threshold of a blank map is 0, so it finds an object everywhere."""
    blank, full = np.zeros((64, 64), np.uint8), np.ones((64, 64), bool)
    scores, exact = score_image(blank, full), score_image(blank, full, empty="exact")

    assert (scores.f_adaptive, scores.e_adaptive) == pytest.approx((1, 4096 / 4095))
    assert (exact.f_adaptive, exact.e_adaptive) == (0, 0)
    assert score_image(blank + 255, full, empty="exact").e_max == 1
    assert (scores.ber, exact.ber) == (1, 1)


def test_stretch() -> None:
    """A map of 100 and 101 is taken for one of 0 and 1 by papers, and for nearly the same everywhere without."""
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    grey = np.where(mask, 101, 100).astype(np.uint8)

    assert score_image(grey, mask).mae == quick_scores(grey, mask).mae == 0
    assert score_image(grey, mask, stretch=False).mae == pytest.approx((55 * 100 + 9 * 154) / 255 / 64)
    assert score_image(grey, mask, stretch=False).iou == 0


@few
@given(pairs())
def test_memory_layout_does_not_matter(pair: tuple[Grey, Mask]) -> None:
    """Parts of larger arrays and transposed ones score like copies of them."""
    grey, mask = pair
    wide, wide_mask = np.repeat(grey, 2, axis=1)[:, ::2], np.repeat(mask, 2, axis=1)[:, ::2]
    turned, turned_mask = np.asfortranarray(grey), np.asfortranarray(mask)
    expected = scalars(score_image(grey, mask))

    assert scalars(score_image(wide, wide_mask)) == expected
    assert scalars(score_image(turned, turned_mask)) == expected


@pytest.mark.parametrize(
    ("grey", "mask"),
    [
        (np.zeros((3, 4), np.float32), np.zeros((3, 4), bool)),
        (np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.uint8)),
        (np.zeros((3, 4), np.uint8), np.zeros((4, 3), bool)),
        (np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4, 3), bool)),
        (np.zeros((0, 4), np.uint8), np.zeros((0, 4), bool)),
    ],
)
@pytest.mark.parametrize("score", [score_image, quick_scores])
def test_wrong_arrays(score: Any, grey: Any, mask: Any) -> None:
    """A mask of 0 and 1, which PySODMetrics would take for an empty one, other sizes and other types are refused."""
    with pytest.raises(ValueError, match=r"prediction and mask (are|have shapes) .*, expected"):
        score(grey, mask)


def test_scores_are_plain_numbers() -> None:
    """They can be written as JSON."""
    scores = score_image(*generated_pair(0))

    assert {type(score) for score in scalars(scores).values()} == {float}
    assert {type(score) for score in quick_scores(*generated_pair(0)).measures.values()} == {float}


def test_scores_are_attributes() -> None:
    """Each measure is an attribute, of a copy as well, and one that is not known is missing."""
    scores = score_image(*generated_pair(0))
    copied = copy.deepcopy(scores)

    assert all(getattr(copied, name) == value for name, value in scores.measures.items())
    assert not hasattr(scores, "accuracy")
