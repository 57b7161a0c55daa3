from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.evaluation.results import slices

CRAB, OWL, PLAIN = "COD10K-CAM-1-Aquatic-3-Crab-70", "COD10K-CAM-3-Flying-65-Owl-4", "camourflage_00012"


def test_super_classes_and_sizes() -> None:
    """Super-classes by name, then small and other objects; a name of another data set belongs to no super-class."""
    found = slices([OWL, CRAB, PLAIN, OWL], [0.01, 0.03, 0.5, 0.2])

    assert found == {"Aquatic": [1], "Flying": [0, 3], "area under 3%": [0], "area 3% or more": [1, 2, 3]}
    assert list(found) == ["Aquatic", "Flying", "area under 3%", "area 3% or more"]


def test_what_tells_nothing_is_left_out() -> None:
    """A slice that is the whole set says the same again, and one without an image has no scores."""
    assert slices([CRAB, CRAB], [0.1, 0.2]) == {}
    assert slices([], []) == {}


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from([CRAB, OWL, PLAIN]), st.floats(0, 1)), max_size=20))
def test_every_image_has_one_size(rows: list[tuple[str, float]]) -> None:
    """The two slices by size are both there or neither is, and share the images out."""
    found = slices([name for name, _ in rows], [area for _, area in rows])
    by_size = [indices for label, indices in found.items() if label.startswith("area")]

    assert sorted(index for indices in by_size for index in indices) in ([], list(range(len(rows))))
    assert len(by_size) in (0, 2)
