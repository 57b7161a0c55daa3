"""The data loaders of a run, for one of its ranks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TypeAlias

from torch import Tensor

from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.cache import ImageCache
from camoxpert_cli.data.dataset import ScoringBatch, ScoringImages, TrainingImages
from camoxpert_cli.data.loader import ImageLoader, scoring_loader, training_loader
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.sampling import EpochBatches
from camoxpert_cli.engine.build import RunData
from camoxpert_cli.engine.stages import Stage
from camoxpert_cli.parallel.world import World

# Images (B, 3, S, S) and masks (B, 1, S, S), uint8.
TrainingBatch: TypeAlias = tuple[Tensor, Tensor]


class Feed:
    """Loaders of the images in `data`, with `workers` processes each; `devices` share a batch, over all ranks.

    `cache`, if given, contains the training images, including those held out.
    """

    def __init__(
        self,
        config: Config,
        data: RunData,
        cache: ImageCache | None,
        *,
        workers: int,
        devices: int,
        pin_memory: bool,
        world: World,
    ) -> None:
        self.workers = workers
        self._config, self._data, self._cache, self._world = config, data, cache, world
        self._devices, self._pin_memory = devices, pin_memory
        self._stage: int | None = None
        self._sampler: EpochBatches | None = None
        self._training_loader: ImageLoader[TrainingBatch] | None = None

    def training(
        self, stage: Stage, epoch: int, samples: int, end: int | None = None
    ) -> tuple[ImageLoader[TrainingBatch], list[int]]:
        """Return this rank's batches of `epoch` after its first `samples`, and each batch's size over all ranks.

        Without `end`, these are all that are left of the epoch, otherwise those up to its first `end` images. The
        loader workers persist for the whole stage.
        """
        if self._stage != stage.number or self._sampler is None or self._training_loader is None:
            seed = self._config.train.seed
            data = self._config.data
            images = TrainingImages(self._data.train, data.img_size, seed, self._cache, upright=data.upright)
            self._stage = stage.number
            per_process = stage.batch_size * self._devices // self._world.size
            self._sampler = EpochBatches(
                self._data.objects, per_process, seed, self._world.rank, self._world.size, self._data.negatives
            )
            self._training_loader = training_loader(images, self._sampler, self.workers, self._pin_memory)
        self._sampler.start_at(epoch, samples, end)
        return self._training_loader, self._sampler.sizes()

    def of(self, data: RunData) -> Feed:
        """Return a feed of other images out of the same ones, with loaders of its own."""
        return Feed(
            self._config,
            data,
            self._cache,
            workers=self.workers,
            devices=self._devices,
            pin_memory=self._pin_memory,
            world=self._world,
        )

    @cached_property
    def validation(self) -> ImageLoader[ScoringBatch]:
        """Loader of the held-out images."""
        data = self._config.data
        return self._scoring(self._data.validation, self._cache if data.scored_size == data.img_size else None)

    def test(self, pairs: Sequence[Pair]) -> ImageLoader[ScoringBatch]:
        """Return a loader of images and masks in the order of `pairs`, read from their files."""
        return self._scoring(pairs, None)

    def _scoring(self, pairs: Sequence[Pair], cache: ImageCache | None) -> ImageLoader[ScoringBatch]:
        return scoring_loader(
            ScoringImages(pairs, self._config.data.scored_size, cache),
            self._config.train.batch_size,
            self.workers,
            self._pin_memory,
            self._world.rank,
            self._world.size,
        )
