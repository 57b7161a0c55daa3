from __future__ import annotations

import pytest

from camoxpert_cli.data.cod10k import class_name, super_class


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("COD10K-CAM-1-Aquatic-3-Crab-70", "Aquatic"),
        ("COD10K-CAM-2-Terrestrial-23-Cat-1506", "Terrestrial"),
        ("COD10K-NonCAM-3-Flying-63-Other-2", "Flying"),
        ("camourflage_00012", None),
        ("COD10K_demo1", None),
    ],
)
def test_super_class(name: str, expected: str | None) -> None:
    """The super-class is read from COD10K's names, and no other name has one."""
    assert super_class(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("COD10K-CAM-1-Aquatic-3-Crab-70", "Crab"),
        ("COD10K-CAM-2-Terrestrial-23-Cat-1506", "Cat"),
        ("COD10K-NonCAM-3-Flying-63-Other-2", "Other"),
        ("COD10K-CAM-1-Aquatic-3", None),
        ("camourflage_00012", None),
    ],
)
def test_class_name(name: str, expected: str | None) -> None:
    """The class is read from COD10K's names, and no other name has one."""
    assert class_name(name) == expected
