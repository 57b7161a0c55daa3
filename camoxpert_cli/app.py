"""The command line: its commands, and the only place where errors become messages and exit codes."""

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

import camoxpert_cli.supported  # noqa: F401  # must run before the imports it guards
from camoxpert_cli import __version__, console, signals
from camoxpert_cli.commands import (
    benchmark,
    check_data,
    convert_ckpt,
    doctor,
    export,
    guide,
    import_labels,
    predict,
    presets,
    resume,
    status,
    train,
    work,
)
from camoxpert_cli.commands import eval as eval_command
from camoxpert_cli.commands.help import PrintsHelp, SectionedCommand
from camoxpert_cli.commands.usage_errors import usage_error
from camoxpert_cli.errors import CamoxError, cut, one_line
from camoxpert_cli.parallel.cuda_errors import explaining_cuda_errors
from camoxpert_cli.parallel.worker import ending_at_once, is_launched, tell_launcher

# System errors that the user can fix: missing permission, read-only file system, impossible path, full disk.
_REFUSALS = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check its permissions"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "choose another name or folder"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
}


class _ErrorBoundary(PrintsHelp, TyperGroup):
    """Group in which errors become messages: while options are parsed, which may print help, and in the command."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _boundary():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _boundary():
            return super().invoke(ctx)


@contextmanager
def _boundary() -> Iterator[None]:
    """Turn a user's mistake into one sentence; a bug in camox keeps its traceback."""
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
        if error.errno == errno.EPIPE:  # the reader of our output has gone
            raise typer.Exit(signals.UNHEARD) from error
        _fail(f"results cannot be written to stdout: {error.strerror}", "free some space, or redirect stdout elsewhere")
        raise typer.Exit(2) from error
    except OSError as error:
        if error.errno not in _REFUSALS:
            _report_bug(error)
            raise
        where = "" if error.filename is None else f"{one_line(error.filename)}: "
        _fail(f"{where}{error.strerror}", _REFUSALS[error.errno])
        raise typer.Exit(2) from error
    except Exception as error:
        if (explained := usage_error(error, getattr(error, "ctx", None))) is not None:
            _fail(explained.message, explained.hint)
            raise typer.Exit(explained.exit_code) from error
        if hasattr(error, "format_message"):  # Typer's own, which repeat the user's input
            error.message = console.printable(cut(str(error.message)))  # type: ignore[attr-defined]
        _report_bug(error)
        raise


def _fail(message: str, hint: str = "", details: str = "") -> None:
    """Print why the program ends; a worker process leaves the printing to its launcher."""
    if not tell_launcher(message, hint, details):
        console.fail(message, hint, details)


def _report_bug(error: Exception) -> None:
    if not isinstance(error, typer.Exit | typer.Abort):
        tell_launcher(f"{type(error).__name__}: {error}".splitlines()[0], "", "")


app = typer.Typer(
    cls=_ErrorBoundary,
    name="camox",
    help="""Train and evaluate CamoXpert, a network that finds camouflaged animals in images.

    \b
    Examples:
      camox train --preset quickstart
      camox doctor
      camox train --dataset-path DATA --checkpoint-dir runs/first
      camox predict runs/first/best_model.pth photo.jpg --out predictions

    Run camox COMMAND --help for the options of a command and more examples.
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train", cls=SectionedCommand)(train.train)
app.command("resume", cls=SectionedCommand)(resume.resume)
app.command("status", cls=SectionedCommand)(status.status)
app.command("convert-ckpt", cls=SectionedCommand)(convert_ckpt.convert_ckpt)
app.command("doctor", cls=SectionedCommand)(doctor.doctor)
app.command("check-data", cls=SectionedCommand)(check_data.check_data)
app.command("import-labels", cls=SectionedCommand)(import_labels.import_labels)
app.command("benchmark", cls=SectionedCommand)(benchmark.benchmark)
app.command("eval", cls=SectionedCommand)(eval_command.evaluate)
app.command("predict", cls=SectionedCommand)(predict.predict)
app.command("export", cls=SectionedCommand)(export.export)
app.command("guide", cls=SectionedCommand)(guide.guide)
app.add_typer(presets.app, name="presets")
if is_launched():  # camox train starts its processes with it; not meant for users
    app.command("work", hidden=True)(work.work)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.result(f"camox {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _require_current_folder() -> None:
    """Exit if there is no current folder: libraries that need it crash with misleading messages."""
    try:
        Path.cwd()
    except OSError as error:
        console.fail(f"the current folder is not accessible: {error.strerror}", "cd to an existing folder")
        raise SystemExit(2) from None


def main() -> None:
    console.prepare_streams()
    _require_current_folder()
    signals.take_over(signals.interrupt)
    # Python collects garbage once more at exit, which takes a second with all the objects of torch and timm.
    atexit.register(gc.freeze)
    with ending_at_once():
        app()
