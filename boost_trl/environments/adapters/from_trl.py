"""Environments written for TRL's `environment_factory`, played in text."""

import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

from ..base import Task
from .adapted import AdaptedEnvironment, wait_for


_TOOL_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_BRACKETS = re.compile(r"\s*(\w+)\[(.*)\]\s*", re.DOTALL)
_HOW_TO_CALL = (
    'Each turn, call one tool, as name[argument] or {"name": ..., "arguments": {...}}. An answer without a call ends '
    "the game.\nTools:"
)


class TRLEnvironment(AdaptedEnvironment):
    """An environment written for TRL as one of ours, see [`from_trl_environment`]."""

    def __init__(
        self,
        factory: Callable[[], Any],
        rows: Iterable[Mapping[str, Any]],
        *,
        name: str | None = None,
        max_steps: int = 16,
        system_prompt: str | None = None,
        done: Callable[[Any], bool] | None = None,
        reward: Callable[[Any], float] | None = None,
    ):
        inner = factory()
        self._done = done
        self._reward = reward or _default_reward
        self._tools = [
            tool
            for tool, _ in inspect.getmembers(type(inner), inspect.isfunction)
            if tool not in ("reset", "get_reward") and not tool.startswith("_")
        ]
        if not self._tools:
            raise ValueError(f"{type(inner).__name__} has no public method, so there is no tool to call")
        name = name or type(inner).__name__
        self._rows = {str(row.get("task_id", index)): dict(row) for index, row in enumerate(rows)}
        # A row may hold what JSON cannot, such as images, so a task has its id only.
        tasks = [Task(task_id, str(row.get("category", name))) for task_id, row in self._rows.items()]
        if system_prompt is None:
            system_prompt = "\n".join([_HOW_TO_CALL, *(_describe(inner, tool) for tool in self._tools)])
        super().__init__(factory, name=name, tasks=tasks, max_steps=max_steps, system_prompt=system_prompt)

    def _start(self, task: Task, seed: int | None) -> str:
        row = self._rows[task.id]
        prompt = row.get("prompt", "")
        texts = [prompt] if isinstance(prompt, str) else [_as_text(message["content"]) for message in prompt]
        return "\n\n".join(text for text in texts if text) + _as_text(wait_for(self._inner.reset(**row)) or "")

    def _read(self, action: str) -> tuple[str, dict[str, Any]] | None:
        """(tool, arguments), or `None` for a text that calls none."""
        tagged = _TOOL_CALL.search(action)
        text = tagged[1].strip() if tagged else action.strip()
        if tagged or text.startswith("{"):
            call = _json(text)
            if not isinstance(call, dict) or not isinstance(call.get("arguments"), dict):
                raise ValueError('a call is {"name": ..., "arguments": {...}}')
            name, arguments = call.get("name"), call["arguments"]
        elif match := _BRACKETS.fullmatch(text):
            name, arguments = match.groups()
        else:
            return None
        if name not in self._tools:
            raise ValueError(f"there is no tool {name!r}; the tools are {', '.join(self._tools)}")
        tool = getattr(self._inner, name)
        if isinstance(arguments, str):
            arguments = _arguments(tool, arguments)
        try:
            inspect.signature(tool).bind(**arguments)
        except TypeError as error:
            raise ValueError(f"{name}: {error}") from None
        return name, arguments

    def _do(self, action: tuple[str, dict[str, Any]] | None) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action is None:
            return "", 0.0, True, False, {}
        name, arguments = action
        try:
            observation, said = _as_text(wait_for(getattr(self._inner, name)(**arguments))), {}
        except Exception as error:  # TRL shows the model what a tool raises, and goes on
            observation, said = json.dumps({"error": str(error)}), {"valid": False}
        return observation, 0.0, self._done is not None and bool(self._done(self._inner)), False, said

    def _last_reward(self) -> float:
        return float(wait_for(self._reward(self._inner)))

    def _close(self) -> None:
        """TRL's contract has nothing to release."""


