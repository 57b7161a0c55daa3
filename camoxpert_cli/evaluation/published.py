"""Published scores of other systems on the four test sets of the field, for comparison.

Rounded as published. All systems were trained on 3040 images of COD10K and 1000 of CAMO.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Published results of a system; `scores` by metric name as in `MEASURES`, `source` is where they were read."""

    system: str
    source: str
    scores: dict[str, float]


_ZOOMNEXT = "README of github.com/lartpang/ZoomNeXt"
_HDPNET = "README of github.com/LittleGrey-hjp/HDPNet"
_FAST_CAMODIFF = "README of github.com/wty-team/diff-ssm"


def published_for(name: str) -> list[Published]:
    """Return the published results on the test set `name`, ignoring case; best S-measure first."""
    return sorted(_ROWS.get(_key(name), []), key=lambda row: -row.scores["s_measure"])


def _key(name: str) -> str:
    """`COD10K-v3`, `COD10K-TE` and `CAMO_TestingDataset` are matched by prefix."""
    return next((key for key in _ROWS if name.upper().startswith(key)), "")


def _rows(
    zoomnext: tuple[tuple[float, float, float], ...], hdpnet: tuple[float, ...], older: tuple[tuple[float, float], ...]
) -> list[Published]:
    names = ("s_measure", "weighted_f", "mae")
    backbones = ("ResNet-50", "EffNet-B4", "PVTv2-B2", "PVTv2-B4")
    rows = [
        Published(f"ZoomNeXt {backbone}", _ZOOMNEXT, dict(zip(names, scores, strict=True)))
        for backbone, scores in zip(backbones, zoomnext, strict=True)
    ]
    more_names = ("s_measure", "weighted_f", "f_mean", "e_mean", "e_max", "mae")
    rows.append(Published("HDPNet", _HDPNET, dict(zip(more_names, hdpnet, strict=True))))
    rows += [
        Published(system, _FAST_CAMODIFF, {"s_measure": s_measure, "mae": mae})
        for system, (s_measure, mae) in zip(("SINet-V2", "PFNet"), older, strict=False)
    ]
    return rows


_ROWS = {
    "CAMO": _rows(
        ((0.833, 0.774, 0.065), (0.867, 0.824, 0.046), (0.874, 0.839, 0.047), (0.888, 0.859, 0.040)),
        (0.893, 0.851, 0.870, 0.934, 0.948, 0.040),
        ((0.822, 0.070), (0.782, 0.085)),
    ),
    "CHAMELEON": _rows(
        ((0.908, 0.858, 0.021), (0.911, 0.865, 0.020), (0.922, 0.884, 0.017), (0.925, 0.897, 0.016)),
        (0.921, 0.860, 0.874, 0.947, 0.975, 0.020),
        (),
    ),
    "COD10K": _rows(
        ((0.861, 0.768, 0.026), (0.875, 0.797, 0.021), (0.887, 0.818, 0.019), (0.898, 0.838, 0.017)),
        (0.888, 0.794, 0.820, 0.925, 0.951, 0.020),
        ((0.815, 0.037), (0.800, 0.040)),
    ),
    "NC4K": _rows(
        ((0.874, 0.816, 0.037), (0.884, 0.837, 0.032), (0.892, 0.852, 0.030), (0.900, 0.865, 0.028)),
        (0.903, 0.848, 0.870, 0.932, 0.952, 0.029),
        ((0.847, 0.048), (0.829, 0.053)),
    ),
}
