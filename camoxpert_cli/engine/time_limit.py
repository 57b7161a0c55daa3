"""The deadline of a run: limits counted from the start of this process or of the machine's session, or Slurm's.

Times are those of `time.monotonic`, which all processes of a machine share and nobody can set; times in seconds since
1970 are converted once.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.config.parse import Sessions, format_duration
from camoxpert_cli.errors import UsageError

SESSION_START = "CAMOX_SESSION_START"
SLURM_END = "SLURM_JOB_END_TIME"

_IMPORTED = time.monotonic()
_MARGIN = 1.2
# Part of a session that may be used; the rest is for collecting its files.
_SESSION_PART = 0.99
# Seconds of a Slurm job that are left for its script, which has to requeue the job before Slurm kills both.
_SLURM_MARGIN = 30.0


@dataclass(frozen=True)
class Deadline:
    """Deadline of a run: `end` in seconds of `time.monotonic`, infinity for none; `name` says which limit sets it."""

    end: float = math.inf
    name: str = ""

    def left(self, now: float) -> float:
        """Return the seconds until the deadline, negative after it."""
        return self.end - now


@dataclass
class Reserve:
    """Time that must remain at the end of a step, in seconds, from measurements so far.

    Before the first measurement, saving is assumed to take `estimated_saving`, and each of the `validation_images` as
    long as a training image. If the end of the run is `planned`, as in one that is fitted to its time, time must remain
    for a step like the latest one and for saving only. `in_flight` is the number of checkpoints that are being written
    while training continues.
    """

    estimated_saving: float
    validation_images: int
    saving: float = 0.0
    pause: float = 0.0
    in_flight: int = 0
    validation: float = 0.0
    step: float = 0.0
    latest: float = 0.0
    per_image: float = 0.0
    warm: bool = False
    planned: bool = False

    def note_step(self, seconds: float, images: int) -> None:
        """Record the time of an optimizer step over `images` images; the first is a warmup and does not count."""
        if self.warm:
            self.step, self.latest = max(self.step, seconds), seconds
            self.per_image = seconds / images
        self.warm = True

    def note_saving(self, seconds: float) -> None:
        """Record the time to write `last.pth`, with the copy that is written."""
        self.saving = max(self.saving, seconds)

    def note_pause(self, seconds: float) -> None:
        """Record the part of that time for which training waits."""
        self.pause = max(self.pause, seconds)

    def note_validation(self, seconds: float) -> None:
        """Record the time to score all held-out images."""
        self.validation = max(self.validation, seconds)

    @property
    def to_save(self) -> float:
        """Seconds to write `best_model.pth` and `last.pth` after what is being written, with a margin of a fifth."""
        return _MARGIN * (2 + self.in_flight) * (self.saving or self.estimated_saving)

    @property
    def seconds(self) -> float:
        """Seconds for one more step, the validation and the saving after it."""
        if self.planned:
            return self.latest + self.to_save
        validation = self.validation or self.validation_images * self.per_image
        return _MARGIN * (self.step + validation) + self.to_save


def find_deadline(
    time_limit: int | None, session_limit: int | None, began: float | None = None, fit: Sessions | None = None
) -> Deadline:
    """Return the earliest limit: two in seconds, from the start of camox and of the session, and that of a Slurm job.

    A run fitted to `fit` ends or stops within the length of one of its sessions, from the start of camox. Without
    `began`, camox started with this process.

    A hundredth of a session limit is left unused, so that its files can be collected. The session's start is
    CAMOX_SESSION_START (seconds since 1970) or the start of process 1, which in a notebook service starts with the
    container. The last 30 s of a Slurm job are left to its script. Raises UsageError if that variable or Slurm's is
    invalid.
    """
    began = process_start(os.getpid()) if began is None else began
    found = [Deadline()]
    if time_limit is not None:
        found.append(Deadline(began + time_limit, f"the time limit of {format_duration(time_limit)}"))
    if fit is not None:
        name = f"the time limit of {format_duration(fit.seconds)} (--fit {fit})"
        found.append(Deadline(began + fit.seconds, name))
    if session_limit is not None:
        name = f"the session limit of {format_duration(session_limit)}"
        start = session_start()
        if time.monotonic() >= start + session_limit and SESSION_START not in os.environ:
            # On a private machine process 1 is as old as the machine, and a session limit is not meant for that.
            up = format_duration(time.monotonic() - start)
            console.warn(f"this machine has been up for {up}: {name} is counted from the start of camox instead")
            start = began
        found.append(Deadline(start + _SESSION_PART * session_limit, name))
    job = slurm_job()
    if job is not None and (left := job.left(time.monotonic())) > 0:
        found.append(Deadline(job.end - _SLURM_MARGIN, job.name))
    elif job is not None:
        # Slurm does not let a job run on: this one was extended, or is over and left its variables to a shell.
        ago = format_duration(-left)
        console.warn(f"{SLURM_END} is {ago} ago: {job.name} is ignored; unset {SLURM_END} if that job is over")
    return min(found, key=lambda deadline: deadline.end)


def session_start() -> float:
    """Return when the machine's session began. Raises UsageError as `find_deadline` does."""
    given = os.environ.get(SESSION_START)
    if given is None:
        return process_start(1)
    try:
        start = float(given)
    except ValueError:
        start = math.nan
    now = time.time()
    if not 0 < start <= now:
        raise UsageError(
            f"{SESSION_START} is {given!r}, expected the session's start in seconds since 1970, not in the future",
            f"export {SESSION_START}=$(date +%s) when the session begins, or unset it",
        )
    return time.monotonic() - (now - start)


def slurm_job() -> Deadline | None:
    """Return when the Slurm job that this process belongs to reaches its time limit, even if past; None without a job.

    Slurm sets SLURM_JOB_END_TIME (seconds since 1970) from version 23.02 on; job scripts can set it on older ones. An
    empty value counts as not set. Raises UsageError if it is invalid.
    """
    given = os.environ.get(SLURM_END)
    if not given:
        return None
    try:
        end = float(given)
    except ValueError:
        end = math.nan
    if not 0 < end < math.inf:
        raise UsageError(
            f"{SLURM_END} is {given!r}, expected the end of the Slurm job in seconds since 1970",
            f"unset {SLURM_END}; see camox guide clusters",
        )
    name = f"the time limit of Slurm job {os.environ.get('SLURM_JOB_ID', '')}".rstrip()
    return Deadline(time.monotonic() + end - time.time(), name)


def process_start(pid: int, proc: Path = Path("/proc")) -> float:
    """Return when process `pid` started; if /proc cannot tell, when this process imported camox."""
    try:
        # The second field, a name in brackets, may contain spaces; field 22 counts ticks since the machine booted.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return _IMPORTED
    return time.monotonic() - age
