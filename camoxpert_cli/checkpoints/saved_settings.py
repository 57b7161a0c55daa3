"""The settings of the run that wrote a checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from camoxpert_cli.checkpoints.format import Checkpoint
from camoxpert_cli.checkpoints.original_settings import settings_of_original
from camoxpert_cli.checkpoints.program_layouts import ORIGINAL, layout_of
from camoxpert_cli.errors import CheckpointError


def saved_settings(checkpoint: Checkpoint) -> tuple[Mapping[str, Any], str]:
    """Return the settings of a checkpoint and the name of their origin. Raises CheckpointError if it has none."""
    content, origin = checkpoint.content, str(checkpoint.path)
    if (own := checkpoint.own) is not None and own.config is not None:
        return own.config, origin
    if layout_of(content) is ORIGINAL and isinstance(content.get("args"), Mapping):
        return settings_of_original(content["args"]), origin
    raise CheckpointError(
        f"{checkpoint.path} contains weights but no settings",
        f"give the settings: camox train --resume-from {shlex.quote(str(checkpoint.path))} --dataset-path DATA ...",
    )
