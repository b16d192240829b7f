"""A comparison's report: a table on the terminal, JSON, and a page with table, findings and pictures."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from boost_trl.comparison.results import Result
from boost_trl.files import write_whole
from boost_trl.html_page import html_page, markdown_to_html
from boost_trl.tables import markdown_table, text_table


@dataclass
class Report:
    """Lines and pictures of a comparison's report.

    Args:
        title (`str`): of the page.
        rows (`list[dict]`): one object per method, for `results.json`.
        results (`Sequence[Result]`): of every cell, for `runs.json`.
        columns (`dict[str, Callable]`): header to a function of a row that gives the cell's text.
        findings (`list[str]`): what the numbers say, negatives included.
        settings (`dict`): what all cells share.
        notes (`str`): what the columns mean.
        verdict (`str`, *optional*): the outcome in a few sentences, for the top of the page.
        sections (`list[str]`, *optional*): what is between verdict and table: Markdown that refers to pictures of the folder, and
            `Markup`, which is HTML and in `report.html` only.
        about (`dict[str, str]`, *optional*): what each method does, by its label.
    """

    title: str
    rows: list[dict[str, Any]]
    results: Sequence[Result]
    columns: dict[str, Callable[[dict[str, Any]], str]]
    findings: list[str]
    settings: dict[str, Any]
    notes: str
    verdict: str = ""
    sections: list[str] = field(default_factory=list)
    about: Mapping[str, str] = field(default_factory=dict)

    def table(self) -> list[list[str]]:
        """Header and cells, as text."""
        return [list(self.columns), *([cell(row) for cell in self.columns.values()] for row in self.rows)]

    def parts(self) -> list[str]:
        """The page from top to bottom, Markdown and `Markup`."""
        return [
            f"# {self.title}",
            self.verdict,
            *self.sections,
            "## All ways of training",
            markdown_table(self.table()),
            self.notes,
            "\n".join(f"- **{label}**: {what}." for label, what in self.about.items()),
            "## What the numbers say" if self.findings else "",
            "\n".join(f"- {line}" for line in self.findings),
            "## Settings",
            ", ".join(f"`{name}={value}`" for name, value in self.settings.items()) + ".",
        ]

    def print(self) -> None:
        """Table and findings on the terminal."""
        print(f"\n{text_table(self.table())}\n")
        print("\n".join(self.findings))

    def write(self, folder: Path) -> None:
        """`results.json` (one object per method), `runs.json` (one per cell) and the page."""
        write_whole(folder / "results.json", json.dumps(self.rows, indent=2) + "\n")
        write_whole(folder / "runs.json", json.dumps([run.to_dict() for run in self.results], indent=2) + "\n")
        write_page(folder, self.title, *self.parts())


def write_page(folder: Path, title: str, *parts: str) -> None:
    """Write Markdown as `report.md` and, in one file with the pictures of `folder`, as `report.html`, which alone has the parts
    that are `Markup`."""
    text = "\n\n".join(part for part in parts if part and not isinstance(part, Markup))
    write_whole(folder / "report.md", text.rstrip("\n") + "\n")
    shown = [part if isinstance(part, Markup) else markdown_to_html(part, folder) for part in parts]
    write_whole(folder / "report.html", html_page(title, *shown))
