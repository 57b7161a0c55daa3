from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_cli.config.eval_options import check_source
from camoxpert_cli.errors import UsageError


@pytest.mark.parametrize(
    ("images", "masks", "missing"), [(Path("Imgs"), None, "--masks"), (None, Path("GT"), "--images")]
)
@pytest.mark.parametrize("roots", [[], [Path("DATA")]])
def test_a_checkpoint_is_scored_on_whole_sets(
    roots: list[Path], images: Path | None, masks: Path | None, missing: str
) -> None:
    """Neither a folder of images nor one of masks is passed over in silence: each needs the other."""
    with pytest.raises(UsageError, match=f"--images and --masks belong together: {missing} is missing"):
        check_source(Path("best.pth"), None, roots, images, masks)
