"""What a process of its own answers that was asked to try something. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """Instead of a reading: `why` it could not be taken, in half a sentence.

    Where that is an error that a user can mend, `hint` says what to type, and `exit_code` is the error's.
    """

    why: str
    hint: str = ""
    exit_code: int | None = None


@dataclass(frozen=True)
class StageMemory:
    """Two steps of a stage at its batch and size: the most GPU memory they held, None where they ran out of it."""

    stage: int
    batch_size: int
    peak: int | None
