"""Answerer played by a chat model under the prompt of [B] Figure 4."""

import re
from collections.abc import Callable

from boost_trl.environments.twenty_questions.prompts import environment_prompt


class ChatAnswerer:
    """An answerer played by a chat model, for `TwentyQuestions(world="full", answerer=...)`.

    Answers are remembered: a question about an object is asked once.

    Args:
        policy (`Callable[[list[list[dict]]], list[str]]`): One reply per conversation: [`GenerationPolicy`], or any
            function that calls a model or a server.

    Example:

    ```python
    >>> from transformers import pipeline
    >>> chat = pipeline("text-generation", model="Qwen/Qwen3-0.6B", max_new_tokens=4, return_full_text=False)
    >>> answerer = ChatAnswerer(lambda conversations: [out[0]["generated_text"] for out in chat(conversations)])
    >>> env = TwentyQuestions(world="full", answerer=answerer)
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
                {"role": "system", "content": environment_prompt(item)},
                {"role": "user", "content": question},
            ]
            match = re.match(r"\W*(yes|no)\b", self.policy([conversation])[0].lower())
            self._answers[key] = f"{match.group(1).capitalize()}." if match else "No."
        return self._answers[key]
