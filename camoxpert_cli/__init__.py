"""camox: train and evaluate CamoXpert, a network that finds camouflaged animals in pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camoxpert_cli.engine.load import load_model

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and `camox --help` must not wait for it.
    if name == "load_model":
        from camoxpert_cli.engine.load import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
