"""Car Dealer as an environment: the agent sells, a buyer bargains."""

import copy
import random
from collections.abc import Sequence
from typing import Any

from ..base import Task, check_task
from .bargaining import RuleBasedBuyer, void_reason
from .chat_simulator import Chat, ChatBuyer
from .language import BUYER_SAYS, WORLDS, Phrasing, understand
from .market import BRANDS, Buyer, all_tasks, market
from .prompts import ACTION_GRAMMAR, AGENT_PROMPT
from .reward import REWARDS, score, step_reward, terminal_reward
from .synthetic_rules import CarDealerRules


class CarDealer:
    """Sell a car: the agent is the seller, the environment the buyer ([B] §5, LMRL-Gym's task).

    The first observation is the dealer's sheet (brand, sticker price, minimum price) and the buyer's first words.
    Every action is one utterance of the seller; the last price in it is an offer. Offers below the minimum, above
    the sticker price or not clear are void and cost the buyer's patience. How a buyer bargains depends on the brand's segment.

    Args:
        buyer (`Callable`, *optional*): A chat model as the buyer, under the prompt of [B] Figure 5: any
            `policy(conversations) -> replies`. Without it, a rule-based buyer, deterministic given task and seed. Void
            offers are answered without asking the model, and end the talk when there were more of them than the
            buyer's patience.
        reward (`str`, *optional*, defaults to `"step_cost"`): `"step_cost"` (-1 per step, 0 on the completing one,
            every failure sums to `-max_steps`), `"score"` (the paper's: utterances remaining at agreement),
            `"revenue"` or `"fancy"` (LMRL-Gym's).
        max_utterances (`int`, *optional*, defaults to `50`): Turns of both sides; an even number. `max_steps` is half
            of it.
        world (`str`, *optional*, defaults to `"full"`): `"full"`: sentences and dollars. `"small"`: short forms from
            110 words, for models trained from zero; prices are percents of the sticker price, segment and one wish are
            announced.
        buyers_per_brand (`int`, *optional*, defaults to `64`): Tasks per category.

    Raises:
        ValueError: for an unknown `reward` or `world`, a `buyer` that cannot be called, an odd `max_utterances`, or
            options that exclude each other.

    Example:

    ```python
    >>> env = make_env("car_dealer")
    >>> observation, info = env.reset(seed=0, task="tesla-0003")
    >>> observation, reward, terminated, truncated, info = env.step("What do you need? It is yours for $52,000.")
    ```
    """

    name = "car_dealer"

    def __init__(
        self,
        buyer: Chat | None = None,
        reward: str = "step_cost",
        max_utterances: int = 50,
        world: str = "full",
        buyers_per_brand: int = 64,
    ):
        if reward not in REWARDS:
            raise ValueError(f"`reward` must be one of {', '.join(REWARDS)}, got {reward!r}")
        if world not in WORLDS:
            raise ValueError(f"`world` must be one of {', '.join(WORLDS)}, got {world!r}")
        if buyer is not None and not callable(buyer):
            raise ValueError(
                f"`buyer` is {buyer!r}; give a policy, which is called with a list of conversations and returns a list of "
                "replies, such as `GenerationPolicy(model, tokenizer)`"
            )
        if not isinstance(max_utterances, int) or max_utterances < 2 or max_utterances % 2:
            raise ValueError(
                f"`max_utterances` is {max_utterances!r}; seller and buyer alternate, give an even whole number"
            )
        if not isinstance(buyers_per_brand, int) or buyers_per_brand < 1:
            raise ValueError(f"`buyers_per_brand` is {buyers_per_brand!r}; give a whole number from 1")
        if world == "small" and (buyer is not None or reward == "revenue"):
            raise ValueError("`world='small'` has no dollars and no sentences: no `buyer`, and no reward 'revenue'")
        self.reward = reward
        self.world = world
        self.max_utterances = max_utterances
        self.max_steps = max_utterances // 2
        self.system_prompt = f"{AGENT_PROMPT} {ACTION_GRAMMAR}" if world == "full" else ""
        self._chat = buyer
        self._buyers_per_brand = buyers_per_brand
        self.market_shift = 0
        self._over = True

    def __deepcopy__(self, memo: dict) -> "CarDealer":
        # Many games may be played at once, on copies: they share the chat model.
        memo[id(self._chat)] = self._chat
        clone = object.__new__(type(self))
        memo[id(self)] = clone
        clone.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return clone

    def tasks(self, categories: Sequence[str] | None = None) -> Sequence[Task]:
        """All buyers, or those of the brands `categories`.

        Raises:
            ValueError: for a brand that is not among the 13.
        """
        tasks = all_tasks(self.world, self._buyers_per_brand, self.market_shift)
        if categories is None:
            return tasks
        unknown = [brand for brand in categories if brand not in BRANDS]
        if unknown:
            raise ValueError(f"unknown brands {unknown}; the categories are {', '.join(BRANDS)}")
        return tuple(task for task in tasks if task.category in categories)

    def reset(self, *, seed: int | None = None, task: Task | str | None = None) -> tuple[str, dict[str, Any]]:
        """Open a negotiation.

        Raises:
            ValueError: for a task id that does not exist, a task of another world or environment, or what is no task. The
                running negotiation goes on then.
        """
        check_task(task)
        if task is None:
            task = random.Random(None if seed is None else f"car_dealer:{seed}").choice(self.tasks())
        elif isinstance(task, str):
            known = {task.id: task for task in self.tasks()}
            if task not in known:
                raise ValueError(f"no buyer is called {task!r}; ids look like {next(iter(known))!r}, see `tasks()`")
            task = known[task]
        buyer = Buyer.from_dict(task.data)
        if (buyer.sticker == 100) != (self.world == "small"):
            raise ValueError(f"task {task.id!r} was made for the other world; `world` here is {self.world!r}")
        self._task, self._buyer = task, buyer
        self._phrasing = Phrasing(self.world, random.Random(f"{task.id}:{seed or 0}"))
        self._step = 0
        self._over = False
        opening = self._phrasing.opening(self._buyer)
        if self._chat is None:
            segment = market(self.market_shift)[self._buyer.brand]
            self._opponent: RuleBasedBuyer | ChatBuyer = RuleBasedBuyer(
                self._buyer, 1 if self.world == "small" else 100, segment
            )
        else:
            self._opponent = ChatBuyer(self._chat, self._buyer, opening.split(BUYER_SAYS)[1])
        return opening, self._info(valid=True)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Say `action` to the buyer. The turn limit ends the episode by its own rules, so nothing is ever truncated.

        An action is not valid if it is empty or no text, or its offer is void (`info["void"]` says why).

        Raises:
            RuntimeError: after the end, or before `reset`.
        """
        if self._over:
            raise RuntimeError("the negotiation is over; call `reset`")
        self._step += 1
        action = action if isinstance(action, str) else ""
        move = understand(action, self.world)
        opponent = self._opponent
        void = void_reason(move, opponent.counter, self._buyer.floor, self._buyer.sticker)
        if isinstance(opponent, RuleBasedBuyer):
            reply = opponent.respond(move)
            observation = self._phrasing.reply(self._buyer, reply)
        elif void:
            reply = opponent.refuse(void)
            observation = self._phrasing.reply(self._buyer, reply)
        else:
            reply = opponent.respond(move, action)
            observation = opponent.text
        decision = reply.decision
        if decision is None and self._step == self.max_steps:
            decision = "limit"
        info = self._info(valid=bool(action.strip()) and void is None)
        if void:
            info["void"] = void
        reward = step_reward(self.reward)
        if decision:
            self._over = True
            price = reply.price if decision == "accept" else None
            reward = terminal_reward(
                self.reward,
                self._step,
                price,
                sticker=self._buyer.sticker,
                budget=self._buyer.budget,
                max_utterances=self.max_utterances,
            )
            info |= {
                "decision": decision,
                "success": price is not None,
                "score": score(self._step, price, self.max_utterances),
                "price": price,
                "price_ratio": 0.0 if price is None else price / self._buyer.sticker,
            }
        return observation, reward, self._over, False, info

    def with_changed_market(self, shift: int) -> "CarDealer":
        """The same game in a market whose facts differ: what a brand announces stays, how its buyers bargain moves on
        by `shift` of the five segments. For planted noise."""
        other = copy.deepcopy(self)
        other.market_shift = shift
        other._over = True
        return other

    def admissible_actions(self) -> None:
        """Actions are free text."""

    def close(self) -> None:
        """Nothing is held."""

    def synthetic_rules(self) -> CarDealerRules:
        """The rules that `generate_synthetic` follows."""
        return CarDealerRules(self.reward, self.max_utterances, self.world)

    def _info(self, valid: bool) -> dict[str, Any]:
        return {"valid": valid, "task_id": self._task.id, "category": self._task.category, "step": self._step}
