"""The command line: its commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import atexit
import errno
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import camoxpert_cli.supported  # noqa: F401  # before what it looks for
from camoxpert_cli import __version__, console, signals
from camoxpert_cli.commands import (
    benchmark,
    check_data,
    convert_ckpt,
    doctor,
    export,
    guide,
    predict,
    presets,
    resume,
    train,
    work,
)
from camoxpert_cli.commands import eval as eval_command
from camoxpert_cli.commands.help import PrintsHelp, SectionedCommand
from camoxpert_cli.errors import CamoxError, cut, one_line
from camoxpert_cli.parallel.cuda_errors import explaining_cuda_errors
from camoxpert_cli.parallel.worker import ending_at_once, is_launched, tell_launcher

# What the system refuses a user: no permission, a read-only file system, a path that cannot be, a full disk.
_REFUSALS = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check its permissions"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "choose another name or folder"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
}


class _ErrorBoundary(PrintsHelp, TyperGroup):
    """Within which errors become messages: while options are read, which may print help, and in the command."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _boundary():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _boundary():
            return super().invoke(ctx)


@contextmanager
def _boundary() -> Iterator[None]:
    """A user's mistake ends with one sentence; a mistake of ours keeps its traceback."""
    try:
        with explaining_cuda_errors():
            yield
    except CamoxError as error:
        _fail(error.message, error.hint, error.details)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        number = signals.number_of(error)
        _fail(f"stopped by {signals.ASKING[number]}")
        raise typer.Exit(128 + number) from error
    except console.NotTold as error:
        if error.errno == errno.EPIPE:  # whoever read our output has had enough
            raise typer.Exit(signals.UNHEARD) from error
        _fail(f"stdout takes no results: {error.strerror}", "free some space, or send them elsewhere")
        raise typer.Exit(2) from error
    except OSError as error:
        if error.errno not in _REFUSALS:
            _tell_mistake_of_ours(error)
            raise
        where = "" if error.filename is None else f"{one_line(error.filename)}: "
        _fail(f"{where}{error.strerror}", _REFUSALS[error.errno])
        raise typer.Exit(2) from error
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own, which repeat what was typed
            error.message = console.printable(cut(str(error.message)))  # type: ignore[attr-defined]
        _tell_mistake_of_ours(error)
        raise


def _fail(message: str, hint: str = "", details: str = "") -> None:
    """Say why the program ends; where it is one of several processes, the launcher says it for all."""
    if not tell_launcher(message, hint, details):
        console.fail(message, hint, details)


def _tell_mistake_of_ours(error: Exception) -> None:
    if not isinstance(error, typer.Exit | typer.Abort):
        tell_launcher(f"{type(error).__name__}: {error}".splitlines()[0], "", "")


app = typer.Typer(
    cls=_ErrorBoundary,
    name="camox",
    help="""Train and evaluate CamoXpert, a network that finds camouflaged animals in pictures.

    \b
    Examples:
      camox train --preset quickstart
      camox doctor
      camox train --dataset-path DATA --checkpoint-dir runs/first
      camox predict runs/first/best_model.pth photo.jpg --out maps

    camox COMMAND --help shows more of them for each command.
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train", cls=SectionedCommand)(train.train)
app.command("resume", cls=SectionedCommand)(resume.resume)
app.command("convert-ckpt", cls=SectionedCommand)(convert_ckpt.convert_ckpt)
app.command("doctor", cls=SectionedCommand)(doctor.doctor)
app.command("check-data", cls=SectionedCommand)(check_data.check_data)
app.command("benchmark", cls=SectionedCommand)(benchmark.benchmark)
app.command("eval", cls=SectionedCommand)(eval_command.evaluate)
app.command("predict", cls=SectionedCommand)(predict.predict)
app.command("export", cls=SectionedCommand)(export.export)
app.command("guide", cls=SectionedCommand)(guide.guide)
app.add_typer(presets.app, name="presets")
if is_launched():  # what camox train starts its processes with is no command for people
    app.command("work", hidden=True)(work.work)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.result(f"camox {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _require_current_folder() -> None:
    """Libraries that look for it end the process, with messages that name something else."""
    try:
        Path.cwd()
    except OSError as error:
        console.fail(f"the current folder cannot be used: {error.strerror}", "cd to one that is there")
        raise SystemExit(2) from None


def main() -> None:
    console.prepare_streams()
    _require_current_folder()
    signals.take_over(signals.interrupt)
    # Python looks for garbage once more as it ends, which takes a second among all that torch and timm made.
    atexit.register(gc.freeze)
    with ending_at_once():
        app()
