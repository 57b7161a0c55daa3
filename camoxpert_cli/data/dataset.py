"""Images and masks as tensors: augmented for training, masks at their original size for scoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from camoxpert_cli.data.cache import ImageCache
from camoxpert_cli.data.mask_memory import MaskMemory
from camoxpert_cli.data.negatives import read_truth
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_matching_image
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.data.sampling import SampleKey
from camoxpert_cli.data.transforms import Augmentation

TrainingSample: TypeAlias = tuple[Tensor, Tensor]
ScoringSample: TypeAlias = tuple[Tensor, Tensor, int]
ScoringBatch: TypeAlias = tuple[Tensor, list[Tensor], Tensor]

# Keeps augmentation seeds separate from those of the sample order.
_STREAM = 1


class TrainingImages(Dataset[TrainingSample]):
    """Augmented training pairs, a pure function of seed and key.

    With a `cache` that contains them, pairs are read from it, with identical pixels.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        img_size: int,
        seed: int,
        cache: ImageCache | None = None,
        *,
        upright: bool = False,
    ) -> None:
        self.pairs = pairs
        self.img_size = img_size
        self.seed = seed
        self.cache = cache
        self.memory = MaskMemory(len(pairs) if cache is None else 0, img_size)
        self.augmentation = Augmentation(upright)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: SampleKey) -> TrainingSample:
        """Return the image uint8 (S, S, 3) and mask uint8 (S, S) of 0 and 1 for a key, see `sampling`."""
        epoch, index = key
        pair = self.pairs[index]
        image, mask = self.memory.read(index, pair) if self.cache is None else self.cache.read(pair)
        # The epoch is in the key and not on this object, so that workers outlive an epoch.
        seed = np.random.SeedSequence((_STREAM, self.seed, epoch, index)).generate_state(1)[0]
        image, mask = self.augmentation(image, mask, int(seed))
        return torch.from_numpy(image), torch.from_numpy(mask)

    def collate(self, samples: Sequence[TrainingSample]) -> TrainingSample:
        """Return images (B, 3, S, S) and masks (B, 1, S, S); B is 0 for a rank without samples in a batch.

        Images are a view of (B, S, S, 3), the channels-last memory format that the network uses.
        """
        if samples:
            images, masks = default_collate(list(samples))  # straight into shared memory
        else:
            images = torch.empty(0, self.img_size, self.img_size, 3, dtype=torch.uint8)
            masks = torch.empty(0, self.img_size, self.img_size, dtype=torch.uint8)
        return images.permute(0, 3, 1, 2), masks[:, None]


class ScoringImages(Dataset[ScoringSample]):
    """Resized images with masks at their original size, at which predictions are scored.

    A mask may differ in size from its image, but not in aspect ratio.
    """

    def __init__(self, pairs: Sequence[Pair], img_size: int, cache: ImageCache | None = None) -> None:
        self.pairs = pairs
        self.img_size = img_size
        self.cache = cache

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> ScoringSample:
        """Return the image uint8 (3, S, S), the mask uint8 (1, H, W) of 0 and 1, and the index."""
        pair = self.pairs[index]
        mask = read_truth(pair)
        if self.cache is None:
            size = (mask.shape[0], mask.shape[1])
            image = read_matching_image(pair.image, size, pair.mask, self.img_size, resized=True)
            image = resize_image(image, self.img_size)
        else:
            image = self.cache.read(pair)[0]
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)[None], index


def collate_scoring(samples: Sequence[ScoringSample]) -> ScoringBatch:
    """Return images uint8 (B, 3, S, S), a list of masks uint8 (1, H, W), and indices int64 (B,)."""
    images, masks, indices = zip(*samples, strict=True)
    return torch.stack(images), list(masks), torch.tensor(indices)
