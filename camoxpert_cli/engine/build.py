"""Build a run's objects from its configuration: with `phases`, the only place where settings become arguments."""

from __future__ import annotations

import hashlib
import math
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint
from camoxpert_cli.config.schema import Config, DataConfig, ModelConfig
from camoxpert_cli.data.first_look import look_at_test_set, look_at_training
from camoxpert_cli.data.layouts import DataSet, find_data, find_under
from camoxpert_cli.data.negatives import apart
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import status_of
from camoxpert_cli.data.sampling import NO_NEGATIVES, Negatives, negatives_per_epoch
from camoxpert_cli.data.split import by_name, hold_out
from camoxpert_cli.data.synthetic import write_dataset
from camoxpert_cli.engine.baselines import score_baselines
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.seed import seed_weights
from camoxpert_cli.errors import CheckpointError, DataError, UsageError
from camoxpert_cli.model.backbone import create_backbone, create_pretrained_backbone
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import BEST, RunFolder

KAGGLE_INPUT = Path("/kaggle/input")
GENERATED_VALIDATION = 60  # images
MOST_NEGATIVES = 0.2  # of the images of an epoch, if no share is given


@dataclass(frozen=True)
class RunData:
    """The images that a run trains on, validates on and is scored on at the end.

    `all_training` is the training and validation images together, in an order that does not depend on the seed.
    `train` lists what an epoch goes over: each training image `repeats` times, then the images without an object;
    `negatives` says how many these are, `validation_negatives` how many come last in `validation`. With
    `own_validation` the validation images were given separately; otherwise they were held out of the training images.
    """

    all_training: tuple[Pair, ...]
    train: list[Pair]
    validation: list[Pair]
    tests: dict[str, tuple[Pair, ...]]
    generated: bool
    own_validation: bool = False
    repeats: int = 1
    negatives: Negatives = NO_NEGATIVES
    validation_negatives: int = 0

    @property
    def objects(self) -> int:
        """Number of training images with an object."""
        return len(self.train) - self.negatives.available

    @property
    def images_per_epoch(self) -> int:
        """Number of images that a whole epoch trains on."""
        return self.objects + self.negatives.per_epoch

    @cached_property
    def digest(self) -> str:
        """Digest of the training images' names and file sizes: a run never resumes with others. Raises DataError.

        A position in an epoch also depends on how many of the images have no object.
        """
        digest, (available, per_epoch) = _digest(self.train), self.negatives
        return f"{digest} {available} {per_epoch}" if available else digest

    @cached_property
    def baselines(self) -> dict[str, float]:
        """Mean IoU of the non-learned baselines on generated validation images; empty for others."""
        return score_baselines([pair for pair in self.validation if pair.has_mask]) if self.generated else {}

    @cached_property
    def full_digest(self) -> str:
        """The same for the training images and the validation images, which select the best weights."""
        return f"{self.digest} {_digest(self.validation)}"


def build_network(model: ModelConfig, seed: int, *, weights_follow: bool) -> CamoXpert:
    """Build the network with initial weights from `seed`; `weights_follow` if a checkpoint will replace them all."""
    seed_weights(seed)
    if model.pretrained and not weights_follow:
        weights = Path(model.backbone_weights) if model.backbone_weights is not None else None
        backbone = create_pretrained_backbone(model.backbone, weights)
    else:
        backbone = create_backbone(model.backbone)
    network = CamoXpert(
        backbone,
        model.backbone,
        model.num_experts,
        gradient_checkpointing=model.gradient_checkpointing,
        keep_backbone_statistics=model.pretrained,
    )
    _ = network.backbone_stages  # rejects a backbone with a fixed input size before anything is written
    return network


def open_data(data: DataConfig, seed: int, folder: RunFolder, world: World | None = None) -> RunData:
    """Find the images, or generate them in the run folder, and hold out validation images.

    Raises DataError, also if the ranks find different images.
    """
    world = world or World()
    found = _find(data, seed, folder, world)
    if len(set(world.all_gather(found.full_digest))) > 1:
        raise DataError(
            f"the {world.size} processes of this run found different images",
            "put the same files under the same names on every machine",
        )
    return found


def _find(data: DataConfig, seed: int, folder: RunFolder, world: World) -> RunData:
    if not (data.dataset_path or data.images or data.val_images) and data.generated_images > 0:
        folder.create()
        return _generate(folder.path / "dataset", seed, data, world)
    found = find_given(data)
    console.say(console.filled(f"Data: {found.description}", indent=6))
    pairs, negatives = apart(found.train, read_masks=data.empty_as_negatives)
    own, own_negatives = apart(found.validation, read_masks=data.empty_as_negatives)
    if not pairs:
        raise DataError(
            f"none of the {console.counted(len(negatives), 'training image')} shows an object",
            "add images with objects and their masks",
        )
    if found.validation and not own:
        raise DataError(
            f"none of the {console.counted(len(own_negatives), 'validation image')} shows an object",
            "add validation images with objects and their masks, or omit them: some training images are then held out",
        )
    if own:
        train, validation = by_name(pairs), by_name(own)
    else:
        train, validation = hold_out(pairs, data.val_fraction, seed)
    look_at_training(pairs + own)
    for name, test in found.tests.items():
        look_at_test_set(name, test)
    repeats = math.ceil(data.min_epoch_images / len(train))
    return _with_negatives(
        RunData(
            pairs + own,
            [*train] * repeats,
            list(validation),
            dict(found.tests),
            generated=False,
            own_validation=bool(own),
            repeats=repeats,
        ),
        negatives + found.negatives,
        own_negatives,
        data,
        seed,
    )


