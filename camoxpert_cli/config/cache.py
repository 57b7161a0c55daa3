"""Where resized pictures are kept, as people write it."""

from __future__ import annotations

# What people write where they mean on or off; a folder of that name can be given as ./no.
_WORDS = {"true", "false", "yes", "no", "on", "none", "0", "1"}


def parse_cache(text: str) -> str:
    """ "auto", "off" or a folder. Raises ValueError with what was expected."""
    if text.strip().lower() in _WORDS:
        raise ValueError("auto, off, or a folder")
    return text
