"""How many images a second are scored by all measures: beside PySODMetrics on one core, and by two threads.

    python -m tests.benchmarks.measures [ROUNDS]

PySODMetrics takes `pip install camox[parity]`; without it camox is measured alone. Both score the same generated maps
of one object, which covers 5 to 15 % of the image, with soft edges, a part missed, a part too much and noise
everywhere, in turn; these rates are those of CPU time. PySODMetrics is asked for the measures that camox gives, and
counts levels once for all of them that do. The threads are those of `camox eval`, by the clock.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np

from camoxpert_cli.evaluation.score_pool import score_pool
from camoxpert_cli.metrics.image_scores import quick_scores, score_image
from tests.benchmarks.table import Row, compared, report
from tests.unit.metrics.pairs import Grey, Mask
from tests.unit.metrics.reference import reference_scores

SIZES = ((737, 964), (352, 352))
IMAGES = 8
POOL_ROUNDS = 8  # over them, each time the threads are measured


def image_and_mask(seed: int, height: int, width: int) -> tuple[Grey, Mask]:
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
    """Both on one core, and the few measures of every epoch's validation."""
    reference = partial(reference_scores, stretch=True)
    scorers = (score_image, quick_scores, *((reference,) if has_reference() else ()))
    rows = []
    for number in range(rounds * IMAGES):
        grey, mask = image_and_mask(number % IMAGES, height, width)
        rows.append([1 / seconds(score, grey, mask) for score in scorers])
    ours, quick, *theirs = zip(*rows[IMAGES:], strict=True)
    unit, size = "images/s", f"{height}×{width}, one core"
    if theirs:
        report(compared(f"all measures, {size}", unit, list(zip(ours, theirs[0], strict=True)), "PySODMetrics"))
    else:
        report(Row(f"all measures, {size}", unit, statistics.median(ours), against="PySODMetrics is not installed"))
    report(Row(f"the measures of an epoch's validation, {size}", unit, statistics.median(quick)))


def has_reference() -> bool:
    return importlib.util.find_spec("py_sod_metrics") is not None


def scale(height: int, width: int, rounds: int) -> None:
    """Images a second that the engine's threads score: two beside one."""
    images = [image_and_mask(seed, height, width) for seed in range(IMAGES)] * POOL_ROUNDS
    pairs = [(pool_rate(2, images), pool_rate(1, images)) for _ in range(rounds)]
    report(compared(f"all measures, {height}×{width}, two scoring threads", "images/s", pairs, "one thread"))


def pool_rate(workers: int, images: list[tuple[Grey, Mask]]) -> float:
    started = time.perf_counter()
    with score_pool(workers) as submit:
        for grey, mask in images:
            submit(score_image, grey, mask)
    return len(images) / (time.perf_counter() - started)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    scale(*SIZES[0], rounds)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    for height, width in SIZES:
        compare(height, width, rounds + 1)


if __name__ == "__main__":
    main()
