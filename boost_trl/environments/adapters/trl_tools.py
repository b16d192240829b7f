"""Environments as TRL's `environment_factory`: the model plays by calling tools.

TRL exposes every public method of the class, other than `reset` and `get_reward`, as a tool. An `Environment` itself
would hand the model `step` and `close`; these classes have the tools and nothing else that is public.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ..base import Environment
from ..rollout import _as_factory
from .trl_episode import Episode


if TYPE_CHECKING:
    from ..webshop.shop import Shop


WEBSHOP_TOOL_RULES = (
    "You are shopping. Find the product that the instruction describes: search for it, open products, click the "
    "options that the instruction asks for, then click Buy Now. Call one tool at a time."
)


class ToolEnvironment:
    """Base of environments whose actions are tool calls; subclass it to give an environment of yours tools.

    Each public method of a subclass is a tool, so it needs type hints and a docstring in Google style. It calls
    `self._act(text)` with the environment's own action. Everything else must begin with an underscore.

    Args:
        make (`Callable[[], Environment]`): one game's environment.
        reward (`str`, *optional*), unfinished_reward (`float`): as in [`as_environment_factory`].
    """

    def __init__(self, make: Callable[[], Environment], reward: str | None = None, unfinished_reward: float = 0.0):
        self._episode = Episode(make(), reward, unfinished_reward)

    def reset(self, **row: Any) -> str:
        """Start the game of a dataset row: column `task` or `task_id` says which, `seed` how it goes."""
        return self._episode.start(row.get("task") or row.get("task_id"), row.get("seed"))

    def get_reward(self) -> float:
        """The reward of the rollout that has just been played."""
        return self._episode.reward

    def _act(self, action: str) -> str:
        # TRL has no way to end a rollout from here: the model may go on, and is told so.
        return "The game is over." if self._episode.over else self._episode.act(action)


class ActTools(ToolEnvironment):
    """One tool for any environment."""

    def act(self, action: str) -> str:
        """Take one action in the game.

        Args:
            action: The action, in the words that the rules ask for.

        Returns:
            What happens next.
        """
        return self._act(action)


class TwentyQuestionsTools(ToolEnvironment):
    """Twenty Questions by tools. A guess is a question like any other, and costs one."""

    def ask(self, question: str) -> str:
        """Ask a yes/no question about the hidden object.

        Args:
            question: The question, such as "Is it alive?".

        Returns:
            The answer, yes or no.
        """
        return self._act(question)

    def guess(self, item: str) -> str:
        """Guess what the hidden object is.

        Args:
            item: The name of the object, nothing else.

        Returns:
            Yes if that is the object, which wins the game; otherwise no.
        """
        return self._act(f"Is it {item}?")


class CarDealerTools(ToolEnvironment):
    """Car Dealer by tools."""

    def say(self, utterance: str) -> str:
        """Say something to the buyer.

        Args:
            utterance: What you say; the last price in it is your offer.

        Returns:
            What the buyer answers.
        """
        return self._act(utterance)


class WebShopTools(ToolEnvironment):
    """WebShop by tools."""

    @property
    def _shop(self) -> "Shop":
        return cast("Shop", self._episode.env)

    def search(self, keywords: str) -> str:
        """Search the shop. Works on every page.

        Args:
            keywords: A few words that describe the product.

        Returns:
            The page of results.
        """
        return self._act(self._shop.write_action("search", keywords))

    def click(self, name: str) -> str:
        """Click a button, a product or an option of the current page.

        Args:
            name: What is clicked, as the page writes it, such as "Buy Now".

        Returns:
            The page that opens.
        """
        return self._act(self._shop.write_action("click", name))


_TOOLS_OF = {"twenty_questions": TwentyQuestionsTools, "car_dealer": CarDealerTools, "webshop": WebShopTools}


def as_environment_factory(
    env: Environment | Callable[[], Environment] | str,
    *,
    tools: type[ToolEnvironment] | None = None,
    reward: str | None = None,
    unfinished_reward: float = 0.0,
) -> Callable[[], ToolEnvironment]:
    """Make an environment trainable with `GRPOTrainer(environment_factory=...)`, on the rows of [`grpo_rows`].

    The reward is the environment's own (`get_reward`), logged under the name of the tools' class; `reward_funcs` may
    add others. A rollout ends when the model answers without a tool call, after
    `GRPOConfig.max_tool_calling_iterations`, or at `max_completion_length`, which counts observations too.

    Args:
        env (`Environment`, callable or `str`): an environment (copied for each concurrent game), a factory, or a name
            for `make_env`. A factory or name can be pickled, which TRL's asynchronous trainer needs.
        tools (subclass of [`ToolEnvironment`], *optional*): the tools. Twenty Questions has `ask` and `guess`, Car
            Dealer `say`, WebShop `search` and `click`; any other environment gets `act`.
        reward (`str`, *optional*): the number in the last step's `info` that is the reward; by default
            `"discounted_score"` where there is one (WebShop), else `"score"`.
        unfinished_reward (`float`, *optional*, defaults to `0.0`): of a game that was not played to its end, whose
            costs so far are not counted: giving up must not pay.

    Returns:
        `Callable[[], ToolEnvironment]`, TRL's `EnvironmentFactory`.

    Example:

    ```python
    >>> env = make_env("twenty_questions", world="full")
    >>> trainer = GRPOTrainer(
    ...     "Qwen/Qwen3-0.6B", train_dataset=grpo_rows(env), environment_factory=as_environment_factory(env)
    ... )
    ```
    """
    make = _as_factory(env)
    if tools is None:
        tools = _TOOLS_OF.get(make().name, ActTools)
    return partial(tools, make, reward, unfinished_reward)
