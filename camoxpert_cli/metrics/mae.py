"""Mean absolute error.

F. Perazzi, P. Krähenbühl, Y. Pritch, A. Hornung: Saliency filters: contrast based filtering for salient region
detection. CVPR 2012.
"""

from __future__ import annotations

from camoxpert_cli.metrics.histogram import Histogram


def mae(histogram: Histogram) -> float:
    """Compute the mean over pixels of |value - mask|, in 0..1; 0 is best."""
    values = histogram.values
    return float((histogram.background * values + histogram.foreground * (1 - values)).sum()) / histogram.pixels
