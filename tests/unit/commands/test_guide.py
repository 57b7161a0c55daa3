"""`camox guide`: its pages on a terminal and in a pipe."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from camoxpert_cli import console
from camoxpert_cli.app import app
from camoxpert_cli.commands.guide import FOLDER, TOPICS, summary
from tests.helpers.places import PACKAGE, PRESETS

STYLES = re.compile(r"\x1b\[[0-9;]*m")
PAGE = """\
# A title

A sentence.

See [another page](resume.md), [a part of it](resume.md#sessions), [this page](#a-part),
[the README](../../README.md#start) and [elsewhere](https://example.org/x). `code span`

## A part

| to | add |
|---|---|
| do something that takes a lot of words to be said in one cell of a table | `--first-option 1` |
| more | `--second` |

```bash
camox train --dataset-path DATA \\
    --epochs 3
```

- one
- two
"""


class Terminal(io.TextIOWrapper):
    """Stands in for stdout on a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding, errors="strict")

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        self.flush()
        written = self.buffer.getvalue()  # type: ignore[attr-defined]
        return str(written.decode(self.encoding))


@pytest.fixture
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


def rendered(monkeypatch: pytest.MonkeyPatch, text: str, encoding: str = "utf-8") -> str:
    terminal = Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    console.prepare_streams()
    console.page(text)
    return terminal.shown()


def guide(*arguments: str) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(app, ["guide", *arguments])
    return outcome.exit_code, outcome.stdout, outcome.stderr


def test_topics_are_listed() -> None:
    """Each on a line, in its order, with the first sentence of its page; and how to read one."""
    code, text, _ = guide()
    lines = text.splitlines()

    assert code == 0
    assert [line.split(maxsplit=1) for line in lines[: len(TOPICS)]] == [[each, summary(each)] for each in TOPICS]
    assert lines[len(TOPICS) :] == ["", "To read a topic: camox guide TOPIC"]


@pytest.mark.parametrize("topic", TOPICS)
def test_in_a_pipe_a_page_is_its_file(topic: str) -> None:
    """Markdown, to the last character."""
    code, text, _ = guide(topic)

    assert code == 0
    assert text == (FOLDER / f"{topic}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "meant"), [("trobleshooting", "did you mean troubleshooting"), ("gpus", "several-gpus"), ("%", "")]
)
def test_an_unknown_topic(name: str, meant: str) -> None:
    """One error with the names that are like it, and the command that lists all."""
    code, text, error = guide(name)

    assert (code, text) == (2, "")
    assert meant in error
    assert repr(name) in error
    assert error.endswith("Try:   camox guide\n")
    assert ("did you mean" in error) == bool(meant)


@pytest.mark.usefixtures("_plain_environment")
def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links name what to type or where to look; code stands as it is; rows that are folded stay apart."""
    text = rendered(monkeypatch, PAGE)
    whole = STYLES.sub("", text).splitlines()
    lines = [line.rstrip() for line in whole]

    assert "\x1b[1m" in text
    assert "\x1b]8" not in text  # no links that lead nowhere
    assert lines[:3] == ["A title", "", "A sentence."]
    assert " ".join(lines[4:6]) == (
        "See another page (camox guide resume), a part of it (camox guide resume), this page, the README (README.md) "
        "and elsewhere (https://example.org/x). code span"
    )
    # A backslash is the last character, as a shell wants it.
    at = whole.index("  camox train --dataset-path DATA \\")
    assert whole[at + 1] == "      --epochs 3"
    assert lines[-2:] == [" • one", " • two"]
    (first,) = (at for at, line in enumerate(lines) if "--first-option 1" in line)
    (second,) = (at for at, line in enumerate(lines) if line.endswith("--second"))
    assert lines[second - 1] == ""
    assert second - first > 2
    assert max(map(len, lines)) <= 80


@pytest.mark.usefixtures("_plain_environment")
def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves bold and underlined text."""
    monkeypatch.setenv("NO_COLOR", "1")
    codes = {code for match in STYLES.findall(rendered(monkeypatch, PAGE)) for code in match[2:-1].split(";")}

    assert codes <= {"0", "1", "2", "4", ""}
    assert "1" in codes


@pytest.mark.usefixtures("_plain_environment")
@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize(("encoding", "columns"), [("utf-8", 80), ("utf-8", 40), ("ascii", 80)])
def test_every_page_can_be_shown(monkeypatch: pytest.MonkeyPatch, topic: str, encoding: str, columns: int) -> None:
    """In any encoding and width, with nothing of Markdown's links left."""
    monkeypatch.setenv("COLUMNS", str(columns))
    text = STYLES.sub("", rendered(monkeypatch, (FOLDER / f"{topic}.md").read_text(encoding="utf-8"), encoding))

    prose = [line for line in text.splitlines() if not line.startswith("  ")]  # the others are code

    assert encoding == "ascii" or max(map(len, prose)) <= columns  # where one letter may become three
    assert "](" not in text
    assert ".md)" not in text.replace("(README.md)", "").replace("(CHANGELOG.md)", "")


@pytest.mark.usefixtures("_plain_environment")
def test_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any styles."""
    monkeypatch.setenv("TERM", "dumb")

    assert "\x1b" not in rendered(monkeypatch, PAGE)


@pytest.mark.usefixtures("_plain_environment")
def test_a_reader_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told as for any other result."""

    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(console.NotTold):
        console.page(PAGE)


def mentions() -> Iterator[tuple[Path, str]]:
    """Each `camox guide X` in the package."""
    for path in [*PACKAGE.rglob("*"), *PRESETS.iterdir()]:
        if path.suffix in (".py", ".md", ".yaml", ".html", ".ipynb"):
            for found in re.findall(r"camox guide ([\w{][\w.-]*)", path.read_text(encoding="utf-8")):
                yield path, found.rstrip(".")


def test_topics_that_are_mentioned_exist() -> None:
    """In hints, help, comments and pages."""
    unknown = {(path.name, name) for path, name in mentions() if name not in (*TOPICS, "TOPIC")}

    assert unknown <= {("markdown.py", "{page")}  # which puts the name of a page there
