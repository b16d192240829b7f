"""Rows of largest and smallest weight side by side, with rewards and invalid actions ([B] Table 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from boost_trl.analysis.pictures import times
from boost_trl.analysis.row_actions import contradictions, play_again
from boost_trl.analysis.run_files import Run
from boost_trl.analysis.sections import Section
from boost_trl.environments.base import Environment
from boost_trl.html_page import TEMPLATES, escape_markdown
from boost_trl.trainer.common.weight_files import ROW_NUMBER


SHOWN = 6
LONGEST_TURN = 1200
_ABOUT = ("source", "category", "kind", "noise_kind")


@dataclass(frozen=True)
class Turn:
    """A turn of a row.

    Args:
        role (`str`), text (`str`): who says what.
        reward (`str`, *optional*): of an action.
        is_valid (`bool`, *optional*): whether the environment accepts the action; `None` if it is not known.
        weight (`str`, *optional*): of the action, where turns were weighed.
        truth (`str`, *optional*): what the environment says or pays instead.
    """

    role: str
    text: str
    reward: str | None = None
    is_valid: bool | None = None
    weight: str | None = None
    truth: str | None = None


@dataclass(frozen=True)
class ShownRow:
    """A row as the page shows it.

    Args:
        index (`int`): number of the row in the training data.
        weight (`str`), about (`str`): in words.
        turns (`list[Turn]`): what it says.
        is_checked (`bool`): whether the environment could say what is true.
    """

    index: int
    weight: str
    about: str
    turns: list[Turn]
    is_checked: bool = False


def extreme_rows(run: Run, env: Environment | None = None) -> Section | None:
    """The rows at both ends; `None` if nothing was learned.

    Args:
        run (`Run`): whose.
        env ([`Environment`], *optional*): says which actions are invalid, of rows with a `task`.

    Raises:
        ValueError: if no row was saved.
    """
    if not run.is_learned:
        return None
    rows = run.extreme_rows()
    if not rows:
        raise ValueError("the rows at both ends were not saved; `trainer.save_model()` of this version saves them")
    count = min(SHOWN, len(rows) // 2)
    ends = rows[:count], rows[::-1][:count]
    sides, note = _sides(run, ends, env)
    titles = f"The {count} that count most", f"The {count} that count least"
    html = TEMPLATES.get_template("extreme_rows.html.jinja").render(sides=list(zip(titles, sides)))
    numbers: dict[str, Any] = {name: [asdict(row) for row in side] for name, side in zip(("highest", "lowest"), sides)}
    numbers["invalid_actions"] = [_invalid(side) for side in sides]
    numbers["contradicted_rows"] = [_contradicted(side) for side in sides]
    finding = _finding(run, ends, sides)
    text = f"**Here:** {finding}\n\nWeights are relative to the equal weight, 1×. {note}"
    return Section("The rows that count most, and least", "extreme_rows", text, numbers, html=html, finding=finding)


def _sides(
    run: Run, ends: Sequence[Sequence[Mapping[str, Any]]], env: Environment | None
) -> tuple[list[list[ShownRow]], str]:
    """The rows of both ends as they are shown, and a sentence on what marks them."""
    weight_of, turns_of = dict(zip(run.table["index"].tolist(), run.weights.tolist())), run.turn_weights or {}

    def show(env: Environment | None) -> list[list[ShownRow]]:
        return [
            [_shown(row, weight_of[row[ROW_NUMBER]], turns_of.get(row[ROW_NUMBER], []), env) for row in side]
            for side in ends
        ]

    if env is None:
        return show(None), ""
    try:
        return show(env), (
            "In red: actions that the environment does not accept when it is played again from the row's task, and what it says "
            "where the row says something else."
        )
    except ValueError as error:
        return show(None), f"Invalid actions are not marked: {escape_markdown(str(error))}."


def _finding(run: Run, rows: tuple[list[dict], list[dict]], sides: Sequence[Sequence[ShownRow]]) -> str:
    """The two ends in a sentence: weights, returns, invalid actions."""
    table = run.table.assign(weight=run.weights).set_index("index")
    sides_of_table = [table.loc[[row[ROW_NUMBER] for row in side]] for side in rows]
    weights = [side["weight"].mean() for side in sides_of_table]
    words = [
        f"the {len(rows[0])} highest rows count {times(weights[0])}, the {len(rows[1])} lowest {times(weights[1])}"
    ]
    if "return" in table:
        means = [side["return"].mean() for side in sides_of_table]
        words.append(f"their mean returns are {means[0]:.1f} and {means[1]:.1f}".replace("-", "−"))
    invalid = [_invalid(side) for side in sides]
    if _differ(invalid):
        parts = [f"{bad} of {known}" for bad, known in invalid]
        words.append(f"{parts[0]} and {parts[1]} of their actions are invalid")
    contradicted = [_contradicted(side) for side in sides]
    if _differ(contradicted):
        parts = [f"{bad} of {known}" for bad, known in contradicted]
        words.append(f"{parts[0]} and {parts[1]} of the rows say what the environment contradicts")
    text = "; ".join(words) + "."
    return text[0].upper() + text[1:]


def _differ(counts: Sequence[tuple[int, int]]) -> bool:
    """Whether two pairs of a count and the number that it is of are known, and are not the same share."""
    (first, of_first), (second, of_second) = counts
    return bool(of_first and of_second) and first * of_second != second * of_first


def _invalid(side: Sequence[ShownRow]) -> tuple[int, int]:
    """Invalid actions, and actions of which it is known."""
    known = [turn.is_valid for row in side for turn in row.turns if turn.is_valid is not None]
    return known.count(False), len(known)


def _contradicted(side: Sequence[ShownRow]) -> tuple[int, int]:
    """Rows that the environment contradicts, and rows of which it is known."""
    checked = [row for row in side if row.is_checked]
    return sum(any(turn.truth is not None for turn in row.turns) for row in checked), len(checked)


def _shown(row: Mapping[str, Any], weight: float, turn_weights: Sequence[float], env: Environment | None) -> ShownRow:
    rewards, valid = iter(row.get("rewards") or []), iter(() if env is None else play_again(env, row))
    weights = map(times, turn_weights)
    truths = None if env is None else contradictions(env, row)
    shown = []
    for place, (role, text) in enumerate(_turns(row)):
        is_action = role == "assistant"
        reward = next(rewards, None) if is_action else None
        shown.append(
            Turn(
                role=role,
                text=text if len(text) <= LONGEST_TURN else text[: LONGEST_TURN - 1] + "…",
                reward=None if reward is None else f"{reward:g}".replace("-", "−"),
                is_valid=next(valid, None) if is_action else None,
                weight=next(weights, None) if is_action else None,
                truth=(truths or {}).get(place),
            )
        )
    about = [f"row {row[ROW_NUMBER]}", *(str(row[name]) for name in _ABOUT if row.get(name))]
    if row.get("rewards"):
        about.append(f"return {sum(row['rewards']):g}".replace("-", "−"))
    return ShownRow(row[ROW_NUMBER], times(weight), " · ".join(about), shown, is_checked=truths is not None)


def _turns(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(role, text) of a row in any of TRL's formats; of a preference pair `chosen` and `rejected` are roles."""
    if row.get("messages") is not None:
        return _messages(row["messages"], "")
    parts = {"prompt": "user", "completion": "assistant", "chosen": "chosen", "rejected": "rejected"}
    turns = [turn for name, role in parts.items() if row.get(name) is not None for turn in _messages(row[name], role)]
    return turns or [(name, value) for name, value in row.items() if isinstance(value, str) and name not in _ABOUT]


def _messages(part: str | Sequence[Mapping[str, Any]], role: str) -> list[tuple[str, str]]:
    """A text is of `role`; the turns of a list have their own, but for the answers of a pair."""
    if isinstance(part, str):
        return [(role, part)]
    is_answer = role in ("chosen", "rejected")
    return [(role if is_answer else turn["role"], _text(turn["content"])) for turn in part]


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.get("text") or f"[{part.get('type')}]" for part in content)