def _with_negatives(
    found: RunData, negatives: tuple[Pair, ...], own_negatives: tuple[Pair, ...], data: DataConfig, seed: int
) -> RunData:
    """Add images without an object: the same fraction is held out, unless there are validation images of this kind."""
    if own_negatives or len(negatives) < 2:
        train, validation = by_name(negatives), by_name(own_negatives)
    else:
        train, validation = hold_out(negatives, data.val_fraction, seed)
    if data.negatives_share is not None and not negatives:
        console.warn("there are no images without an object, so --negatives-share has no effect")
    count = negatives_per_epoch(len(train) * found.repeats, len(found.train), data.negatives_share, MOST_NEGATIVES)
    return replace(
        found,
        all_training=found.all_training + negatives + own_negatives,
        train=[*found.train, *train],
        validation=[*found.validation, *validation],
        negatives=Negatives(len(train), count),
        validation_negatives=len(validation),
    )


def find_given(data: DataConfig) -> DataSet:
    """Find the images that the settings name, or the only dataset in Kaggle's input folder. Raises DataError."""
    roots = [Path(path) for path in data.dataset_path]
    folders, validation = (
        [(Path(images), Path(masks)) for images, masks in zip(*pair, strict=True)]
        for pair in ((data.images, data.masks), (data.val_images, data.val_masks))
    )
    if not roots and not folders:
        roots = [_only_dataset_under(KAGGLE_INPUT)]
    found = find_data(
        roots,
        folders=folders,
        validation=validation,
        negatives=[Path(path) for path in data.negatives],
        include_noncam=data.include_noncam,
    )
    if not found.train:
        raise DataError(
            f"{', '.join(map(str, roots))} contains test images only",
            "name a folder with training images; see camox guide data",
        )
    return found


def check_images(checkpoint: Checkpoint, data: RunData, folder: RunFolder) -> bool:
    """Return whether a run in `folder` may resume from `checkpoint`; if not, it is a new run with its weights.

    It may resume with the images of the run that wrote the checkpoint, or with any if the checkpoint does not record
    them. Position and optimizer state belong to the images: with different ones, a checkpoint that has a training state
    raises CheckpointError, and one that has only weights raises UsageError if the new run would use the old folder.
    """
    own = checkpoint.own
    if own is None:
        return True
    training, path = own.training, checkpoint.path
    is_same_training = training is None or training.training_images == data.digest
    if is_same_training and own.images in (None, data.full_digest):
        return True
    if training is None:
        if path.parent.resolve() == folder.path.resolve():
            raise UsageError(
                f"{path} was trained on different images, so this would start a new run, but {folder.path} contains "
                "the old one",
                "choose another folder with --checkpoint-dir",
            )
        return False
    best = path.with_name(BEST)
    new_run = f"; to start a new run from its weights: camox train --resume-from {shlex.quote(str(best))}"
    raise CheckpointError(
        f"{path} was trained on different images than these settings select for training, so it may have seen images "
        "that are now held out for validation"
        if not is_same_training
        else f"{path} selected its best weights on different images than these settings use for validation",
        "pass the data it was trained on with --dataset-path, or --images and --masks, and the same validation images "
        "and --negatives; "
        f"restore files that were removed since, and remove added ones{new_run if best.is_file() else ''}",
    )


def describe_batches(config: Config, unit: str = "GPU", units: str = "GPUs") -> list[tuple[str, str]]:
    """Return two pairs of title and text per stage: epochs, rate and global batch size, then how that is made up.

    `unit` and `units` are the singular and plural of what works in parallel.
    """
    train, gpus = config.train, config.gpu_count
    lines = []
    for stage in dict.fromkeys(phase.stage for phase in build_phases(config)):
        epochs = f"epoch {stage.end}" if stage.first + 1 == stage.end else f"epochs {stage.first + 1} to {stage.end}"
        lines += [
            (
                f"Stage {stage.number}",
                f"{epochs}, learning rate {stage.lr:g}, "
                f"global batch size {stage.batch_size * gpus * train.accumulation_steps}",
            ),
            (
                "",
                f"= {stage.batch_size} per {unit} x {console.counted(gpus, unit, units)} x "
                f"{console.counted(train.accumulation_steps, 'accumulation step')}",
            ),
        ]
    return lines


def _digest(pairs: Sequence[Pair]) -> str:
    rows = (f"{pair.name} {status_of(pair.image).st_size} {status_of(pair.mask).st_size}" for pair in pairs)
    return hashlib.sha256("\n".join(rows).encode(errors="surrogateescape")).hexdigest()


def _generate(folder: Path, seed: int, data: DataConfig, world: World) -> RunData:
    console.say(
        f"Data: {console.counted(data.generated_images, 'generated image')} for training, "
        f"{GENERATED_VALIDATION} for validation (unseen textures),\n      in {folder}"
    )
    if world.is_main:
        for left in folder.parent.glob(f".{folder.name}.tmp*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        write_dataset(folder, seed=seed, train=data.generated_images, test=GENERATED_VALIDATION, size=data.img_size)
    world.all_gather(None)  # wait until they are written
    found = find_data([folder], negatives=[Path(path) for path in data.negatives])
    (validation,) = found.tests.values()
    generated = RunData(found.train, list(found.train), list(validation), tests={}, generated=True)
    return _with_negatives(generated, found.negatives, (), data, seed)


def _only_dataset_under(folder: Path) -> Path:
    hint = "camox train --dataset-path DATA; or camox train --preset quickstart, which needs no data"
    found = find_under(folder) if folder.is_dir() else []
    if not found:
        raise DataError(f"no dataset was given, and none was found under {folder}", hint)
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise DataError(f"no dataset was given, and {len(found)} were found: {listed}", f"--dataset-path {found[0]}")
    console.say(f"No --dataset-path given: using {found[0]}, the only dataset under {folder}")
    return found[0]
