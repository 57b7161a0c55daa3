"""Plain help that keeps flags whole at 80 columns and groups them by section."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

_UNGROUPED = "Options"


class SectionedCommand(TyperCommand):
    """Lists options under their `rich_help_panel`, in the order in which the command declares them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Names of arguments without the braces that Typer puts around those that must be given."""
        return [re.sub(r"^\{(.*)\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = _UNGROUPED
                if parameter.param_type_name == "argument":
                    title, record = "Arguments", (record[0].partition(" <")[0], record[1])  # without Python's type
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
