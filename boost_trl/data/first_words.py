"""First words of a row's text, so that a table of weights says what it is about."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset


LENGTH = 80
_COLUMNS = ("messages", "prompt", "completion", "chosen", "text")


def first_words(row: Mapping[str, Any]) -> str:
    """The first 80 characters of a row's text, white space made single: of its messages without the system's, of prompt
    and completion or preferred answer, of `text`, or of the columns of text that it has; empty where it has none.

    Args:
        row (`Mapping`): in one of TRL's formats, or with other columns.
    """
    known = [row[name] for name in _COLUMNS if row.get(name) is not None]
    text, cut = "", False
    for piece in _pieces(known or [value for value in row.values() if isinstance(value, str)]):
        # A turn may be a book; no more of it than could show is looked at.
        start = " ".join(piece[: 4 * LENGTH].split())
        text = f"{text} {start}".strip()
        cut = cut or len(piece) > 4 * LENGTH
        if len(text) > LENGTH:
            break
    return text if len(text) <= LENGTH and not cut else text[: LENGTH - 1] + "…"


def first_words_of(dataset: Dataset) -> list[str]:
    """[`first_words`] of every row."""
    dataset = dataset.with_format(None)
    known = [name for name in _COLUMNS if name in dataset.column_names]
    return [first_words(row) for row in (dataset.select_columns(known) if known else dataset)]


def _pieces(values: Sequence[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
            continue
        turns = [turn for turn in value if isinstance(turn, Mapping)]
        for turn in [turn for turn in turns if turn.get("role") != "system"] or turns:
            content = turn.get("content")
            # Content in parts, some of which may be pictures.
            parts = [content] if isinstance(content, str) else [part.get("text") for part in content or []]
            yield from (part for part in parts if part)
