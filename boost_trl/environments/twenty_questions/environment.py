"""Twenty Questions as an environment: the agent asks, an answerer that knows the secret says yes or no."""

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

from boost_trl.environments.base import Task, check_task
from boost_trl.environments.twenty_questions.reward import REWARDS, score, step_reward, terminal_reward
from boost_trl.environments.twenty_questions.small_world import small_world
from boost_trl.environments.twenty_questions.synthetic_rules import TwentyQuestionsRules
from boost_trl.environments.twenty_questions.world import Item, World


Answerer = Callable[[str, str], str]


class TwentyQuestions:
    r"""Guess a hidden item by yes/no questions; a guess is a question like any other.

    The score is the paper's: questions remaining at success, `max_questions - n` for a success with question n, and 0
    for a failure. A wrong guess ends nothing; the game is over when the item is guessed or all questions are asked.
    Text that is no question the answerer knows is answered with no, costs a question, and has `info["valid"] = False`.

    Args:
        world (`str` or `World`, *optional*, defaults to `"small"`): `"small"` (12 categories × 16 numbered items,
            category announced: a tiny model learns it from zero), `"full"` (17 categories of everyday objects, nothing
            announced: the paper's game) or a world.
        seed (`int`, *optional*, defaults to `0`): Which small world; the full world is one.
        max_questions (`int`, *optional*): Questions per game; 12 in the small world and 20 in the full one unless
            given.
        reward (`str`, *optional*, defaults to `"step_cost"`): `"step_cost"`: −1 per question, 0 for the one that
            guesses the item, so that every failure sums to −max_questions. `"score"`: 0 until success, then the score.
        answerer (`Callable[[str, str], str]`, *optional*): `answerer(question, item_name)` returns text that starts
            with yes or no; anything else counts as no. The table answers unless given. See [`ChatAnswerer`] for a chat
            model.
        oracle (*optional*): the old name of `answerer`.

    Raises:
        ValueError: for an unknown world, reward or task.
    """

    name = "twenty_questions"

    def __init__(
        self,
        world: Literal["small", "full"] | World = "small",
        seed: int = 0,
        max_questions: int | None = None,
        reward: Literal["step_cost", "score"] = "step_cost",
        answerer: Answerer | None = None,
        oracle: Answerer | None = None,
    ):
        if reward not in REWARDS:
            raise ValueError(f"`reward` must be 'step_cost' or 'score', got {reward!r}")
        if oracle is not None:
            warnings.warn("`oracle` is now called `answerer`", FutureWarning, stacklevel=2)
            answerer = oracle
        if isinstance(world, World):
            self.world = world
        elif world == "small":
            self.world = small_world(seed)
        elif world == "full":
            from boost_trl.environments.twenty_questions.full_world import full_world

            self.world = full_world()
        else:
            raise ValueError(f"`world` must be 'small', 'full' or a World, got {world!r}")
        self.max_steps = max_questions or self.world.max_questions
        self.reward = reward
        self.answerer = answerer
        self.system_prompt = self.world.system_prompt
        self._tasks = tuple(Task(id=item.id, category=item.category) for item in self.world.items)
        self._secret: Item | None = None

    def tasks(self, categories: Sequence[str] | None = None) -> Sequence[Task]:
        """One task per item, in the world's order, or those of `categories`."""
        if categories is None:
            return self._tasks
        unknown = sorted(set(categories) - set(self.world.categories))
        if unknown:
            raise ValueError(f"unknown categories {unknown}; the world has {list(self.world.categories)}")
        return tuple(task for task in self._tasks if task.category in set(categories))

    def reset(self, *, seed: int | None = None, task: Task | str | None = None) -> tuple[str, dict[str, Any]]:
        """Start a game about `task`, or about an item drawn with `seed`: (first observation, info).

        Raises:
            ValueError: for a task that the world does not have, or what is no task.
        """
        check_task(task)
        if task is None:
            task = random.Random(seed).choice(self._tasks)
        task_id = task if isinstance(task, str) else task.id
        if task_id not in self.world.index_of:
            raise ValueError(f"unknown task {task_id!r}; ids look like {self._tasks[0].id!r}")
        secret = self._secret = self.world.items[self.world.index_of[task_id]]
        self._step = 0
        return self.world.observation(secret.category), self._info(secret, valid=True)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Answer one question: (answer, reward, terminated, truncated, info)."""
        if self._secret is None:
            raise RuntimeError("no game is running: call reset() first")
        self._step += 1
        action = action if isinstance(action, str) else ""
        question, named = self.world.read(action)
        if self.answerer is None:
            valid = question is not None or bool(named)
            answer = self.world.answer(action, self._secret)
        else:
            valid = bool(action.strip())
            is_yes = self.answerer(action, self._secret.names[0]).strip().lower().startswith("yes")
            answer = self.world.reply(action, is_yes)
        # As in LMRL-Gym, an answerer's wrong "no" to the right guess is no win, and neither is "yes" to a vague one.
        success = answer == self.world.yes and self.world.names(action, self._secret)
        terminated = success or self._step == self.max_steps
        reward = step_reward(self.reward)
        info = self._info(self._secret, valid)
        if terminated:
            reward = terminal_reward(self.reward, self._step, success, self.max_steps)
            info |= {"success": success, "score": score(self._step, success, self.max_steps)}
            self._secret = None
        return answer, reward, terminated, False, info

    def admissible_actions(self) -> None:
        """Actions are free text."""
        return None

    def close(self) -> None:
        """End the game, if one is running."""
        self._secret = None

    def synthetic_rules(self) -> TwentyQuestionsRules:
        """The rules that `generate_synthetic` follows."""
        return TwentyQuestionsRules(self.world, self.max_steps, self.reward)

    def _info(self, secret: Item, valid: bool) -> dict[str, Any]:
        return {"valid": valid, "task_id": secret.id, "category": secret.category, "step": self._step}
