"""What `camox benchmark` can be asked to compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_cli.benchmark.options import check_counts, check_out, check_strategies
from camoxpert_cli.errors import UsageError


@pytest.mark.parametrize(("text", "expected"), [("1,2", (1, 2)), ("4", (4,)), (" 2 , 1 ", (2, 1))])
def test_counts(text: str, expected: tuple[int, ...]) -> None:
    """Numbers in the order in which they were given: the first is what others are compared with."""
    assert check_counts(text) == expected


@pytest.mark.parametrize("text", ["", "1,,2", "0", "-1", "1,1", "2000", "1.5", "all"])
def test_wrong_counts(text: str) -> None:
    """Anything else is refused with the value and a command to type."""
    with pytest.raises(UsageError, match=r"--gpus is .* expected distinct positive counts") as caught:
        check_counts(text)

    assert caught.value.hint == "camox benchmark --gpus 1,2"


def test_strategies() -> None:
    """One or both, once each; a near miss leads to what was meant."""
    assert check_strategies("dp, ddp") == ("dp", "ddp")
    with pytest.raises(UsageError, match="'dpp', expected one or both of dp and ddp") as caught:
        check_strategies("dpp")
    assert caught.value.hint in ("--strategy dp", "--strategy ddp")


def test_out(tmp_path: Path) -> None:
    """A file in a folder that is there."""
    check_out(tmp_path / "speed.md", overwrite=False)
    for path in (tmp_path, tmp_path / "gone" / "speed.md"):
        with pytest.raises(
            UsageError, match=r"cannot be written: Is a directory|cannot be written: folder .*gone does not exist"
        ):
            check_out(path, overwrite=False)


def test_out_that_is_there(tmp_path: Path) -> None:
    """An earlier table is replaced where that is meant; a preset, a list and whatever else is never one."""
    table, notes = tmp_path / "table.md", tmp_path / "notes.md"
    table.write_text("# camox benchmark\n\nold")
    notes.write_text("# notes on camox benchmark")
    with pytest.raises(UsageError, match="already exists"):
        check_out(table, overwrite=False)
    check_out(table, overwrite=True)
    with pytest.raises(UsageError, match="was not written by camox"):
        check_out(notes, overwrite=True)
