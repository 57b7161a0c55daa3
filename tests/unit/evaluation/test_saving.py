"""What an evaluation keeps of an earlier one like it; see also `behaviour/commands/test_continue.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from camoxpert_cli.config.eval_options import Protocol
from camoxpert_cli.config.parse import NO_TTA
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.writing import NO_NOTE
from camoxpert_cli.errors import DataError, UsageError
from camoxpert_cli.evaluation.data_digest import combined, digests_of
from camoxpert_cli.evaluation.image import score_files
from camoxpert_cli.evaluation.output import NOWHERE, Destination
from camoxpert_cli.evaluation.saving import SavedSet, plan_files, score_kept
from camoxpert_cli.inference.provenance import Earlier
from camoxpert_cli.metrics.image_scores import ImageScores
from camoxpert_cli.parallel.world import World
from tests.helpers.image_files import noise, square_mask, write, write_pairs
from tests.helpers.thread_ranks import in_threads, outcomes_in_threads

ABOUT = {"checkpoint": "best.pth", "weights": "ema", "img_size": 64, "precision": "fp32", "stretch": True}


def saved_set(folder: Path, pairs: Sequence[Pair], kept: Sequence[int]) -> SavedSet:
    paths = [folder / f"{pair.name}.png" for pair in pairs]
    return SavedSet(
        folder, paths, [NO_NOTE] * len(pairs), Earlier(frozenset(paths[at] for at in kept)), overwrite=False
    )


@pytest.mark.parametrize(
    ("there", "batch_size", "kept"),
    [
        ([0, 1, 3, 4], 1, [0, 1, 3, 4]),
        ([0, 1, 3, 4], 2, [0, 1, 4]),
        ([0, 1, 3, 4], 5, []),
        ([0, 1, 2, 3, 4], 8, [0, 1, 2, 3, 4]),
        ([1, 2], 2, []),
    ],
)
def test_batches_are_kept_as_a_whole(tmp_path: Path, there: list[int], batch_size: int, kept: list[int]) -> None:
    """What is predicted beside an image may change the last bits of its prediction."""
    pairs = [Pair(str(index), tmp_path, tmp_path) for index in range(5)]

    assert saved_set(tmp_path, pairs, there).kept(batch_size) == kept


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_score_what_is_kept(tmp_path: Path, ranks: int) -> None:
    """Every rank has the scores of all files, in the order asked for; each file is read by one of them."""
    pairs = write_pairs(tmp_path, 4)
    saved = saved_set(tmp_path / "maps", pairs, [])
    for index, path in enumerate(saved.paths):
        write(path, square_mask(index + 9, 24 + index % 3))
    advanced: list[int] = []
    kept = [0, 2, 3]

    def score(world: World) -> list[ImageScores]:
        return score_kept(saved, kept, pairs, Protocol(), lambda count, _: advanced.append(count), world, 0)

    expected = [score_files(saved.paths[at], pairs[at], Protocol())[0].measures for at in kept]
    assert len({scores["mae"] for scores in expected}) == len(kept)
    for scores in in_threads(ranks, score):
        assert [each.measures for each in scores] == expected
    assert sum(advanced) == len(kept)
    saved.paths[2].write_bytes(b"no image")
    assert all(isinstance(each, DataError) for each in outcomes_in_threads(ranks, score))


def test_digests(tmp_path: Path) -> None:
    """Names and contents of images and masks count, and where they are does not."""
    pairs = write_pairs(tmp_path / "a", 2)
    tests = {"SET": pairs}
    first = combined(tests, digests_of(tests))
    copied = {"SET": write_pairs(tmp_path / "b", 2)}
    assert combined(copied, digests_of(copied)) == first

    found = {first}
    for other in (
        {"TES": pairs},
        {"SET": pairs[:1]},
        {"SET": pairs[::-1]},
        {"SET": [replace(pairs[0], name="x"), pairs[1]]},
        {"SET": [replace(pairs[0], mask=pairs[1].mask), pairs[1]]},
        {"SET": [replace(pairs[0], image=write(tmp_path / "c.png", noise(9))), pairs[1]]},
    ):
        found.add(combined(other, digests_of(other)))
    assert len(found) == 7


def test_nothing_is_read_where_nothing_is_written(tmp_path: Path) -> None:
    """Scores that are printed alone need no digests."""
    pairs = [Pair("lost", tmp_path / "lost.png", tmp_path / "lost.png")]

    assert plan_files(NOWHERE, {"SET": pairs}, ABOUT, "", NO_TTA, []).about == ABOUT


def test_predictions_that_are_there(tmp_path: Path) -> None:
    """They are refused unless they are kept or replaced; nothing is created."""
    tests = {"SET": write_pairs(tmp_path, 2)}
    destination = Destination(predictions=tmp_path / "maps")
    plan = plan_files(destination, tests, ABOUT, "ab12", NO_TTA, [])
    assert not (tmp_path / "maps").exists()
    assert (plan.results, plan.about["checkpoint_sha256"]) == (None, "ab12")
    saved = plan.saved["SET"]
    assert saved.file_of(1)["new"]
    assert saved.file_of(1)["note"].items() >= {"command": "camox eval", "checkpoint": "ab12", "weights": "ema"}.items()
    assert len({saved.file_of(at)["note"]["image"] for at in (0, 1)}) == 2

    write(tmp_path / "maps" / "SET" / "000.png", square_mask(0))
    with pytest.raises(UsageError, match=r"000\.png already exists and was not written by camox"):
        plan_files(destination, tests, ABOUT, "ab12", NO_TTA, [])
