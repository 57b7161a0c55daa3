"""What an evaluation is about to write, decided before it starts, and what an earlier one like it has written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camoxpert_cli import atomic, console
from camoxpert_cli.config.eval_options import Protocol
from camoxpert_cli.config.parse import Tta
from camoxpert_cli.console import Advance
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.writing import Note, is_own_image
from camoxpert_cli.errors import DataError
from camoxpert_cli.evaluation.data_digest import combined, digests_of
from camoxpert_cli.evaluation.image import score_files
from camoxpert_cli.evaluation.output import Destination, finished_results
from camoxpert_cli.evaluation.score import in_order
from camoxpert_cli.evaluation.score_pool import score_pool
from camoxpert_cli.inference.provenance import Earlier, Settings, find_earlier, settings_of
from camoxpert_cli.metrics.image_scores import ImageScores
from camoxpert_cli.parallel.world import World
from camoxpert_cli.targets import check_targets, within

_HINT = "choose another folder with --save-predictions"


@dataclass(frozen=True)
class SavedSet:
    """The prediction files of a test set and their notes, in the order of its images, and which are there already."""

    folder: Path
    paths: Sequence[Path]
    notes: Sequence[Note]
    earlier: Earlier
    overwrite: bool

    def file_of(self, index: int) -> dict[str, Any]:
        """Return the arguments with which `score_and_save` writes the prediction of an image."""
        path = self.paths[index]
        new = not self.overwrite and path not in self.earlier.outdated
        return {"save_as": path, "new": new, "note": self.notes[index]}

    def kept(self, batch_size: int) -> list[int]:
        """Return the images whose predictions need not be computed again: batches of which all are there.

        Others are computed as a whole, because the last bits of a prediction may depend on what else is in its batch.
        """
        count = len(self.paths)
        batches = [range(at, min(at + batch_size, count)) for at in range(0, count, batch_size)]
        return [
            index
            for batch in batches
            if self.earlier.kept.issuperset(self.paths[each] for each in batch)
            for index in batch
        ]


@dataclass(frozen=True)
class Plan:
    """How the evaluation is described, its prediction files by test set, and its results if nothing is left to do."""

    about: Mapping[str, Any]
    saved: Mapping[str, SavedSet] = field(default_factory=dict)
    results: Mapping[str, Any] | None = None


def plan_files(
    destination: Destination,
    tests: Mapping[str, Sequence[Pair]],
    about: Mapping[str, Any],
    checkpoint: str,
    tta: Tta,
    inputs: Iterable[Path],
) -> Plan:
    """Check all files that an evaluation will write, and find out what is already done. Creates nothing.

    Temporary files of killed processes are removed. `about` and `tta` describe the evaluation, and `checkpoint` is the
    digest of its checkpoint; `inputs` are files that are read in addition to those of `tests`. Raises UsageError.
    """
    if not destination.writes:
        return Plan(about)
    paths = _checked_paths(destination, tests, inputs)
    digests = digests_of(tests)
    about = {**about, "checkpoint_sha256": checkpoint, "data_sha256": combined(tests, digests)}
    options = {name: about[name] for name in ("weights", "img_size", "precision")}
    settings = settings_of("camox eval", checkpoint, tta, **options)
    saved = {name: _saved_set(destination, paths[name], digests[name], settings) for name in paths}
    results = finished_results(destination, about)
    count, kept = sum(map(len, paths.values())), sum(len(each.earlier.kept) for each in saved.values())
    if kept == count and results is not None:
        return Plan(about, saved, results)
    if kept:
        console.say(f"Kept {kept} of {console.counted(count, 'prediction')} in {destination.predictions}")
    return Plan(about, saved)


def score_kept(
    saved: SavedSet,
    kept: Sequence[int],
    pairs: Sequence[Pair],
    protocol: Protocol,
    advance: Advance,
    world: World,
    workers: int,
) -> list[ImageScores]:
    """Score the files of the images `kept`, in this order: what was scored when they were written, with 8 bits.

    The ranks share the work; each returns all scores. `workers` as in `Scoring`. Raises DataError on every rank.
    """
    rows: list[tuple[int, ImageScores]] = []
    problem: DataError | None = None
    try:
        with score_pool(workers) as submit:
            mine = []
            for index in kept[world.rank :: world.size]:
                mine.append((index, submit(score_files, saved.paths[index], pairs[index], protocol)))
                advance(1, "")
            rows = [(index, future.result()[0]) for index, future in mine]
    except DataError as error:
        problem = error
    return in_order(rows, problem, world)


def _checked_paths(
    destination: Destination, tests: Mapping[str, Sequence[Pair]], inputs: Iterable[Path]
) -> dict[str, list[Path]]:
    """The prediction files of each test set, if any are written; all can be. Raises UsageError."""
    root = destination.predictions
    if root is None:
        return {}
    # The name of a test set is empty if its folders are directly below the root.
    folders = {name: within(root, name, _HINT) if name else root for name in tests}
    paths = {name: [within(folders[name], f"{pair.name}.png", _HINT) for pair in tests[name]] for name in tests}
    every = [path for name in paths for path in paths[name]]
    check_targets(
        every,
        _HINT,
        is_ours=is_own_image,
        overwrite=destination.replaces,
        inputs=[*inputs, *(file for pairs in tests.values() for pair in pairs for file in (pair.image, pair.mask))],
        beside=destination.files,
    )
    atomic.sweep(*every)
    return paths


def _saved_set(
    destination: Destination, paths: Sequence[Path], digests: Sequence[Note], settings: Settings
) -> SavedSet:
    folder, earlier = paths[0].parent, Earlier()
    if destination.keep:
        files = dict(zip(paths, digests, strict=True))
        earlier = find_earlier(files, settings, folder, overwrite=destination.overwrite, hint=_HINT)
    return SavedSet(folder, paths, [{**settings, **each} for each in digests], earlier, destination.overwrite)
