from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from camoxpert_cli import atomic, console
from camoxpert_cli.commands.options import file_path
from camoxpert_cli.errors import UsageError, did_you_mean, nearest, shown
from camoxpert_cli.regular_file import read_regular
from camoxpert_cli.targets import check_parent, check_targets

# The files in FOLDER, in the order in which they are listed.
TOPICS = (
    "kaggle",
    "kaggle-offline",
    "data",
    "finetune",
    "several-gpus",
    "several-machines",
    "clusters",
    "resume",
    "evaluation-rules",
    "predict",
    "python",
    "export",
    "checkpoints",
    "from-the-original",
    "troubleshooting",
    "measured",
    "how-it-works",
    "contributing",
)
FOLDER = Path(__file__).resolve().parents[1] / "guide"
NOTEBOOK = FOLDER / "camox-kaggle.ipynb"
# A notebook with the output of a training session has some MB.
_LARGEST_NOTEBOOK = 2**26


def guide(
    topic: Annotated[
        str | None, typer.Argument(metavar="TOPIC", help="Topic to read about; all are listed if not given.")
    ] = None,
    notebook: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=file_path, help="Write a Kaggle notebook to FILE; only with the topic kaggle."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file at --notebook if it is a notebook that camox wrote.")
    ] = False,
) -> None:
    """Read the guide: training on Kaggle, data, GPUs and more.

    Formats the text in a terminal; prints plain Markdown if redirected or piped.

    \b
    Examples:
      camox guide
      camox guide troubleshooting
      camox guide data | less
      camox guide kaggle --notebook camox-kaggle.ipynb
    """
    if topic is not None and topic not in TOPICS:
        meant = did_you_mean(nearest(topic.lower(), TOPICS, count=3))
        raise UsageError(f"the guide has no topic {shown(topic)}{meant}", "camox guide")
    if notebook is not None:
        if topic != "kaggle":
            raise UsageError("--notebook requires the topic kaggle", "camox guide kaggle --notebook FILE")
        _write_notebook(notebook, overwrite=overwrite)
    elif topic is not None:
        console.page((FOLDER / f"{topic}.md").read_text(encoding="utf-8"))
    else:
        width = max(map(len, TOPICS))
        for name in TOPICS:
            console.entry(f"{name:<{width}}", summary(name))
        console.result("\nTo read a topic: camox guide TOPIC")


def summary(topic: str) -> str:
    """Return the first paragraph of a page, which is one sentence."""
    return (FOLDER / f"{topic}.md").read_text(encoding="utf-8").split("\n\n")[1]


def _write_notebook(path: Path, *, overwrite: bool) -> None:
    if path.suffix != ".ipynb":
        raise UsageError(f"--notebook is {path}, expected a name that ends in .ipynb", f"--notebook {path}.ipynb")
    hint = f"--notebook {_free_name(path)}"
    check_parent(path)
    check_targets([path], hint, is_ours=_is_ours, overwrite=overwrite)
    atomic.sweep(path)
    try:
        atomic.write_text(path, NOTEBOOK.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--notebook {path} cannot be written: {error.strerror}", hint) from error
    console.result(f"Written: {path}")
    console.say("Import it on Kaggle (Create, New Notebook, File, Import Notebook) and edit the settings at its top.")


def _free_name(path: Path) -> Path:
    """Return the path, or the first of path-2, path-3 and so on, that does not exist."""
    others = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(each for each in itertools.chain([path], others) if not os.path.lexists(each))


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(read_regular(path, _LARGEST_NOTEBOOK))
    except (OSError, ValueError, RecursionError):
        return False
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return isinstance(metadata, dict) and "camox" in metadata
