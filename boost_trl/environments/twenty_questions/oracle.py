"""The prompts of [B] Figure 4 and an oracle that a chat model plays."""

import re
from collections.abc import Callable


AGENT_PROMPT = (
    "Welcome to the game of Twenty Questions! Your objective is to guess what the object is within twenty questions. "
    "At every turn, you will have the opportunity to ask a yes/no question and receive an answer from the oracle. You "
    "can ask twenty questions but must ask as few questions as possible."
)
ORACLE_PROMPT = (
    "You are the oracle in a game of Twenty Questions. A hidden target object has been chosen (provided in the goal). "
    "For every yes/no question the agent asks, respond with exactly 'Yes.' or 'No.' based solely on whether the answer "
    "is true of the target object. Do not reveal the object or provide any other information. Output only your "
    "one-word answer."
)


class ChatOracle:
    """An oracle played by a chat model, for `TwentyQuestions(world="full", oracle=...)`.

    Answers are remembered: a question about an object is asked once.

    Args:
        policy (`Callable[[list[list[dict]]], list[str]]`):
            One reply per conversation: `LMPolicy`, or any function that calls a model or a server.

    Example:

    ```python
    >>> from transformers import pipeline
    >>> chat = pipeline("text-generation", model="Qwen/Qwen3-0.6B", max_new_tokens=4, return_full_text=False)
    >>> oracle = ChatOracle(lambda conversations: [out[0]["generated_text"] for out in chat(conversations)])
    >>> env = TwentyQuestions(world="full", oracle=oracle)
    ```
    """

    def __init__(self, policy: Callable[[list[list[dict[str, str]]]], list[str]]):
        self.policy = policy
        self._answers: dict[tuple[str, str], str] = {}

    def __call__(self, question: str, item: str) -> str:
        """The first yes or no at the start of the model's reply, else `"No."`, as in LMRL-Gym."""
        key = (question, item)
        if key not in self._answers:
            conversation = [
                {"role": "system", "content": f"{ORACLE_PROMPT}\nGoal: {item}"},
                {"role": "user", "content": question},
            ]
            match = re.match(r"\W*(yes|no)\b", self.policy([conversation])[0].lower())
            self._answers[key] = f"{match.group(1).capitalize()}." if match else "No."
        return self._answers[key]
