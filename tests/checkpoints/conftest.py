from __future__ import annotations

from typing import Any

import pytest

from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.checkpoints import content_of
from tests.model.networks import small_network


@pytest.fixture(scope="module")
def network() -> CamoXpert:
    return small_network("test_resnet", 2).eval()


@pytest.fixture
def content(network: CamoXpert) -> dict[str, Any]:
    """What a checkpoint of the network holds."""
    return content_of(network)
