"""Images that a run generates for itself."""

from __future__ import annotations

from pathlib import Path

from camoxpert_cli.config.schema import DataConfig
from camoxpert_cli.engine import build
from camoxpert_cli.engine.build import open_data
from camoxpert_cli.run_folder import RunFolder


def test_generated_images_depend_on_the_seed_and_are_kept_in_the_run_folder(tmp_path: Path) -> None:
    """`--seed` changes the images; validation images are none of the training ones and there is no test set."""
    first, second = (
        open_data(DataConfig(generated_images=4, img_size=64), seed, RunFolder(tmp_path / str(seed))) for seed in (1, 2)
    )

    assert [len(first.train), len(first.validation), first.tests] == [4, build.GENERATED_VALIDATION, {}]
    assert first.train[0].image.is_relative_to(tmp_path / "1" / "dataset")
    assert not {pair.image for pair in first.train} & {pair.image for pair in first.validation}
    assert first.train[0].image.read_bytes() != second.train[0].image.read_bytes()
