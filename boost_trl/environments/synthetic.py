"""Synthetic self-play ([B] Appendix F): one language model plays both roles, no simulator.

An environment takes part by offering `synthetic_rules()`, which returns a [`SyntheticRules`]: the roles' prompts, when
a text-only episode is over, and what it earned by its own words.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from .base import Task


Message = dict[str, Any]


class TextOutcome(NamedTuple):
    """What an episode earned, read off its text alone.

    Attributes:
        rewards (`list[float]`): one per assistant turn, in the units that the environment's own rows use.
        terminated (`bool`): the episode ended by the rules; `False` if it was cut.
        score (`float`): what the environment would report as `info["score"]`.
        success (`bool`): what it would report as `info["success"]`.
    """

    rewards: list[float]
    terminated: bool
    score: float
    success: bool


@runtime_checkable
class SyntheticRules(Protocol):
    """What `generate_synthetic` needs to know of an environment. It never steps the environment itself.

    Attributes:
        max_turns (`int`): assistant turns after which the episode is over.
    """

    max_turns: int

    def agent_prompt(self, task: Task) -> str:
        """System prompt of the agent's role, for `prompt_style="paper"` ([B] Figures 4-6)."""

    def environment_prompt(self, task: Task) -> str:
        """System prompt of the environment's role, with what only the environment knows (the hidden word, the
        buyer's budget) filled in from `task`."""

    def is_terminal(self, messages: list[Message]) -> bool:
        """Whether the episode is over after the last of `messages`, an action or an observation of any wording."""

    def rewards_from_text(self, messages: list[Message], task: Task) -> TextOutcome:
        """Judge a finished episode by its words; `messages` still hold the final observation, if there was one."""
