"""Images that show the same, whatever their files are called and however they were saved or brightened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 32
# Of 500 photographs of animals, the seven pairs that people see to be one image, some brightened and strewn with
# noise, correlate by 0.96 and more, all others by less than 0.7. JPEG at quality 10 leaves 0.995.
_LEAST_CORRELATION = 0.9
_LEAST_DETAIL = 0.5 * _SIDE  # half a grey level, root mean square
_BLOCK = 512  # images compared with all others at once


@dataclass(frozen=True)
class Fingerprint:
    """An image's details, float32 (1024,) of length 1 or 0, and a digest of all its pixels."""

    details: NDArray[np.float32]
    digest: bytes


def details_of(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (H, W, 3) BGR -> float32 (1024,): the grey thumbnail of 32×32 without what varies slowly, at length 1.

    A quadratic surface is taken out, for a bright sky above dark ground is common to many images. An image that has
    nothing else becomes zeros.
    """
    thumbnail = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = thumbnail.reshape(-1).astype(np.float64)
    details = grey - _SURFACES @ (_SURFACES.T @ grey)
    length = np.linalg.norm(details)
    return np.asarray(details / length if length > _LEAST_DETAIL else np.zeros_like(details), dtype=np.float32)


def find_duplicates(fingerprints: Sequence[Fingerprint]) -> Iterator[tuple[int, int]]:
    """Indices (first, later) of images that show the same, each later one with the first that it equals.

    Two do where all pixels are equal, or where their details correlate by 0.9: saved again, resized or brightened, but
    not turned, mirrored or cut out.
    """
    if not fingerprints:
        return
    details = np.stack([each.details for each in fingerprints])
    seen: dict[bytes, int] = {}
    for start in range(0, len(details), _BLOCK):
        correlations = details[start : start + _BLOCK] @ details[: start + _BLOCK].T
        for row, block in enumerate(correlations):
            index = start + row
            similar = np.flatnonzero(block[:index] >= _LEAST_CORRELATION)
            first = min(seen.setdefault(fingerprints[index].digest, index), *similar, index)
            if first < index:
                yield int(first), index


def _surfaces() -> NDArray[np.float64]:
    """Orthonormal columns (1024, 6) that make up every quadratic surface over a thumbnail."""
    y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    return np.linalg.qr(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6))[0]


_SURFACES = _surfaces()