def from_trl_environment(
    factory: Callable[[], Any],
    rows: Iterable[Mapping[str, Any]],
    *,
    name: str | None = None,
    max_steps: int = 16,
    system_prompt: str | None = None,
    done: Callable[[Any], bool] | None = None,
    reward: Callable[[Any], float] | None = None,
) -> TRLEnvironment:
    """Play an environment that was written for TRL's `environment_factory` with [`rollout`] and [`evaluate_policy`].

    An action is `name[argument]`, `{"name": ..., "arguments": {...}}` or the latter in `<tool_call>` tags. As under TRL,
    a text that calls no tool ends the episode, what a tool raises is shown to the player, and the reward is read once,
    at the end. Calls to unknown tools or with wrong arguments are no-ops. Asynchronous methods work.

    Args:
        factory (`Callable[[], Any]`): what `GRPOTrainer(environment_factory=...)` takes; one object per concurrent
            game, reset for each.
        rows (iterable of `dict`, such as a `Dataset`): the training dataset's rows, one task each. All columns go to
            `reset`, on which alone the game depends; the first observation is the texts of `prompt`, and what `reset`
            returns. `task_id` (else the row's number) and `category` (else the environment's name) describe the task.
        name (`str`, *optional*): defaults to the class's.
        max_steps (`int`, *optional*, defaults to `16`): calls after which the episode is cut, as
            `GRPOConfig.max_tool_calling_iterations` does.
        system_prompt (`str`, *optional*): defaults to the tools' signatures and docstrings.
        done (`Callable[[Any], bool]`, *optional*): whether the object's game is over. TRL has no such signal; without
            it an episode ends by an answer that calls no tool, or by `max_steps`.
        reward (`Callable[[Any], float]`, *optional*): defaults to `get_reward()`, else the attribute `reward`.

    Returns:
        `Environment`: its rewards are 0 until the last action, its score is the reward.

    Raises:
        ValueError: if there are no rows, two rows of one `task_id`, or no tools.

    Example:

    ```python
    >>> env = from_trl_environment(WordleEnv, dataset, done=lambda game: game.done)
    >>> evaluate_policy((model, tokenizer), env, env.tasks())
    ```
    """
    rows = list(rows)
    ids = [str(row["task_id"]) for row in rows if "task_id" in row]
    if len(set(ids)) != len(ids):
        raise ValueError("two rows have the same `task_id`; make them differ, or drop the column to use row numbers")
    return TRLEnvironment(
        factory, rows, name=name, max_steps=max_steps, system_prompt=system_prompt, done=done, reward=reward
    )


def _default_reward(inner: Any) -> Any:
    return inner.get_reward() if hasattr(inner, "get_reward") else inner.reward


def _describe(inner: Any, tool: str) -> str:
    method = getattr(inner, tool)
    return f"- {tool}{inspect.signature(method)}: {inspect.getdoc(method) or ''}"


def _arguments(tool: Callable, text: str) -> dict[str, Any]:
    """Arguments in the brackets: nothing, a JSON object of arguments, or the tool's only argument."""
    if not text.strip():
        return {}
    if text.lstrip().startswith("{"):
        return _json(text)
    names = list(inspect.signature(tool).parameters)
    if not names:
        raise ValueError("this tool takes no argument")
    # A text is taken as it is; a number, flag or list is what its JSON says.
    is_text = get_type_hints(tool).get(names[0], str) is str
    return {names[0]: text if is_text else _json(text)}


def _json(text: str) -> Any:
    """Value of a JSON text; `ValueError` for what is none, numbers that are not finite (which Python would read) included."""

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise ValueError(f"{number} is no finite number")
        return float(number)

    try:
        return json.loads(text, parse_constant=finite, parse_float=finite)
    except RecursionError:
        raise ValueError("too deeply nested") from None


def _as_text(content: Any) -> str:
    """Message content or a tool's result as text; of content blocks, those that are text."""
    if isinstance(content, list):
        return "\n".join(block["text"] for block in content if block.get("type") == "text")
    return str(content)
