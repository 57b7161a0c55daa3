"""Pictures and masks as tensors: augmented for training, at their own size for scoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from camoxpert_cli.data.layouts import Pair
from camoxpert_cli.data.reading import read_pair
from camoxpert_cli.data.sampling import SampleKey
from camoxpert_cli.data.transforms import Augmentation, resize_image

TrainingSample: TypeAlias = tuple[Tensor, Tensor]
ScoringSample: TypeAlias = tuple[Tensor, Tensor, int]
ScoringBatch: TypeAlias = tuple[Tensor, list[Tensor], Tensor]

# Keeps augmentation seeds apart from those of the sample order.
_STREAM = 1


class TrainingPictures(Dataset[TrainingSample]):
    """Augmented training pairs, a pure function of the seed, the epoch and the index."""

    def __init__(self, pairs: Sequence[Pair], img_size: int, seed: int) -> None:
        self.pairs = pairs
        self.seed = seed
        self.augmentation = Augmentation(img_size)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: SampleKey) -> TrainingSample:
        """Picture uint8 (3, S, S) and mask uint8 (1, S, S) of 0 and 1 for the key (epoch, index)."""
        epoch, index = key
        pair = self.pairs[index]
        image, mask = read_pair(pair.image, pair.mask)
        # The epoch is in the key and not on this object, so that workers outlive an epoch.
        seed = np.random.SeedSequence((_STREAM, self.seed, epoch, index)).generate_state(1)[0]
        return _to_tensors(*self.augmentation(image, mask, int(seed)))

    def collate(self, samples: Sequence[TrainingSample]) -> TrainingSample:
        """Pictures (B, 3, S, S) and masks (B, 1, S, S); a rank without a sample in a batch has B = 0."""
        if samples:
            images, masks = default_collate(list(samples))  # straight into shared memory
            return images, masks
        size = self.augmentation.img_size
        return torch.empty(0, 3, size, size, dtype=torch.uint8), torch.empty(0, 1, size, size, dtype=torch.uint8)


class ScoringPictures(Dataset[ScoringSample]):
    """Resized pictures with the masks at their own size, on which predictions are scored."""

    def __init__(self, pairs: Sequence[Pair], img_size: int) -> None:
        self.pairs = pairs
        self.img_size = img_size

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> ScoringSample:
        """Picture uint8 (3, S, S), mask uint8 (1, H, W) of 0 and 1, and the index."""
        pair = self.pairs[index]
        image, mask = read_pair(pair.image, pair.mask)
        return *_to_tensors(resize_image(image, self.img_size), mask), index


def collate_scoring(samples: Sequence[ScoringSample]) -> ScoringBatch:
    """Pictures uint8 (B, 3, S, S), a list of masks uint8 (1, H, W), and the indices int64 (B,)."""
    images, masks, indices = zip(*samples, strict=True)
    return torch.stack(images), list(masks), torch.tensor(indices)


def _to_tensors(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> TrainingSample:
    """(H, W, 3) and (H, W) -> (3, H, W) and (1, H, W), contiguous."""
    channels_first = np.ascontiguousarray(image.transpose(2, 0, 1))
    return torch.from_numpy(channels_first), torch.from_numpy(np.ascontiguousarray(mask))[None]
