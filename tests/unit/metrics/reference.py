"""PySODMetrics' scores under our names. Needs `pip install camox[parity]`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.unit.metrics.pairs import Grey, Mask

Curve = NDArray[np.float64]


def reference_scores(grey: Grey, mask: Mask, stretch: bool) -> tuple[dict[str, float], dict[str, Curve]]:
    """The measures of one image, and its curves from threshold 0 to 255. The S-measure may be NaN."""
    results = reference_results([(grey, mask)], stretch)
    e = results["em"]
    scores = {
        "s_measure": results["sm"],
        "e_adaptive": e["adp"],
        "e_mean": e["curve"].mean(),
        "e_max": e["curve"].max(),
        "f_adaptive": results["f"]["adaptive"],
        "f_mean": results["f"]["dynamic"].mean(),
        "f_max": results["f"]["dynamic"].max(),
        "weighted_f": results["wfm"],
        "mae": results["mae"],
        "iou": results["iou"]["binary"],
        "dice": results["dice"]["binary"],
        "iou_mean": results["iou"]["dynamic"].mean(),
        "iou_max": results["iou"]["dynamic"].max(),
        "dice_mean": results["dice"]["dynamic"].mean(),
        "dice_max": results["dice"]["dynamic"].max(),
        "ber": results["ber"]["binary"],
        "area": mask.mean(),
    }
    curves = {name: results[name]["dynamic"][::-1] for name in ("precision", "recall", "f", "iou", "dice")}
    return {name: float(score) for name, score in scores.items()}, {**curves, "e": e["curve"][::-1]}


def reference_results(pairs: Sequence[tuple[Grey, Mask]], stretch: bool) -> dict[str, Any]:
    """What its measures say of a set of images, put together; its curves run from threshold 255 to 0."""
    import py_sod_metrics as reference

    handlers = {
        "precision": reference.PrecisionHandler,
        "recall": reference.RecallHandler,
        "f": reference.FmeasureHandler,
        "iou": reference.IOUHandler,
        "dice": reference.DICEHandler,
        "ber": reference.BERHandler,
    }
    measures = [
        reference.MAE(),
        reference.Smeasure(),
        reference.Emeasure(),
        reference.WeightedFmeasure(),
        reference.FmeasureV2({name: handler(True, True, with_binary=True) for name, handler in handlers.items()}),
    ]
    results: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no pixels
        for measure in measures:
            for grey, mask in pairs:
                if stretch:
                    measure.step(grey, mask * np.uint8(255))
                else:
                    measure.step(grey / 255, mask, normalize=False)
            results.update(measure.get_results())
    return results
