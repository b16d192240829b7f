"""Buyer played by a chat model under the prompt of [B] Figure 5."""

from collections.abc import Callable, Sequence

from .bargaining import Move, Reply
from .language import decision_in
from .market import Buyer
from .prices import prices_in
from .prompts import environment_prompt


Chat = Callable[[Sequence[list[dict[str, str]]]], list[str]]


class ChatBuyer:
    """One negotiation with a chat model.

    Args:
        chat (`Callable`): any policy: a list with one conversation in message format -> a list with one reply. The
            seller is its user, the buyer its assistant.
        buyer (`Buyer`): who the model plays.
        opening (`str`): the words that the buyer has already said.

    Attributes:
        counter (`int` or `None`): the last price that the buyer named.
        text (`str`): the last reply.
    """

    def __init__(self, chat: Chat, buyer: Buyer, opening: str):
        self._chat = chat
        self.counter: int | None = None
        self.text = ""
        self._offer: int | None = None
        self._patience = buyer.patience
        self._messages = [
            {"role": "system", "content": f"{environment_prompt(buyer)}\nYou opened with: {opening}"},
        ]

    def refuse(self, void: str) -> Reply:
        """Answer an offer that does not count, unheard by the model, so that it cannot agree to one. It costs patience as
        in [`RuleBasedBuyer`]; the model counts its own failed rounds."""
        self._patience -= 1
        return Reply(("leave",), None, "reject") if self._patience < 0 else Reply((void,))

    def respond(self, move: Move, utterance: str) -> Reply:
        """Let the model answer an utterance whose offer is allowed, and read its decision off its words.

        Raises:
            ValueError: if the model does not return one text.
        """
        if move.price is not None or move.takes_counter:
            self._offer = self.counter if move.price is None else move.price
        self._messages.append({"role": "user", "content": utterance})
        replies = self._chat([list(self._messages)])
        if len(replies) != 1 or not isinstance(replies[0], str):
            raise ValueError(f"`buyer` must return a list with one text for one conversation, not {replies!r}")
        self.text = replies[0].strip()
        self._messages.append({"role": "assistant", "content": self.text})
        decision = decision_in(self.text, self._offer, "full")
        if decision == "accept":
            return Reply(("accept",), self._offer, decision)
        named = prices_in(self.text, "full")
        if named:
            self.counter = named[-1]
        return Reply(("leave",) if decision else ("counter",), None, decision)
