"""One game of a rollout: what is said and earned in it, and what ends it. Whatever its environment does, it costs no other game."""

import logging
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from boost_trl.data.trajectories import REWARD_LIMIT

from .base import Environment, Task
from .time_limit import time_limit


logger = logging.getLogger(__name__)

GAME_COLUMNS = {
    "messages",
    "rewards",
    "terminated",
    "category",
    "source",
    "task",
    "score",
    "success",
    "seed",
    "error",
    "invalid_actions",
}
_STEP_INFO = {"valid", "step", "task_id"}
# Where code lies that is not the user's.
_INSTALLED = (
    str(Path(__file__).parents[1]),
    *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
    "<",
)


@dataclass
class Game:
    """A game of `task`; `step_timeout` limits the seconds of each call of its environment."""

    task: Task
    seed: int
    step_timeout: float | None = None
    env: Any = None  # an `Environment`, while it is played
    messages: list[dict[str, str]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    info: Mapping[str, Any] = field(default_factory=dict)
    invalid_actions: int = 0
    terminated: bool = False
    cut: bool = False
    over: bool = False
    error: str | None = None

    def start(self, make: Callable[[], Environment], system_prompt: bool) -> None:
        """Begin, in the environment that `make` gives."""
        try:
            with time_limit(self.step_timeout, "the start of the environment"):
                self.env = make()
                if system_prompt and self.env.system_prompt:
                    self.messages.append({"role": "system", "content": self.env.system_prompt})
                observation, info = self.env.reset(seed=self.seed, task=self.task)
            _check_answer(observation, info)
            self.messages.append({"role": "user", "content": observation})
            self.info = info
        except (Exception, SystemExit) as error:
            self._fail(error)

    def act(self, action: str, max_turns: int | None) -> None:
        """Take one action."""
        try:
            with time_limit(self.step_timeout, "a step of the environment"):
                observation, reward, terminated, truncated, info = self.env.step(action)
            _check_answer(observation, info)
            reward = _number(reward, "reward")
            terminated, truncated = _flag(terminated, "terminated"), _flag(truncated, "truncated")
            if terminated or truncated:
                _number(info.get("score", 0.0), "info['score']")
        except (Exception, SystemExit) as error:
            self._fail(error)
            return
        self.messages.append({"role": "assistant", "content": action})
        self.rewards.append(reward)
        self.info, self.terminated = info, terminated
        self.invalid_actions += not info.get("valid", True)
        self.cut = not (terminated or truncated) and len(self.rewards) == max_turns
        self.over = terminated or truncated or self.cut
        if not terminated:
            self.messages.append({"role": "user", "content": observation})

    def leave(self) -> list[Environment]:
        """Give back the environment, if another game can use it: one that raised may be in any state."""
        env, self.env = self.env, None
        if self.error is None:
            return [env]
        close(env, self.step_timeout)
        return []

    def _fail(self, error: BaseException) -> None:
        # One broken game must not cost the others; the row says what happened.
        logger.debug("a game ended in an error", exc_info=error)
        self.over, self.terminated, self.error = True, False, f"{type(error).__name__}: {error}{_place(error)}"

    def row(self, source: str) -> dict[str, Any]:
        """The game in the trajectory format, with every plain value of its last info."""
        ended = self.error is None and not self.cut
        extra = {
            key: value
            for key, value in self.info.items()
            if isinstance(key, str) and key not in GAME_COLUMNS | _STEP_INFO and _is_plain(value)
        }
        return {
            "messages": self.messages,
            "rewards": self.rewards,
            "terminated": self.terminated,
            "category": self.task.category,
            "source": source,
            "task": self.task.to_dict(),
            "score": float(self.info.get("score", sum(self.rewards))) if ended else None,
            "success": bool(self.info.get("success", False)) if ended else None,
            "seed": self.seed,
            "invalid_actions": self.invalid_actions,
            "error": self.error,
            **extra,
        }


def close(env: Environment | None, step_timeout: float | None) -> None:
    """Close an environment; one that cannot be closed costs nothing but a warning."""
    if env is None:  # it could not be made
        return
    try:
        with time_limit(step_timeout, "closing"):
            env.close()
    except (Exception, SystemExit) as error:
        logger.warning("an environment could not be closed: %s: %s", type(error).__name__, error)


def _place(error: BaseException) -> str:
    """` (my_env.py:30)`, the last line of the user's own code that led to the error; `""` if there is none."""
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [f" ({Path(file).name}:{line})" for file, line in lines if not file.startswith(_INSTALLED)]
    return own[-1] if own else ""


def _check_answer(observation: Any, info: Any) -> None:
    if not isinstance(observation, str):
        raise ValueError(f"the environment's observation is {observation!r}; it must be text")
    if not isinstance(info, Mapping):
        raise ValueError(f"the environment's info is {info!r}; it must be a dict")


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) < REWARD_LIMIT:  # type: ignore[operator]
        raise ValueError(f"the environment's {name} is {value!r}; it must be a number below {REWARD_LIMIT:g} in size")
    return float(value)


def _flag(value: Any, name: str) -> bool:
    if value not in (True, False):
        raise ValueError(f"the environment's {name} is {value!r}; it must be True or False")
    return bool(value)


def _is_plain(value: Any) -> bool:
    """Whether a column of a table holds it."""
    return isinstance(value, str | float) or (isinstance(value, int) and -(2**63) <= value < 2**63)
