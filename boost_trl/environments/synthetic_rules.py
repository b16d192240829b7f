"""Rules by which a text-only episode of an environment is prompted, ended and rewarded in synthetic self-play."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from .base import Environment, Task, make_env


Message = dict[str, Any]


class TextOutcome(NamedTuple):
    """Result of an episode, read off its text alone.

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
    """Rules of an environment for `generate_synthetic`, which never steps the environment itself.

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

    def rewards_from_text(self, messages: list[Message], task: Task | None) -> TextOutcome:
        """Judge a finished episode by its words; `messages` still hold the final observation, if there was one."""


@runtime_checkable
class KnowsItsText(Protocol):
    """Rules whose `rewards_from_text` takes any text, and which can tell one that is no game of theirs."""

    def check_text(self, messages: list[Message]) -> None:
        """Look at a row that was given, never at what a model wrote.

        Raises:
            ValueError: if `messages` are no game of these rules, saying what shows it.
        """


@runtime_checkable
class OffersSyntheticRules(Protocol):
    """An environment that takes part in synthetic self-play."""

    def synthetic_rules(self) -> SyntheticRules:
        """The rules of its games."""


def rules_of(env: Environment | SyntheticRules | str) -> SyntheticRules:
    """The rules by which `generate_synthetic` judges.

    Raises:
        ValueError: if `env` is neither rules nor an environment that offers them.
    """
    env = make_env(env) if isinstance(env, str) else env
    if isinstance(env, SyntheticRules):
        return env
    if isinstance(env, OffersSyntheticRules):
        return env.synthetic_rules()
    raise ValueError(
        f"{type(env).__name__} offers no rules for synthetic self-play: give it a method `synthetic_rules()` that "
        "returns a boost_trl.environments.synthetic.SyntheticRules"
    )
