from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from camoxpert_cli.parallel import toolchain
from camoxpert_cli.parallel.toolchain import missing_for_cpu, missing_for_gpu


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs, all that there are: those of a machine that can compile."""
    for name in ("g++", "gcc"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "Python.h").touch()
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(toolchain, "find_spec", lambda name: object())
    return tmp_path


def test_all_there() -> None:
    """Nothing is missing for the CPU and for a T4."""
    assert missing_for_cpu() == ""
    assert missing_for_gpu((7, 5)) == ""


def test_no_compiler(tools: Path) -> None:
    """A message names the programs that were looked for; either of two C compilers is enough for a GPU."""
    (tools / "g++").unlink()
    (tools / "gcc").rename(tools / "clang")

    assert missing_for_cpu() == "no C++ compiler was found (g++), which torch.compile requires"
    assert missing_for_gpu((7, 5)) == ""
    (tools / "clang").unlink()
    assert missing_for_gpu((7, 5)) == "no C compiler was found (gcc or clang), which torch.compile requires"


def test_compiler_of_macos(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There torch uses clang++."""
    monkeypatch.setattr(sys, "platform", "darwin")

    assert "(clang++)" in missing_for_cpu()


def test_compiler_of_the_environment(monkeypatch: pytest.MonkeyPatch, tools: Path) -> None:
    """CXX and CC outrank what is found, with or without arguments; they may name what is not there."""
    monkeypatch.setenv("CXX", "/nonexistent")
    monkeypatch.setenv("CC", f"{tools / 'gcc'} -O1")

    assert missing_for_cpu() == "CXX is /nonexistent, and there is no such program"
    assert missing_for_gpu((9, 0)) == ""


def test_no_headers(tools: Path) -> None:
    """What is compiled is a module of Python."""
    (tools / "Python.h").unlink()
    expected = f"{tools / 'Python.h'}, which torch.compile requires, was not found"

    assert missing_for_cpu() == missing_for_gpu((8, 0)) == expected


def test_gpus_that_triton_does_not_support(monkeypatch: pytest.MonkeyPatch) -> None:
    """A P100 is too old, whatever is installed; without Triton no GPU will do."""
    assert "capability 7.0 or higher, and this one has 6.0" in missing_for_gpu((6, 0))
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)
    assert "triton" in missing_for_gpu((7, 0))
    assert missing_for_cpu() == ""
