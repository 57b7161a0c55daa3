"""Test-time augmentation: which views of a picture, beside the picture itself, the network is asked about."""

from __future__ import annotations

from dataclasses import dataclass

from camoxpert_cli.config.names import parse_names

SCALES = (0.75, 1.0, 1.25)
_KNOWN = ("flip", "scales")


@dataclass(frozen=True)
class Tta:
    """Each of `scales`, as a factor of the side that the network sees, and with `flip` each of them mirrored too."""

    flip: bool
    scales: tuple[float, ...]


NO_TTA = Tta(flip=False, scales=(1.0,))


def parse_tta(text: str) -> Tta:
    """`flip`, `scales` (0.75, 1 and 1.25) or `flip,scales`. Raises UsageError."""
    names = parse_names("--tta", text, _KNOWN, expected="flip, scales or flip,scales", example="flip")
    return Tta("flip" in names, SCALES if "scales" in names else NO_TTA.scales)
