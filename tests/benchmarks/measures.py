"""How long all measures of a picture take, beside PySODMetrics, on one core.

    python -m tests.benchmarks.measures [ROUNDS]

Needs `pip install camox[parity]`. Both score the same generated maps of one object, which covers 5 to 15 % of the
picture, with soft edges, a part missed, a part too much and noise everywhere, in turn; a ratio is that of
the CPU times of two neighbours. PySODMetrics is asked for the measures that camox gives, and counts levels once for all
of them that do.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np

from camoxpert_cli.metrics.picture_scores import quick_scores, score_picture
from tests.metrics.pairs import Grey, Mask
from tests.metrics.reference import reference_scores

SIZES = ((737, 964), (352, 352))
PICTURES = 8


def picture(seed: int, height: int, width: int) -> tuple[Grey, Mask]:
    random = np.random.RandomState(seed)
    rows, columns = np.mgrid[:height, :width]
    y, x = ((0.35 + 0.3 * random.rand()) * size for size in (height, width))
    reach = np.hypot((rows - y) / height, (columns - x) / width)
    form = cv2.GaussianBlur(random.rand(height, width), (0, 0), height / 12)
    depth = (form - form.mean()) / form.std() * 0.08 - reach
    mask = depth > np.quantile(depth, 1 - (0.05 + 0.1 * random.rand()))
    found = cv2.GaussianBlur(np.roll(mask, (height // 60, width // 40), (0, 1)).astype(float), (0, 0), height / 150)
    grey = np.clip(found * 0.95 + random.rand(height, width) * 0.06, 0, 1) * 255
    return np.rint(grey).astype(np.uint8), mask


def seconds(score: Callable[[Grey, Mask], object], grey: Grey, mask: Mask) -> float:
    started = time.process_time()
    score(grey, mask)
    return time.process_time() - started


def compare(height: int, width: int, rounds: int) -> None:
    reference = partial(reference_scores, stretch=True)
    rows = []
    for number in range(rounds * PICTURES):
        grey, mask = picture(number % PICTURES, height, width)
        rows.append([seconds(score, grey, mask) for score in (score_picture, quick_scores, reference)])
    table = np.array(rows[PICTURES:]) * 1000
    ours, quick, theirs = np.median(table, axis=0)
    low, middle, high = np.quantile(table[:, 2] / table[:, 0], (0.1, 0.5, 0.9))
    print(
        f"{height}×{width}: PySODMetrics {theirs:6.1f} ms, camox {ours:5.1f} ms, its quick scores {quick:.2f} ms; "
        f"{middle:.1f} times as fast (80 % of {len(table)} pairs between {low:.1f} and {high:.1f})"
    )


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    for height, width in SIZES:
        compare(height, width, rounds + 1)


if __name__ == "__main__":
    main()
