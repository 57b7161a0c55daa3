"""What is wrong with many pairs and can be seen at once: before hours of training, and not at the end of them."""

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

# Masks that are read: a tool writes all of a data set in the same way.
_MASKS = 64
# Where a camera's entries and thumbnail take no more, a JPEG says its size.
_HEAD = 1 << 16


def look_at_training(pairs: Sequence[Pair]) -> None:
    """Compare the sizes of all pairs, read some masks, and warn where none marks anything.

    Raises DataError for a pair that could not be trained on.
    """
    for _ in in_threads(partial(_differs, resized=False), pairs):
        pass
    marked = _marked(pairs)
    if not any(marked):
        console.warn(f"no object is marked in any of the {len(marked)} masks looked at: there is nothing to learn")


def look_at_test_set(name: str, pairs: Sequence[Pair]) -> None:
    """The same for a test set, whose masks may have another size than their images, which a warning counts.

    Raises DataError for a pair that could not be scored.
    """
    differ = [
        pair for pair, differs in zip(pairs, in_threads(partial(_differs, resized=True), pairs), strict=True) if differs
    ]
    _marked(pairs)
    if differ:
        console.warn(
            f"{name}: {len(differ)} of {len(pairs)} pictures have another size than their masks, the first "
            f"{differ[0].name}: predictions are resized to the masks"
        )


def _marked(pairs: Sequence[Pair]) -> list[bool]:
    """Whether masks mark anything, of pairs from everywhere in the set; DataError for one that cannot be read."""
    chosen = pairs[:: max(1, -(-len(pairs) // _MASKS))]
    return [bool(mask.any()) for mask in in_threads(read_scored_mask, [pair.mask for pair in chosen])]


def _differs(pair: Pair, resized: bool) -> bool:
    """Whether image and mask have different sizes, which only `resized` allows: elsewhere that raises DataError.

    Nothing is decoded where the files say that they have one size, most of them in their first bytes.
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
    """Whether an image may have either size. Which of them is the mask's is seen when it is read."""
    return b"Exif" in head or b"eXIf" in head


def _head(path: Path) -> bytes:
    """The first bytes of a file; none of what is no file or cannot be read, which whoever reads all of it says."""
    if not stat.S_ISREG(status_of(path).st_mode):
        return b""
    with suppress(OSError), path.open("rb") as file:
        return file.read(_HEAD)
    return b""
