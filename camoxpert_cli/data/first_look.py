"""Quick checks that find problems affecting many pairs before hours of training, not at the end of them."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.data.headers import stated_size
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_bytes, read_matching_image, read_scored_mask, status_of
from camoxpert_cli.data.threads import in_threads

# Number of masks to read: a tool writes all masks of a dataset in the same way.
_MASKS = 64
# Bytes in which a JPEG's size is found unless its EXIF data and thumbnail are larger.
_HEAD = 1 << 16


def look_at_training(pairs: Sequence[Pair]) -> None:
    """Compare the sizes of all pairs, read some masks, and warn if some of them mark no object, or all.

    Raises DataError for a pair that cannot be used for training.
    """
    for _ in in_threads(partial(_differs, resized=False), pairs):
        pass
    marked = _marked(pairs)
    if not any(marked):
        console.warn(f"no object in any of the checked masks ({len(marked)}); the network cannot learn anything")
    elif empty := marked.count(False):
        console.warn(
            f"no object in {empty} of the {len(marked)} checked masks; --empty-as-negatives gives such images a share "
            "of each batch, as --negatives does"
        )


def look_at_test_set(name: str, pairs: Sequence[Pair]) -> None:
    """Check a test set in the same way; masks may differ in size from their images, and a warning reports how many do.

    Raises DataError for a pair that cannot be scored.
    """
    differ = [
        pair for pair, differs in zip(pairs, in_threads(partial(_differs, resized=True), pairs), strict=True) if differs
    ]
    _marked(pairs)
    if differ:
        console.warn(
            f"{name}: image and mask differ in size for {len(differ)} of {len(pairs)} pairs, the first is "
            f"{differ[0].name}; predictions are resized to the size of the masks"
        )


def _marked(pairs: Sequence[Pair]) -> list[bool]:
    """Whether each of some evenly spaced masks marks anything. Raises DataError for a mask that cannot be read."""
    chosen = pairs[:: max(1, -(-len(pairs) // _MASKS))]
    masks = [pair.mask for pair in chosen if pair.has_mask]
    return [bool(mask.any()) for mask in in_threads(read_scored_mask, masks)]


def _differs(pair: Pair, resized: bool) -> bool:
    """Whether image and mask differ in size, which raises DataError unless `resized`.

    Nothing is decoded if the file headers, usually within the first bytes, give the same size.
    """
    head = _head(pair.image)
    image = stated_size(head) or stated_size(read_bytes(pair.image))
    mask = stated_size(_head(pair.mask)) or stated_size(read_bytes(pair.mask))
    if image is not None and mask is not None and (image == mask or (image == mask[::-1] and _may_be_turned(head))):
        return False
    whole = read_scored_mask(pair.mask)
    size = (whole.shape[0], whole.shape[1])
    return read_matching_image(pair.image, size, pair.mask, None, resized=resized).shape[:2] != size


def _may_be_turned(head: bytes) -> bool:
    """Whether EXIF may rotate an image. Which orientation fits the mask turns out when the image is decoded."""
    return b"Exif" in head or b"eXIf" in head


def _head(path: Path) -> bytes:
    """The first bytes of a file; empty if it is not a regular file or unreadable, which a full read reports."""
    if not stat.S_ISREG(status_of(path).st_mode):
        return b""
    with suppress(OSError), path.open("rb") as file:
        return file.read(_HEAD)
    return b""
