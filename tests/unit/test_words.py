"""Words that camox no longer uses, in its package, its documents and its help: each has a better one."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from camoxpert_cli.app import app
from tests.helpers.command_lines import commands, without_code
from tests.helpers.places import PACKAGE, PRESETS, README, ROOT

# What is retired, anywhere in a file but below a line that names 0.1, whose names are still read; and what to write
# instead. A space stands for any white space, and the # of a comment that goes on in the next line.
RETIRED = {
    # Not the name of a setting of 0.1, which is still read.
    r"(?<!generated_)(?<!generated-)picture": "image",
    r"\bdata sets?\b": "dataset",
    r"\bsuper-class": "superclass",
    r"\b(?:go|goes|going|went) on with\b": "resume, continue with",
    r"\bgoing on from\b": "resuming from",
    r"\bthe original program\b": "the original CamoXpert",
    r"\bmoving average of the weights\b": "EMA weights",
    r"\bnumber formats?\b": "precision, dtype",
    r"\blearns? nothing\b": "non-learned baseline",
    r"\banew\b": "again, new",
    r"\b(?:is|are) not there\b": "missing, not found",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\basks for more than plain types\b": "contains pickled objects",
    r"\b(?:take|takes|taking) turns\b": "share",
    r"\bimages a second\b": "images/s",
    r"\ba second thought\b": "safe to change",
}
# In strings, docstrings and Markdown without its code: not `map(`, a mapping, what the group before it names, nor the
# verb, which has an object.
MAP = (
    r"\b((?:feature|probability`?|heat|color|foreground)\s+)?maps?\b"
    r"(?!\(|\s(?:[(`]|(?:an?|all|dotted|each|every|installed|its|keys|names|packages|the)\b))"
)
_PATTERNS = {re.compile(word.replace(" ", r"[\s#]+"), re.IGNORECASE): better for word, better in RETIRED.items()}
_MAP = re.compile(MAP, re.IGNORECASE)
# Lines, that which names 0.1 included, in which its names may stand.
NEAR = 7
_STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def files() -> list[Path]:
    kinds = (".py", ".md", ".yaml", ".html", ".ipynb")
    inside = [path for path in sorted(PACKAGE.rglob("*")) if path.suffix in kinds]
    return [*inside, *sorted(PRESETS.glob("*.yaml")), README, ROOT / "CHANGELOG.md"]


def prose(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """The parts of a file that people read as sentences, with the lines that they begin in."""
    if path.suffix == ".py":
        if _MAP.search(text) is None:  # tokens take time
            return
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in _STRINGS:
                yield token.start[0], token.string
    elif path.suffix == ".md":
        yield 1, _without_code(text)
    elif path.suffix in (".yaml", ".html"):
        yield 1, text


def _without_code(text: str) -> str:
    """Markdown in which blocks and spans of code are empty, in as many lines."""
    return re.sub(r"^ *```.*?^ *```|`[^`]*`", lambda code: "\n" * code[0].count("\n"), text, flags=re.M | re.S)


def findings(path: Path, text: str) -> Iterator[str]:
    """`file:line: what is there -> what to write`."""
    lines = text.splitlines()
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    whole = _without_code(text) if path.name == "CHANGELOG.md" else text  # which says what had other names
    parts = [(1, whole, pattern, better) for pattern, better in _PATTERNS.items()]
    parts += [(line, part, _MAP, "prediction") for line, part in prose(path, text)]
    for first, part, pattern, better in parts:
        for found in pattern.finditer(part):
            line = first + part.count("\n", 0, found.start())
            if found.lastindex or any("0.1" in each.replace("_", ".") for each in lines[max(0, line - NEAR) : line]):
                continue
            yield f"{name}:{line}: {' '.join(found[0].split())!r} -> {better}"


@pytest.mark.parametrize("room", sorted({path.parent for path in files()}), ids=lambda path: path.name)
def test_no_word_that_is_retired(room: Path) -> None:
    """In no file of a folder: not in code, comments, strings or text."""
    found = [each for path in files() if path.parent == room for each in findings(path, path.read_text("utf-8"))]

    assert found == [], "\n" + "\n".join(found)


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_no_such_word_in_a_help(name: str) -> None:
    """As it is put together from settings and their choices."""
    command = dict(commands())[name]
    text = command.get_help(typer.Context(command, info_name=f"camox {name}"))
    found = [*findings(Path("help.md"), without_code(text)), *findings(Path("help.yaml"), text)]

    assert app
    assert found == [], "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.py", "# Each Picture.\n"),
        ("a.py", "shown_pictures = 3\n"),
        ("a.py", 'print(f"{count} maps")\n'),
        ("a.py", '"""A data\nset."""\n'),
        ("a.py", "# a data\n# set\n"),
        ("a.md", "The map of\nan image, `map`.\n"),
        ("a.md", "It is not\nthere.\n"),
        ("a.yaml", "# 30 images a second\n"),
        ("a.ipynb", '"mending"'),
    ],
)
def test_what_is_found(file: str, text: str) -> None:
    """In any case, over the end of a line, within a name."""
    assert len(list(findings(Path(file), text))) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.py", 'maps = list(map(str, [])) # map\nold = "data.generated_pictures"\n'),
        ("a.py", '"""Feature maps, a feature\n    map, a mapping, a probability map and a heat map; recommended."""\n'),
        ("a.md", "`--maps`\n```python\nmap\n```\n"),
        ("a.ipynb", '"map"'),
        ("a.py", '"""It maps each name to one, by a color map. The `probability` map maps (H, W) to bytes."""\n'),
        ("a.py", '_NAMES_OF_0_1 = {"pictures": "images"}\nold = "pictures"  # of 0.1\n'),
        ("CHANGELOG.md", "- `pictures` is now `images`.\n"),
    ],
)
def test_what_is_left(file: str, text: str) -> None:
    """Code may be called as it likes, where no word is retired as such; so may what has no better word."""
    assert list(findings(Path(file), text)) == []


def test_where_it_is_found() -> None:
    """The file, the line and what to write."""
    assert list(findings(ROOT / "README.md", "one\ntwo\nan old picture\n")) == ["README.md:3: 'picture' -> image"]
