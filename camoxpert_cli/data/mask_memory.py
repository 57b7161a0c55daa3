"""Resized masks that stay in memory after the first read, for training without a cache on disk."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_matching_image, read_pair
from camoxpert_cli.data.resizing import read_resized, resize_image, resize_mask

_WIDEST = 2**31


class MaskMemory:
    """Reader of pairs that keeps their masks at one bit per pixel: 52 MB for 4040 masks of 320×320 pixels.

    Decoding a mask takes as long as decoding an image. Forked workers share the memory, which is an anonymous mapping
    rather than part of /dev/shm, because containers have little of that.
    """

    def __init__(self, count: int, img_size: int) -> None:
        self.count = count
        self.img_size = img_size
        self._map()

    def read(self, index: int, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return what `read_resized` returns for the pair with this index: image (S, S, 3) and mask (S, S)."""
        side = self.img_size
        if not pair.has_mask:
            return read_resized(pair, side)
        size = int(self._sizes[index])
        if size:
            image = read_matching_image(pair.image, divmod(size, _WIDEST), pair.mask, side)
            return resize_image(image, side), np.unpackbits(self._bits[index], count=side * side).reshape(side, side)
        image, own = read_pair(pair.image, pair.mask, side)
        mask = resize_mask(own, side)
        self._bits[index] = np.packbits(mask)
        # Written last, in a single store: it signals to other workers that the bits are complete.
        self._sizes[index] = own.shape[0] * _WIDEST + own.shape[1]
        return resize_image(image, side), mask

    def _map(self) -> None:
        row = -(-(self.img_size**2) // 8)
        shared = mmap.mmap(-1, max(1, self.count * (row + 8)))
        self._sizes = np.frombuffer(shared, np.int64, self.count)
        self._bits = np.frombuffer(shared, np.uint8, self.count * row, offset=8 * self.count).reshape(-1, row)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the masks: a worker that is not forked has its own memory."""
        return {"count": self.count, "img_size": self.img_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()
