"""Writes golden/scores.json: PySODMetrics' scores of generated pairs, which the default tests compare ours with.

    python -m tests.metrics.make_golden

Needs `pip install camox[parity]`. A checksum of each pair tells whether the generator still gives the same pixels.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

from tests.unit.metrics.pairs import Grey, Mask, generated_pair
from tests.unit.metrics.reference import reference_scores

GOLDEN = Path(__file__).parent / "golden" / "scores.json"
SEEDS = range(40)


def checksum(grey: Grey, mask: Mask) -> int:
    return zlib.crc32(mask.tobytes(), zlib.crc32(grey.tobytes()))


def main() -> None:
    entries = []
    for seed in SEEDS:
        grey, mask = generated_pair(seed)
        for stretch in (True, False):
            scores, curves = reference_scores(grey, mask, stretch)
            scores.update({f"mean {name}": float(curve.mean()) for name, curve in curves.items()})
            rounded = {name: None if math.isnan(score) else round(score, 9) for name, score in scores.items()}
            entries.append({"seed": seed, "stretch": stretch, "checksum": checksum(grey, mask), "scores": rounded})
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    main()
