"""Commands import torch and timm without looking for garbage meanwhile."""

from __future__ import annotations

import gc
import importlib
import io
import sys
from contextlib import redirect_stdout

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.commands.imports import without_collecting
from camoxpert_cli.commands.work import work


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether garbage was collected each time that all objects would have been frozen; these here stay as they are."""
    found: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: found.append(gc.isenabled()))
    return found


def test_collecting_goes_on_afterwards(monkeypatch: pytest.MonkeyPatch, frozen: list[bool]) -> None:
    """What modules made is never looked at again; after an error, too, garbage is collected."""
    with without_collecting():
        within = gc.isenabled()
    nothing = [*frozen]
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with redirect_stdout(io.StringIO()), without_collecting():
        importlib.import_module("this")
    with pytest.raises(ImportError), without_collecting():
        raise ImportError

    assert not within
    assert nothing == []
    assert frozen == [True]
    assert gc.isenabled()


class Reached(Exception):
    """A module is imported, while garbage is collected or not."""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("camoxpert_cli.launch.start", ["train", "--dataset-path", "DATA"]),
        ("camoxpert_cli.launch.start", []),
        ("camoxpert_cli.launch.resume", ["resume", "RUN"]),
        ("camoxpert_cli.launch.evaluate", ["eval", "best.pth", "--dataset-path", "DATA"]),
        ("camoxpert_cli.inference.predict", ["predict", "best.pth", "photo.jpg", "--out", "predictions"]),
    ],
)
def test_what_is_imported_so(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> None:
            if name == module:
                raise Reached(gc.isenabled())

    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    if arguments:
        error = CliRunner().invoke(app, arguments).exception
    else:
        with pytest.raises(Reached) as caught:
            work()
        error = caught.value

    assert isinstance(error, Reached)
    assert error.args == (False,)
