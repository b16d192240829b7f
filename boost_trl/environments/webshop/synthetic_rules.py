"""WebShop's rules for synthetic self-play: prompts, end and rewards of an episode, read off its text alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..base import Task
from ..synthetic_rules import Message, TextOutcome
from .catalogue import Catalogue
from .prompts import AGENT_PROMPT, environment_prompt
from .reward import SYNTHETIC_REWARDS, purchase_reward, terminal_reward


_BUTTONS = {"description", "features", "reviews", "search"}
_CLICK = re.compile(r"\s*click(?:\[(.+)\]| ([^\[\]]+)$)", re.IGNORECASE)
_ACTION = re.compile(r"^\s*(?:search|click) |(?:search|click)\[", re.IGNORECASE)
_SEPARATORS = re.compile(r"\n|\[SEP\]| \| ")
_MARKS = re.compile(r"\[(?:clicked )?button_?\]|\[button_?\]|[\[\]]")
_NUMBERED = re.compile(r"(\d+) (.+?) (\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_INSTRUCTION = re.compile(r"Instruction:\s*(?:\[SEP\]\s*)?.*?(?=\n|\[SEP\]|$)")
# A number that goes on ("7/10", "50%", "1.2.3", "0,5") is not read as the part before.
_CLAIM = re.compile(
    r"(?:score|reward)\D*?([-−]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?!\s*[%/]|[.,]?\d|[^\W_])", re.IGNORECASE
)


class WebShopRules:
    """The [`~boost_trl.environments.synthetic.SyntheticRules`] of WebShop. The paper does not say how a synthetic
    purchase is rewarded; there are three ways.

    Args:
        catalogue (`Catalogue`): where the tasks' goals are.
        max_turns (`int`): actions per episode.
        discount (`float`): per action before the purchase, as in the shop.
        reward (`str`, *optional*, defaults to `"rescore"`): `"rescore"` scores what the episode's own text says was
            bought (title, price, text of the pages seen, options clicked) against the goal, so that attributes which no
            page showed do not count, and 0 for a product that was never listed; `"claimed"` takes the score that the
            text claims on the last page, at most 1, and 0 if it is negative or no number; `"zero"` pays nothing.

    Raises:
        ValueError: for another `reward`.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        max_turns: int,
        discount: float,
        reward: Literal["rescore", "claimed", "zero"] = "rescore",
    ):
        if reward not in SYNTHETIC_REWARDS:
            raise ValueError(f"reward {reward!r} is not one of {', '.join(SYNTHETIC_REWARDS)}")
        self.catalogue, self.max_turns, self.discount, self.reward = catalogue, max_turns, discount, reward

    def agent_prompt(self, task: Task) -> str:
        return AGENT_PROMPT

    def environment_prompt(self, task: Task) -> str:
        goal = self._goal(task)
        return environment_prompt(goal, self.catalogue.by_asin[goal["asin"]])

    def is_terminal(self, messages: Sequence[Message]) -> bool:
        last = messages[-1]
        if self.reward == "claimed":
            # The page that follows the purchase makes the claim.
            return last["role"] != "assistant" and any(_is_purchase(message) for message in messages)
        return _is_purchase(last)

    def check_text(self, messages: Sequence[Message]) -> None:
        """A game of this shop has at least one action in the form of one, whatever it does.

        Raises:
            ValueError: if it has none.
        """
        actions = [message["content"] for message in messages if message["role"] == "assistant"]
        if not any(_ACTION.search(action) for action in actions):
            raise ValueError(
                f"no turn of the agent is an action such as search[…] or click[…], the first is {actions[0]!r:.80}"
            )

    def rewards_from_text(self, messages: Sequence[Message], task: Task) -> TextOutcome:
        actions = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        bought = next((turn for turn, at in enumerate(actions) if _is_purchase(messages[at])), None)
        score = 0.0
        if bought is not None and self.reward == "claimed":
            score = _claimed_score(messages[actions[bought] + 1 :])
        elif bought is not None and self.reward == "rescore":
            purchase = read_purchase(messages[: actions[bought]])
            if purchase is not None:
                product, options, price = purchase
                score = purchase_reward(self._goal(task), product, options, price)["reward"]
        rewards = [0.0] * len(actions)
        if bought is not None:
            rewards[bought] = terminal_reward(bought + 1, score, self.discount)
        return TextOutcome(rewards, bought is not None, score, score == 1.0)

    def _goal(self, task: Task | None) -> Mapping[str, Any]:
        if task is None or task.id not in self.catalogue.tasks_by_id:
            raise ValueError(
                f"WebShop has no task {task.id if task else None!r}: keep the rows' `task` column and their catalogue, "
                "or take the rules of env.synthetic_rules(reward='zero')"
            )
        return self.catalogue.goals[self.catalogue.tasks_by_id[task.id].data["goal"]]


