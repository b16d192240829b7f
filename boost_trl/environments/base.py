"""The contract between an environment and everything that plays it, and the registry of names.

Text in, text out. A malformed action never raises: it is a no-op with `info["valid"] = False`. Stepping after the end
raises `RuntimeError`. `reset(seed=, task=)` determines the whole episode; no environment touches global random state.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

from boost_trl.environments.environment_file import load_from_file, names_file


_BUILT_IN = {
    "webshop": "boost_trl.environments.webshop.environment:WebShop",
    "car_dealer": "boost_trl.environments.car_dealer.environment:CarDealer",
    "twenty_questions": "boost_trl.environments.twenty_questions.environment:TwentyQuestions",
}
ENTRY_POINT_GROUP = "boost_trl.environments"


class AllGamesFailed(RuntimeError):
    """The environment raised an error in every game."""


@dataclass(frozen=True)
class Task:
    """One task of an environment, with all that it needs to replay it; JSON-serialisable.

    Args:
        id (`str`): unique within its environment.
        category (`str`): what splits are made by.
        prompt (`str`, *optional*): the task in words, where there is one.
        data (`dict`, *optional*): anything else the environment needs, JSON values only.
    """

    id: str
    category: str
    prompt: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_task(task: Any) -> None:
    """For `reset`, which starts an episode of a [`Task`], of the task with an id, or of one that it draws.

    Raises:
        ValueError: if `task` is none of these.
    """
    if task is not None and not isinstance(task, Task | str):
        raise ValueError(
            f"`task` is {task!r}; give a `Task` (one of `env.tasks()`) or its id; the dict of a dataset's column `task` "
            "becomes a `Task` by `boost_trl.environments.base.as_task`"
        )


def as_task(task: Task | dict[str, Any]) -> Task:
    """The task that a dataset's `task` column holds, with `data` as a struct or as JSON; a `Task` is returned as it is."""
    if isinstance(task, Task):
        return task
    if not isinstance(task, Mapping):
        raise ValueError(f"a task is a `Task`, its id or its dict, not {task!r}")
    known = {f.name for f in fields(Task)}
    task = {key: value for key, value in task.items() if key in known and value is not None}
    data = task.get("data", {})
    data = json.loads(data) if isinstance(data, str) else data
    # A dataset column holds the union of all tasks' fields, with none where a task has no such field.
    task["data"] = {key: value for key, value in data.items() if value is not None}
    if not {"id", "category"} <= task.keys():
        raise ValueError(f"a task needs `id` and `category`, but this one has only {sorted(task)}")
    return Task(**task)


@runtime_checkable
class Environment(Protocol):
    """One game at a time, in Gymnasium's order of return values.

    Attributes:
        name (`str`): the registered name.
        system_prompt (`str`): rules and action grammar, for prompting and for the first message; may be empty.
        max_steps (`int`): actions after which the episode is over.
    """

    name: str
    system_prompt: str
    max_steps: int

    def tasks(self, categories: Sequence[str] | None = None) -> Sequence[Task]:
        """All tasks, or those of `categories`, in a fixed order."""

    def reset(self, *, seed: int | None = None, task: Task | str | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode: (first observation, info). `task` is a `Task` or its id; without one, `seed` draws it."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """(observation, reward, terminated, truncated, info).

        `info` has `valid`, `task_id`, `category`, `step`, and at the end `success` and `score` (the paper's score).
        """

    def admissible_actions(self) -> list[str] | None:
        """The actions that may be taken now, or `None` when actions are free text."""

    def close(self) -> None:
        """Release what the episode holds."""


def opening_messages(env: Environment, observation: str) -> list[dict[str, str]]:
    """The messages before the first action: the system prompt, where there is one, and the first observation."""
    system = [{"role": "system", "content": env.system_prompt}] if env.system_prompt else []
    return [*system, {"role": "user", "content": observation}]


@cache
def _registered() -> dict[str, EntryPoint]:
    # Looking through all installed packages takes milliseconds, and a rollout makes hundreds of environments.
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def check_env(name: str, **kwargs) -> None:
    """Check that [`make_env`] knows the name and the options, without building the environment, which may take long.

    Raises:
        ValueError: as [`make_env`].
    """
    _factory(name, kwargs)


def make_env(name: str, **kwargs) -> Environment:
    """Build an environment by name: a built-in one, one that a package registers under the entry-point group
    `boost_trl.environments`, or `path/to/file.py:ClassName`, a class in a Python file, which is run.

    Raises:
        ValueError: if nothing is registered under `name`, or it has no option of a name in `kwargs`; the message lists
            what there is.
    """
    return _factory(name, kwargs)(**kwargs)


def _factory(name: str, kwargs: dict[str, Any]) -> Callable[..., Environment]:
    registered = _registered()
    if name in registered:
        factory = registered[name].load()
    elif names_file(name):
        factory = load_from_file(name)
    elif name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        factory = getattr(import_module(module), attribute)
    else:
        known = ", ".join(sorted({*_BUILT_IN, *registered}))
        raise ValueError(f"no environment is called {name!r}; known: {known}, or a class as file.py:ClassName")
    if kwargs:
        _check_options(name, factory, kwargs)
    return factory


def _check_options(name: str, factory: Callable[..., Environment], kwargs: dict[str, Any]) -> None:
    options = inspect.signature(factory).parameters
    if any(option.kind is option.VAR_KEYWORD for option in options.values()):
        return
    for given in kwargs:
        if given not in options:
            known = ", ".join(f"`{option}`" for option in options) or "none"
            raise ValueError(f"the environment {name!r} has no option `{given}`; its options: {known}")
