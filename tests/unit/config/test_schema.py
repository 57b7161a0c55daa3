from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from camoxpert_cli.config.parse import parse_duration, parse_interval
from camoxpert_cli.config.schema import SECTIONS, SETTINGS, Config, Setting, field_of, setting
from camoxpert_cli.config.values import convert

every_setting = pytest.mark.parametrize("row", SETTINGS.values(), ids=SETTINGS.keys())


def test_every_field_of_every_section_is_a_setting() -> None:
    """The table of settings and the dataclasses hold the same names, section by section."""
    written = [f"{section.name}.{item.name}" for section in fields(Config) for item in fields(SECTIONS[section.name])]

    assert [f"{each.section}.{field_of(each.name)}" for each in SETTINGS.values()] == written
    assert "run.continue" in SETTINGS  # a keyword of Python, so that its field has another name
    assert len(written) > 30


@every_setting
def test_every_setting_has_help(row: Setting) -> None:
    """Help is one line that does not end as a sentence does, for it stands in a table."""
    assert row.help.strip()
    assert "\n" not in row.help
    assert not row.help.endswith(".")


def test_flags_are_unique() -> None:
    """A flag is its setting's name alone, so no two sections share a name."""
    flags = [row.flag for row in SETTINGS.values()]

    assert len(set(flags)) == len(flags)
    assert SETTINGS["train.stage2_lr"].flag == "--stage2-lr"


@every_setting
def test_every_default_is_a_value_its_setting_accepts(row: Setting) -> None:
    """A default passes the same check as a value that someone typed, and comes out unchanged."""
    assert convert(row, row.default) == row.default
    assert row.of(Config()) == row.default


def test_a_row_carries_what_the_schema_says() -> None:
    """Type, bounds, check and the original program's default reach the table."""
    workers, rate = SETTINGS["data.num_workers"], SETTINGS["train.lr"]

    assert (workers.low, workers.high, workers.default, workers.original) == (0, 256, "auto", "4")
    assert (rate.type, rate.low, rate.high, rate.default) == (float, 0, None, 6.5e-4)
    assert SETTINGS["run.session_limit"].parse is parse_duration
    assert SETTINGS["run.save_every"].parse is parse_interval


def test_setting_keeps_its_default_apart_from_its_description() -> None:
    """What `setting` makes is a dataclass field, with all but the default in its metadata."""
    item = setting(3, "how many", low=1, high=5, original="4")

    assert item.default == 3
    assert dict(item.metadata) == {
        "help": "how many",
        "low": 1,
        "high": 5,
        "parse": None,
        "original": "4",
        "stands_for": "",
        "fitted": False,
    }


def test_a_config_cannot_be_changed() -> None:
    """A checked configuration stays as it was checked."""
    config = Config()

    with pytest.raises(FrozenInstanceError):
        config.train.epochs = 3  # type: ignore[misc]
