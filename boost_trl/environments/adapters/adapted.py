"""Base of environments of other libraries: tasks, step counts, the end and its info."""

import asyncio
import copy
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

from ..base import Task, check_task


class AdaptedEnvironment(ABC):
    """An [`~boost_trl.environments.base.Environment`] around an object of another library.

    A copy makes an object of its own, so that games played at the same time do not meet. The score is the sum of the
    rewards. An action that `_read` refuses is a no-op that counts as a step.

    Args:
        make (`Callable[[], Any]`): makes the object that is played with, when the first game starts.
        name (`str`): of the environment.
        tasks (list of `Task`): at least one; ids are unique.
        max_steps (`int`): actions after which the episode is cut.
        system_prompt (`str`): rules and action grammar.

    Raises:
        ValueError: for no tasks, two tasks of one id, or `max_steps` below 1.
    """

    def __init__(
        self, make: Callable[[], Any], *, name: str, tasks: Sequence[Task], max_steps: int, system_prompt: str
    ):
        self._tasks = {task.id: task for task in tasks}
        if len(self._tasks) != len(tasks) or not tasks:
            raise ValueError(f"{name} needs at least one task and ids that differ, got {len(tasks)} tasks")
        if max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1, got {max_steps}")
        self.name, self.max_steps, self.system_prompt = name, max_steps, system_prompt
        self._make = make
        self._inner: Any = None
        self._over = True

    def __deepcopy__(self, memo: dict) -> "AdaptedEnvironment":
        clone = copy.copy(self)
        clone._inner, clone._over = None, True
        return clone

    @abstractmethod
    def _start(self, task: Task, seed: int | None) -> str:
        """Reset `self._inner`: the first observation."""

    @abstractmethod
    def _read(self, action: str) -> Any:
        """The text as an action of `self._inner`; `ValueError` if it is none."""

    @abstractmethod
    def _do(self, action: Any) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take the step: (observation, reward, terminated, truncated, info). The last info may have `success`."""

    def _last_reward(self) -> float:
        """Paid when the episode is over, on top of the last step's."""
        return 0.0

    @abstractmethod
    def _close(self) -> None:
        """Release `self._inner`."""

    def tasks(self, categories: Sequence[str] | None = None) -> Sequence[Task]:
        """All tasks, or those of `categories`, in a fixed order.

        Raises:
            ValueError: for a category without tasks.
        """
        known = dict.fromkeys(task.category for task in self._tasks.values())
        unknown = [category for category in categories or () if category not in known]
        if unknown:
            raise ValueError(f"{self.name} has no task of {unknown}; its categories are {', '.join(known)}")
        return [task for task in self._tasks.values() if categories is None or task.category in categories]

    def reset(self, *, seed: int | None = None, task: Task | str | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode of `task`, or of one drawn with `seed`: (first observation, info).

        Raises:
            ValueError: for an id that no task has, or what is no task.
        """
        check_task(task)
        if task is None:
            task = Random(seed).choice(list(self._tasks.values()))
        task_id = task if isinstance(task, str) else task.id
        if task_id not in self._tasks:
            raise ValueError(f"{self.name} has no task {task_id!r}; ids look like {next(iter(self._tasks))!r}")
        if self._inner is None:
            self._inner = self._make()
        self._task, self._step, self._return, self._over = self._tasks[task_id], 0, 0.0, False
        return self._start(self._task, seed), self._info(valid=True)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action: (observation, reward, terminated, truncated, info).

        Raises:
            RuntimeError: if the episode is over.
        """
        if self._over:
            raise RuntimeError("the episode is over: call reset() first")
        self._step += 1
        try:
            if not isinstance(action, str):
                raise ValueError(f"an action is text, not {type(action).__name__}")
            meaning = self._read(action)
        except ValueError as error:
            observation, reward, terminated, truncated, said = f"Invalid action: {error}", 0.0, False, False, {}
            valid = False
        else:
            observation, reward, terminated, truncated, said = self._do(meaning)
            valid = said.get("valid", True)
        truncated = truncated or (not terminated and self._step >= self.max_steps)
        self._over = terminated or truncated
        if self._over:
            reward += self._last_reward()
        self._return += reward
        info = {**said, **self._info(valid)}
        if self._over:
            info["score"] = self._return
            info["success"] = bool(said["success"]) if "success" in said else terminated and self._return > 0
        return observation, reward, terminated, truncated, info

    def admissible_actions(self) -> list[str] | None:
        """Actions are free text."""
        return None

    def close(self) -> None:
        """End the episode and release what it held; the next `reset` begins anew."""
        if self._inner is not None:
            self._close()
        self._inner, self._over = None, True

    def _info(self, valid: bool) -> dict[str, Any]:
        return {"valid": valid, "task_id": self._task.id, "category": self._task.category, "step": self._step}


def seeded_tasks(tasks: Sequence[Task] | int, category: str) -> list[Task]:
    """`tasks` as they are, or so many tasks that differ in their seed only."""
    if isinstance(tasks, int):
        return [Task(str(seed), category, data={"seed": seed}) for seed in range(tasks)]
    return list(tasks)


def wait_for(result: Any) -> Any:
    """`result`, or what it becomes if it has to be awaited.

    Everything is awaited in one loop of a thread of its own: a connection belongs to the loop that opened it, and a
    notebook runs a loop of its own already.
    """
    if not inspect.isawaitable(result):
        return result

    async def awaited() -> Any:
        return await result

    return asyncio.run_coroutine_threadsafe(awaited(), _loop()).result()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="boost_trl-environments", daemon=True).start()
    return loop
