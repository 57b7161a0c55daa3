from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from camoxpert_cli.config.eval_options import Inference, Protocol
from camoxpert_cli.config.eval_options import TestData as Data  # pytest would collect a name that begins with Test
from camoxpert_cli.data import cores
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_image, read_mask
from camoxpert_cli.data.writing import NO_NOTE
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.evaluation.results import ScoredSet
from camoxpert_cli.evaluation.saving import SavedSet
from camoxpert_cli.evaluation.test_sets import find_tests, score_set, scoring_workers, show_image
from camoxpert_cli.inference.provenance import Earlier
from camoxpert_cli.metrics.image_scores import score_image
from camoxpert_cli.parallel.world import World
from tests.helpers.image_files import noise, square_mask, write
from tests.helpers.scoring import RedIsObject
from tests.helpers.thread_ranks import outcomes_in_threads
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET

CPU = torch.device("cpu")


def score(pairs: Sequence[Pair], world: World, batch_size: int, maps: Path) -> ScoredSet:
    inference, network = Inference(batch_size=batch_size), RedIsObject(mean=0.2)
    paths = [maps / "SET" / f"{pair.name}.png" for pair in pairs]
    saved = SavedSet(maps / "SET", paths, [NO_NOTE] * len(pairs), Earlier(), overwrite=False)
    return score_set(network, "SET", pairs, 64, inference, Protocol(), CPU, None, world, saved)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.mark.parametrize(("ranks", "batch_size"), [(2, 1), (3, 1), (2, 2)])
def test_ranks_score_as_one_process(tiny_data: Path, tmp_path: Path, ranks: int, batch_size: int) -> None:
    """More images than ranks: every rank has each image's own scores under its name, in the order of the data set.

    Maps lie under the names of their images, whichever rank computed them.
    """
    pairs = find_data([tiny_data]).train[:5]
    (alone,) = outcomes_in_threads(1, lambda world: score(pairs, world, batch_size, tmp_path / "alone"))
    found = outcomes_in_threads(ranks, lambda world: score(pairs, world, batch_size, tmp_path / "ranks"))

    assert isinstance(alone, ScoredSet)
    assert alone.names == [pair.name for pair in pairs]
    assert len({scores.mae for scores in alone.scores}) == len(pairs)
    for each in found:
        assert isinstance(each, ScoredSet), each
        assert each.names == alone.names
        assert [scores.measures for scores in each.scores] == [scores.measures for scores in alone.scores]
    maps = contents(tmp_path / "alone")
    assert maps.keys() == {f"SET/{pair.name}.png" for pair in pairs}
    assert contents(tmp_path / "ranks") == maps


def test_an_image_that_is_shown(tiny_data: Path, tmp_path: Path) -> None:
    """As it is, with the mask and the map that its scores came from."""
    tests = find_data([tiny_data]).tests
    (scored,) = outcomes_in_threads(1, lambda world: score(tests[TEST_SET], world, 2, tmp_path))
    assert isinstance(scored, ScoredSet)
    for index, pair in enumerate(tests[TEST_SET]):
        image, mask, grey = show_image(RedIsObject(mean=0.2), tests, 64, CPU, None, Inference().tta, TEST_SET, index)  # type: ignore[arg-type]

        assert image is not None
        assert (image == read_image(pair.image)[0]).all()
        assert (mask == (read_mask(pair.mask) > 0)).all()
        assert score_image(grey, mask).measures == scored.scores[index].measures


def test_an_image_whose_mask_has_another_size(tmp_path: Path) -> None:
    """It is shown at its mask's size, beside a map of that size."""
    image = write(tmp_path / "a.png", noise(0, 64, 80))
    pair = Pair("a", image, write(tmp_path / "mask.png", square_mask(0, 62, 80)))
    shown = show_image(RedIsObject(mean=0.2), {"A": [pair]}, 64, CPU, None, Inference().tta, "A", 0)  # type: ignore[arg-type]

    assert [each.shape[:2] for each in shown if each is not None] == [(62, 80)] * 3


@pytest.mark.parametrize(("usable", "ranks", "workers"), [(8, 1, 7), (8, 2, 3), (8, 8, 0), (4, 8, 0), (1, 1, 0)])
def test_scoring_workers(monkeypatch: pytest.MonkeyPatch, usable: int, ranks: int, workers: int) -> None:
    """A thread for each core of a rank's share but its own; none where ranks have a core each, or not even that."""
    monkeypatch.setattr(cores, "usable_cores", lambda: usable)

    assert scoring_workers(World(0, ranks, 0, ranks)) == workers


def test_test_sets_that_are_found(tiny_data: Path) -> None:
    """All, or those that were asked for; a misspelt one is named with the nearest."""
    assert len(find_tests(Data([tiny_data]))[TEST_SET]) == TEST_IMAGES
    assert list(find_tests(Data([tiny_data], names=[TEST_SET]))) == [TEST_SET]
    with pytest.raises(UsageError, match="unknown test set 'TIMY', expected one of TINY") as caught:
        find_tests(Data([tiny_data], names=["TIMY"]))

    assert caught.value.hint == f"--set {TEST_SET}"


def test_training_images_only(tiny_data: Path) -> None:
    """A folder of training images has no test set."""
    with pytest.raises(DataError, match="contains only training images"):
        find_tests(Data([tiny_data / "TrainDataset"]))
