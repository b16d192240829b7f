"""A comparison's report: a table on the terminal, JSON, and a page with table, findings and pictures."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        pictures (`list[str]`, *optional*): Markdown that refers to files of the folder.
    """

    title: str
    rows: list[dict[str, Any]]
    results: Sequence[Result]
    columns: dict[str, Callable[[dict[str, Any]], str]]
    findings: list[str]
    settings: dict[str, Any]
    notes: str
    pictures: list[str] = field(default_factory=list)

    def table(self) -> list[list[str]]:
        """Header and cells, as text."""
        return [list(self.columns), *([cell(row) for cell in self.columns.values()] for row in self.rows)]

    def page(self) -> str:
        """The report as Markdown."""
        parts = [
            f"# {self.title}: methods compared",
            markdown_table(self.table()),
            "\n".join(f"- {line}" for line in self.findings),
            *self.pictures,
            "Settings: " + ", ".join(f"`{name}={value}`" for name, value in self.settings.items()) + ".",
            self.notes,
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def print(self) -> None:
        """Table and findings on the terminal."""
        print(f"\n{text_table(self.table())}\n")
        print("\n".join(self.findings))

    def write(self, folder: Path) -> None:
        """`results.json` (one object per method), `runs.json` (one per cell) and the page."""
        write_whole(folder / "results.json", json.dumps(self.rows, indent=2) + "\n")
        write_whole(folder / "runs.json", json.dumps([run.to_dict() for run in self.results], indent=2) + "\n")
        write_page(folder, self.title, self.page())


def write_page(folder: Path, title: str, text: str) -> None:
    """Write Markdown as `report.md` and, in one file with the pictures of `folder`, as `report.html`."""
    write_whole(folder / "report.md", text)
    write_whole(folder / "report.html", html_page(title, markdown_to_html(text, folder)))