def read_purchase(messages: Sequence[Message]) -> tuple[dict[str, Any], dict[str, str], float] | None:
    """Purchase of an episode, by its text up to the purchase: product record, options and price.

    `None` if nothing was chosen, or only something that no page had listed.
    """
    product: dict[str, Any] | None = None
    options: dict[str, str] = {}
    price = 0.0
    seen = ""
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = messages[at - 1]["content"] if at else ""
        # The page repeats the instruction, whose words say nothing of the product.
        after = _INSTRUCTION.sub("", messages[at + 1]["content"]) if at + 1 < len(messages) else ""
        name = _clicked(message)
        if name is None or name in ("next >", "back to search"):
            product = None
            continue
        listing = _listed(before, name)
        if listing is not None:
            (title, price), options, seen = listing, {}, after
            product = {"name": title, "Title": title, "query": "", "product_category": "", "Attributes": []}
        elif name in _BUTTONS:
            seen += "\n" + after
        elif name != "< prev" and product is not None and name in seen.lower():
            options[_option_name(seen, name)] = name
        elif name != "< prev":
            # An invented product or option is no purchase to speak of.
            product = product if product is not None and not re.fullmatch("b0[a-z0-9]{8}", name) else None
    if product is None:
        return None
    return product | {"Description": seen, "BulletPoints": []}, options, price


def _is_purchase(message: Message) -> bool:
    return message["role"] == "assistant" and _clicked(message) == "buy now"


def _clicked(message: Message) -> str | None:
    match = _CLICK.match(message["content"])
    return (match[1] or match[2]).strip().lower() if match else None


def _segments(text: str) -> list[str]:
    return [segment for part in _SEPARATORS.split(text) if (segment := _MARKS.sub("", part).strip())]


def _listed(page: str, name: str) -> tuple[str, float] | None:
    """Title and price of the product that `name` stands for on a page of results."""
    segments = _segments(page)
    for at, segment in enumerate(segments):
        row = _NUMBERED.fullmatch(segment)
        if row is not None and row[1] == name:
            return row[2], float(row[3])
        if segment.lower() == name and at + 2 < len(segments) and segments[at + 2].startswith("$"):
            number = _NUMBER.search(segments[at + 2])
            return (segments[at + 1], float(number[0])) if number else None
    return None


def _option_name(page: str, value: str) -> str:
    """The option that has `value` on a product's page; the value itself where the page does not say."""
    name = value
    for line in page.lower().splitlines():
        if line.startswith("  "):
            if _MARKS.sub("", line).strip() == value:
                return name
        else:
            name = line.strip()
    for segment in _segments(page.lower()):
        option, colon, values = segment.partition(":")
        if colon and f" {value} " in f"{values} ":
            return option
    return value


def _claimed_score(pages: Sequence[Message]) -> float:
    text = re.sub(r"\(.*?\)", "", " ".join(message["content"] for message in pages))
    claim = _CLAIM.search(text)
    return min(max(float(claim[1].replace("−", "-")), 0.0), 1.0) if claim else 0.0
