"""Resized masks that stay in memory once they were read, for training without a cache on disk."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_matching_image, read_pair
from camoxpert_cli.data.resizing import resize_image, resize_mask

_WIDEST = 2**31


class MaskMemory:
    """Reads pairs and keeps their masks, a bit a pixel: 52 MB for 4040 of 320 pixels.

    Decoding a mask takes as long as decoding an image. Workers that are forked share the memory, which is mapped and
    not taken from /dev/shm, of which containers have little.
    """

    def __init__(self, count: int, img_size: int) -> None:
        self.count = count
        self.img_size = img_size
        self._map()

    def read(self, index: int, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """What `read_resized` gives for the pair that has this index: image (S, S, 3) and mask (S, S)."""
        side = self.img_size
        size = int(self._sizes[index])
        if size:
            image = read_matching_image(pair.image, divmod(size, _WIDEST), pair.mask, side)
            return resize_image(image, side), np.unpackbits(self._bits[index], count=side * side).reshape(side, side)
        image, own = read_pair(pair.image, pair.mask, side)
        mask = resize_mask(own, side)
        self._bits[index] = np.packbits(mask)
        # Last, and in one piece: it tells other workers that the bits are there.
        self._sizes[index] = own.shape[0] * _WIDEST + own.shape[1]
        return resize_image(image, side), mask

    def _map(self) -> None:
        row = -(-(self.img_size**2) // 8)
        shared = mmap.mmap(-1, max(1, self.count * (row + 8)))
        self._sizes = np.frombuffer(shared, np.int64, self.count)
        self._bits = np.frombuffer(shared, np.uint8, self.count * row, offset=8 * self.count).reshape(-1, row)

    def __getstate__(self) -> dict[str, Any]:
        """Without the masks: a worker that is not forked has a memory of its own."""
        return {"count": self.count, "img_size": self.img_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()
