"""A game of the policy that a comparison keeps, for the terminal and the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet
from markupsafe import Markup

from boost_trl.analysis.run_files import ROLLOUTS_NAME
from boost_trl.html_page import TEMPLATES


_LONGEST_TURN = 600
_SPEAKERS = {"assistant": "agent", "user": "world", "tool": "world"}


def shown_game(run_folder: Path) -> dict[str, Any] | None:
    """Of a cell's reported games that were solved, or of all if none was, one of median score, that with the most different
    actions; `None` if none was saved."""
    path = run_folder / ROLLOUTS_NAME
    games = pyarrow.parquet.read_table(path).to_pylist() if path.is_file() else []
    among = [game for game in games if game["success"]] or games
    if not among:
        return None
    scores = sorted(game["score"] or 0 for game in among)
    of_median = [game for game in among if (game["score"] or 0) == scores[len(scores) // 2]]
    return max(
        of_median, key=lambda game: len({turn["content"] for turn in game["messages"] if turn["role"] == "assistant"})
    )


def game_text(game: Mapping[str, Any]) -> str:
    """A game as lines of text."""
    lines = [_title(game)]
    for message in game["messages"]:
        lines.append(f"  {_SPEAKERS.get(message['role'], message['role'])}: {message['content']}")
    lines.append(f"  {'solved' if game['success'] else 'not solved'}, score {game['score'] or 0:g}")
    return "\n".join(lines)


def game_html(game: Mapping[str, Any]) -> Markup:
    """A game as a chat."""
    turns = [
        (message["role"], text if len(text) <= _LONGEST_TURN else text[: _LONGEST_TURN - 1] + "…")
        for message in game["messages"]
        if (text := message["content"])
    ]
    rendered = TEMPLATES.get_template("game.html.jinja").render(
        turns=turns, success=game["success"], score=f"{game['score'] or 0:g}"
    )
    return Markup(rendered)


def _title(game: Mapping[str, Any]) -> str:
    task = game.get("task")
    return f"task {task['id']!r} of the held-out category {task['category']!r}:" if task else "on a held-out task:"
