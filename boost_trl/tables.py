"""Tables as text: aligned for the terminal, or Markdown."""

from collections.abc import Sequence


MISSING = "–"
_RULES = {"l": "---", "r": "---:"}


def number(value: float | None, style: str = ".2f") -> str:
    """`value` in a format such as `".2f"`; a dash for `None`."""
    return MISSING if value is None else format(value, style)


def plus_minus(mean: float, error: float, style: str = ".2f") -> str:
    """Mean ± error, both with as many digits; a sign in `style` is for the mean only."""
    return f"{mean:{style}} ± {error:{style.lstrip('+')}}"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """`rows`, of which the first is the header, with aligned columns; the first column is aligned to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(rows: Sequence[Sequence[str]], alignment: str | None = None) -> str:
    """`rows` as Markdown.

    Args:
        rows (`Sequence[Sequence[str]]`): the first is the header. Line breaks become spaces, and `|` is escaped.
        alignment (`str`, *optional*): one `l` (left) or `r` (right) per column; by default all but the first are aligned to
            the right.
    """
    alignment = alignment or "l" + "r" * (len(rows[0]) - 1)
    lines = [[_cell(cell) for cell in row] for row in rows]
    lines.insert(1, [_RULES[letter] for letter in alignment])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.splitlines()).replace("|", "\\|")
