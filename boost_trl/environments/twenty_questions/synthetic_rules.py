"""Twenty Questions' rules for synthetic self-play: prompts, end and rewards of a dialogue, read off its text alone."""

import re
from typing import Any

from boost_trl.environments.base import Task
from boost_trl.environments.synthetic_rules import TextOutcome
from boost_trl.environments.twenty_questions.prompts import AGENT_PROMPT, environment_prompt
from boost_trl.environments.twenty_questions.reward import score, step_reward, terminal_reward
from boost_trl.environments.twenty_questions.world import World


# The first observation that `load_lmrl_gym` writes.
_LMRL_GYM_OPENING = "Questions:"
_YES_OR_NO = re.compile(r"(?:yes|no)\W*", re.IGNORECASE)


class TwentyQuestionsRules:
    """The [`~boost_trl.environments.synthetic.SyntheticRules`] of Twenty Questions.

    A dialogue succeeds at the first question that names an item and is answered yes, whatever the secret was: nobody
    checks a self-played answer. It fails when all questions are asked.

    Args:
        world (`World`): reads the questions.
        max_turns (`int`): questions per game.
        reward (`str`): `"step_cost"` or `"score"`.
    """

    def __init__(self, world: World, max_turns: int, reward: str):
        self.world = world
        self.max_turns = max_turns
        self.reward = reward

    def agent_prompt(self, task: Task) -> str:
        return AGENT_PROMPT

    def environment_prompt(self, task: Task) -> str:
        if task.id not in self.world.index_of:
            raise ValueError(f"the world has no item {task.id!r}; ids look like {self.world.items[0].id!r}")
        return environment_prompt(self.world.items[self.world.index_of[task.id]].names[0])

    def is_terminal(self, messages: list[dict[str, Any]]) -> bool:
        if messages[-1]["role"] == "assistant":
            return False  # the answer decides
        return self._is_success(messages) or self._num_questions(messages) >= self.max_turns

    def check_text(self, messages: list[dict[str, Any]]) -> None:
        """A game begins as this world's or LMRL-Gym's do, or all that is said to the agent's questions is yes and no.

        Raises:
            ValueError: if neither is so.
        """
        first = next(at for at, message in enumerate(messages) if message["role"] == "assistant")
        before, answers = (
            [message["content"] for message in part if message["role"] not in ("system", "assistant")]
            for part in (messages[:first], messages[first:])
        )
        openings = {_LMRL_GYM_OPENING, *map(self.world.observation, self.world.categories)}
        if openings.isdisjoint(before) and not (answers and all(map(_YES_OR_NO.fullmatch, answers))):
            raise ValueError(
                f"it does not begin with {self.world.observation(self.world.categories[0])!r}, and its answers are not "
                "yes and no alone"
            )

    def rewards_from_text(self, messages: list[dict[str, Any]], task: Task) -> TextOutcome:
        count = self._num_questions(messages)
        success = self._is_success(messages)
        terminated = success or count >= self.max_turns
        rewards = [step_reward(self.reward)] * count
        if terminated:
            rewards[-1] = terminal_reward(self.reward, count, success, self.max_turns)
        return TextOutcome(rewards, terminated, score(count, success, self.max_turns), success)

    def _num_questions(self, messages: list[dict[str, Any]]) -> int:
        return sum(message["role"] == "assistant" for message in messages)

    def _is_success(self, messages: list[dict[str, Any]]) -> bool:
        if [message["role"] == "assistant" for message in messages[-2:]] != [True, False]:
            return False
        question, answer = (message["content"] for message in messages[-2:])
        return bool(self.world.read(question)[1]) and answer.strip().lower().startswith("yes")
