"""Tracking of a run with Weights & Biases: curves, settings and results, online or, with WANDB_MODE=offline, in files.

The step is that of TensorBoard's curves, the position of `reporter.Reporter`. The files `run-id` and `last-step` beside
those of wandb identify the run there and say what has been logged, so that a resumed run continues the same curves and
does not log again what it repeats.
"""

from __future__ import annotations

import os
import secrets
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from camoxpert_cli import atomic, console
from camoxpert_cli.engine.named_numbers import named_numbers
from camoxpert_cli.errors import UsageError, one_line

FOLDER = "wandb"
RUN_ID, LAST_STEP = "run-id", "last-step"
_PROJECT = "camox"  # unless WANDB_PROJECT is set
# Without a server, the start and the end of a run wait no longer than this.
_START_SECONDS, _END_SECONDS = 30.0, 30.0
# A killed process may lose what wandb has not written to disk yet; 0.31 writes every 15 seconds.
_SAFE_SECONDS = 20.0


def ready_wandb() -> Any:
    """Return the wandb package if it can be used without asking for a key, which it would do on a terminal.

    Raises UsageError if it is missing, or online and nobody is logged in. Does not use the network.
    """
    try:
        import wandb
    except ImportError as error:
        raise UsageError(
            f"--tracker wandb requires the wandb package: {error}", "python -m pip install 'camox[wandb]'"
        ) from error
    try:
        offline = wandb.setup(wandb.Settings(silent=True)).settings.mode not in ("online", "run")
        problem = "" if offline or wandb.login(prompt=False, verify=False) else "nobody is logged in"
    except TypeError as error:  # an argument that it does not know
        raise UsageError(
            f"--tracker wandb requires wandb 0.31 or later, but {wandb.__version__} is installed",
            "python -m pip install --upgrade wandb",
        ) from error
    except (wandb.Error, ValueError) as error:  # in a key, or in a WANDB_ variable
        problem = one_line(error)
    if problem:
        raise UsageError(
            f"--tracker wandb cannot be used: {problem}",
            "wandb login; or WANDB_MODE=offline, to log to the run folder and upload it later",
        )
    return wandb


class Tracker:
    """A run at Weights & Biases. If anything about it fails, that is a warning, and training continues without it."""

    def __init__(self, folder: Path, config: Mapping[str, Any], source: Path | None) -> None:
        """Start in the run folder `folder`, with all settings `config`; `source` is the folder that it resumes from."""
        self._folder = folder / FOLDER
        self._run: Any = None
        self._logged = -1  # the last step that an earlier session has logged for sure
        self._step, self._noted, self._noted_at = -1, -1, time.monotonic()
        try:
            run_id = self._take_over(source)
            wandb = ready_wandb()
            try:
                self._run = _start(wandb, folder, run_id, config)
            except wandb.Error as error:
                console.warn(f"wandb cannot be reached: {one_line(error)}; logging offline, to the run folder")
                self._run = _start(wandb, folder, run_id, config, mode="offline")
            here = f"offline; to upload it: {_upload(self._folder)}/offline-run-*"
            if not self._run.disabled:
                console.say(f"{'Tracker':<12}{self._run.url or here}")
        except Exception as error:
            self._give_up(error)

    def write(self, event: str, values: Mapping[str, Any], step: int) -> None:
        """Log every number in `values` at `step`, unless an earlier session has logged that step."""
        if self._run is None or step <= self._logged:
            return
        try:
            self._run.log(dict(named_numbers(event, values)), step=step, commit=True)
            self._step = step
            if (now := time.monotonic()) - self._noted_at >= _SAFE_SECONDS:
                self._note_logged(self._noted)
                self._noted, self._noted_at = step, now
        except Exception as error:
            self._give_up(error)

    def summarize(self, results: Mapping[str, Any]) -> None:
        """Record the scores of a complete run, the content of results.json."""
        if self._run is None:
            return
        try:
            self._run.summary.update(dict(named_numbers("results", results)))
        except Exception as error:
            self._give_up(error)

    def close(self, *, failed: bool) -> None:
        """Upload what is left, for at most half a minute: the rest stays in the run folder."""
        if self._run is None:
            return
        try:
            self._run.finish(exit_code=int(failed))
            self._note_logged(self._step)
        except TimeoutError:
            rest = _upload(Path(self._run.dir).parent)
            console.warn(f"wandb could not upload everything in time; to upload the rest: {rest}")
        except Exception as error:
            self._give_up(error)

    def _take_over(self, source: Path | None) -> str:
        """Return the run's id: that of `source` if this run continues it, or a new one. Writes both files."""
        run_id, step = secrets.token_hex(8), -1
        folder = self._folder.parent
        # Who resumes in another folder starts a second run, unless the first one can no longer be written.
        if source is not None and (source.resolve() == folder.resolve() or not os.access(source, os.W_OK)):
            with suppress(OSError, ValueError):
                run_id = (source / FOLDER / RUN_ID).read_text().strip() or run_id
                step = int((source / FOLDER / LAST_STEP).read_text())
        self._folder.mkdir(exist_ok=True)
        atomic.write_text(self._folder / RUN_ID, run_id)
        atomic.write_text(self._folder / LAST_STEP, str(step))
        self._logged = step
        return run_id

    def _note_logged(self, step: int) -> None:
        if step > self._logged:
            atomic.write_text(self._folder / LAST_STEP, str(step))
            self._logged = step

    def _give_up(self, error: Exception) -> None:
        console.warn(f"wandb failed: {one_line(error)}; training continues without it")
        self._run = None
        # Otherwise, it would do so when Python exits, with a traceback if its own process is gone.
        with suppress(Exception, SystemExit):
            import wandb

            if wandb.run is None:  # no run of the caller's process
                wandb.teardown()


def _upload(path: Path) -> str:
    return f"wandb sync {shlex.quote(str(path))}"


def _start(wandb: Any, folder: Path, run_id: str, config: Mapping[str, Any], **more: Any) -> Any:
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        dir=str(folder),
        id=run_id,
        name=os.environ.get("WANDB_NAME", folder.name),
        resume="allow",
        reinit="create_new",  # another run of the caller's process is left alone
        config=dict(config),
        allow_val_change=True,
        settings=wandb.Settings(
            **{"silent": True, "console": "off", "disable_git": True, "save_code": False},
            **{"init_timeout": _START_SECONDS, "finish_timeout": _END_SECONDS},
            finish_timeout_raises=True,
        ),
        **more,
    )
