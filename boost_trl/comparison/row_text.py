"""Rows of a dataset as one line of text."""

from typing import Any


def text_of(turns: str | list[dict[str, str]]) -> str:
    """A prompt, completion or dialogue as text, from either of TRL's formats."""
    return turns if isinstance(turns, str) else "\n".join(str(turn["content"]) for turn in turns)


def shorten(text: str, limit: int = 120) -> str:
    """`text` on one line, of at most `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def row_text(row: dict[str, Any], limit: int = 120) -> str:
    """Prompt and answer of a row, each of at most `limit` characters, with an arrow between them.

    Args:
        row (`dict`): with `prompt` and `completion`, `messages` or `conversations`; of any other row the first text is taken.
        limit (`int`, *optional*, defaults to `120`): characters.
    """
    if "prompt" in row:
        parts = [row["prompt"], row["completion"]]
    elif turns := row.get("messages") or row.get("conversations"):
        parts = [turns[:-1], turns[-1:]]
    else:
        parts = [next(value for value in row.values() if isinstance(value, str))]
    return " → ".join(filter(None, (shorten(text_of(part), limit) for part in parts)))
