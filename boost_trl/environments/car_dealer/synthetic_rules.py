"""Car Dealer's rules for synthetic self-play: prompts, end and rewards of a dialogue, read off its text alone."""

from collections.abc import Sequence

from ..base import Task
from ..synthetic_rules import Message, TextOutcome
from .language import decision_in, read_sheet, understand
from .market import Buyer
from .prices import prices_in
from .prompts import AGENT_PROMPT, environment_prompt
from .reward import score, step_reward, terminal_reward


class CarDealerRules:
    """The [`~boost_trl.environments.synthetic.SyntheticRules`] of Car Dealer. Arguments as in `CarDealer`."""

    def __init__(self, reward: str, max_utterances: int, world: str):
        self.max_turns = max_utterances // 2
        self._reward = reward
        self._max_utterances = max_utterances
        self._world = world

    def agent_prompt(self, task: Task) -> str:
        return AGENT_PROMPT

    def environment_prompt(self, task: Task) -> str:
        return environment_prompt(Buyer.from_dict(task.data))

    def is_terminal(self, messages: Sequence[Message]) -> bool:
        """Over when the buyer agrees to the standing offer or leaves, or after the last turn's answer."""
        turns = sum(message["role"] == "assistant" for message in messages)
        return messages[-1]["role"] == "user" and (turns >= self.max_turns or self._outcome(messages)[0] is not None)

    def rewards_from_text(self, messages: Sequence[Message], task: Task | None) -> TextOutcome:
        """A sale counts if the buyer's last words agree and the offer lies between the sheet's minimum and sticker.

        Raises:
            ValueError: if the first observation has no dealer sheet, or `reward="fancy"` has no task to take the
                budget from.
        """
        sheet = read_sheet(next(m["content"] for m in messages if m["role"] == "user"), self._world)
        if self._reward == "fancy" and task is None:
            raise ValueError("reward 'fancy' needs the buyer's budget: keep the rows' column `task`")
        budget = Buyer.from_dict(task.data).budget if task is not None else 0
        turns = sum(message["role"] == "assistant" for message in messages)
        decision, price = self._outcome(messages)
        if decision != "accept" or price is None or not sheet.floor <= price <= sheet.sticker:
            price = None
        terminated = decision is not None or turns >= self.max_turns
        rewards = [step_reward(self._reward)] * turns
        if terminated:
            rewards[-1] = terminal_reward(
                self._reward,
                turns,
                price,
                sticker=sheet.sticker,
                budget=budget,
                max_utterances=self._max_utterances,
            )
        return TextOutcome(rewards, terminated, score(turns, price, self._max_utterances), price is not None)

    def _outcome(self, messages: Sequence[Message]) -> tuple[str | None, int | None]:
        """The buyer's decision in the last message, if any, and the seller's standing offer."""
        offer: int | None = None
        counter: int | None = None
        opened = False
        for message in messages:
            if message["role"] == "assistant":
                move = understand(message["content"], self._world)
                if move.price is not None or move.takes_counter or move.unclear:
                    offer = counter if move.takes_counter else move.price
                opened = True
            elif message["role"] == "user" and opened:  # the first observation's prices are the dealer's own
                prices = prices_in(message["content"], self._world)
                counter = prices[-1] if prices else counter
        if not opened or messages[-1]["role"] != "user":
            return None, offer
        return decision_in(messages[-1]["content"], offer, self._world), offer
