"""A language model as a player. Any callable `policy(conversations) -> replies` can play; this one calls `generate`."""

import copy
import logging
import random
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from boost_trl.data.chat_templates import with_action_marks
from boost_trl.environments.dialogue_cache import DialogueCache
from boost_trl.models.turn_end import CONTENT, turn_end


logger = logging.getLogger(__name__)

Conversation = list[dict[str, Any]]


class GenerationPolicy:
    """Plays by sampling from a causal language model, one `generate` for all conversations.

    Each conversation is rendered with the chat template and continued until the template's end of turn, the
    end-of-sequence token or `max_new_tokens`.

    Args:
        model (`PreTrainedModel`): any causal language model, a [`ValuePolicy`] included.
        tokenizer (`PreTrainedTokenizerBase`): without a chat template it gets the one that boost_trl ships.
        max_new_tokens (`int`, *optional*, defaults to `64`): per turn; a `generation_config` that sets it wins. In a
            model of few positions a turn may get less, but a quarter of the positions is always kept for it. A longer
            conversation loses its oldest turns, never the opening ones, with a warning.
        generation_config (`GenerationConfig`, *optional*): defaults to sampling from the model's whole distribution at
            temperature 1, because that distribution is the policy. Pass `model.generation_config` for the model's own.
        seed (`int`, *optional*): makes the sequence of calls reproducible and leaves the global random state as it
            was. Without it, sampling uses the global state.
        batch_size (`int`, *optional*): conversations per `generate`; all of them at once by default.
        role (`str`, *optional*, defaults to `"assistant"`): whose turn is written; `"user"` lets the model play the
            environment.
        multiline (`bool`, *optional*, defaults to `False`): turns may hold line breaks. Matters only for a template
            that ends a turn by nothing but a line break, where the header of the next turn then ends it.
        chat_template_kwargs (`dict`, *optional*): what the chat template gets beside the messages, such as `tools` or
            `enable_thinking`: the same as in training.

    Raises:
        ValueError: if the template does not write a turn's content as it is, or a conversation cannot be shortened to
            the model's context.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int = 64,
        generation_config: GenerationConfig | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
        role: str = "assistant",
        multiline: bool = False,
        chat_template_kwargs: dict[str, Any] | None = None,
    ):
        self.model = model
        self.tokenizer = tokenizer if tokenizer.chat_template is not None else with_action_marks(tokenizer)
        self.batch_size = batch_size
        self.role = role
        self._seeds = None if seed is None else random.Random(seed)

        self._render = partial(self.tokenizer.apply_chat_template, tokenize=False, **(chat_template_kwargs or {}))
        end = turn_end(self.tokenizer, role, multiline=multiline, chat_template_kwargs=chat_template_kwargs)
        self._stop_ids = set() if end.token_id is None else {end.token_id}
        self._stop_text = end.text

        config = copy.deepcopy(generation_config)
        if config is None:
            config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
        config.max_new_tokens = config.max_new_tokens or max_new_tokens
        config.return_dict_in_generate = True
        for ids in (config.eos_token_id, model.generation_config.eos_token_id, tokenizer.eos_token_id):
            self._stop_ids.update([ids] if isinstance(ids, int) else ids or ())
        if not self._stop_ids and not self._stop_text:
            raise ValueError("neither the tokenizer nor its chat template says where a turn ends; set `eos_token`")
        config.eos_token_id = sorted(self._stop_ids) or None
        pad = tokenizer.pad_token_id
        self._pad_id = min(self._stop_ids, default=0) if pad is None else pad
        # Rows that have ended go on with a stop token: models warn of pad tokens that no mask hides.
        config.pad_token_id = min(self._stop_ids, default=self._pad_id)
        self.generation_config = config

        self._positions = getattr(model.config, "max_position_embeddings", None)  # models with no limit have none
        self._warned = False
        self._dialogues: DialogueCache | None = None

    def __call__(self, conversations: Sequence[Conversation]) -> list[str]:
        """One reply per conversation, without the template's marks and surrounding white space."""
        return self.reply(conversations)

    def reply(self, conversations: Sequence[Conversation], contexts: Sequence[str] | None = None) -> list[str]:
        """Like a call, with a text put before each rendered conversation.

        Args:
            conversations (`list[list[dict]]`): in message format.
            contexts (`list[str]`, *optional*): one per conversation, such as a rendered example episode; the first
                thing left out where the model's context is too short.
        """
        prompts = self._encode(conversations, contexts or [""] * len(conversations))
        size = self.batch_size or max(len(prompts), 1)
        replies = []
        was_training = self.model.training
        self.model.eval()
        try:
            with self._random_state():
                for start in range(0, len(prompts), size):
                    replies += self._generate(prompts[start : start + size])
        finally:
            self.model.train(was_training)
        return replies

    @contextmanager
    def remembering(self):
        """A context in which no turn of a dialogue is read twice: the model's keys and values are kept from one reply to the next.
        Its parameters must not change meanwhile."""
        room = None if self._positions is None else self._positions - self.generation_config.max_new_tokens
        self._dialogues = DialogueCache(self._pad_id, room)
        try:
            yield
        finally:
            self._dialogues = None

    def render(self, conversation: Conversation) -> str:
        """The text up to and with the header of the role's next turn."""
        if self.role == "assistant":
            text = self._render(conversation, add_generation_prompt=True)
        else:
            turn = {"role": self.role, "content": CONTENT}
            text = self._render([*conversation, turn]).partition(CONTENT)[0]
        # In most vocabularies a word brings its own leading space, so a prompt must not end with one.
        return text.rstrip(" ")

    def _encode(self, conversations, contexts) -> list[list[int]]:
        texts = [context + self.render(conversation) for context, conversation in zip(contexts, conversations)]
        prompts = self._tokenize(texts)
        for i, conversation in enumerate(conversations):
            if self._too_long(prompts[i]) and contexts[i]:
                prompts[i] = self._tokenize([self.render(conversation)])[0]
            while self._too_long(prompts[i]):
                conversation = _without_oldest_turns(conversation)
                if conversation is None:
                    raise ValueError(
                        f"conversation {i} has {len(prompts[i])} tokens even without its older turns, too many for the "
                        f"model's {self._positions} positions and a reply; shorten the observations or take a model "
                        "with a longer context"
                    )
                if not self._warned:
                    logger.warning("a conversation is longer than the model's context: its oldest turns are left out")
                    self._warned = True
                prompts[i] = self._tokenize([self.render(conversation)])[0]
        return prompts

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []

    def _too_long(self, prompt: list[int]) -> bool:
        if self._positions is None:
            return False
        return len(prompt) > self._positions - min(self.generation_config.max_new_tokens, self._positions // 4)

    def _generate(self, prompts: list[list[int]]) -> list[str]:
        config, dialogues = self.generation_config, self._dialogues
        if dialogues is None:
            dialogues = DialogueCache(self._pad_id)
        inputs = dialogues.inputs(prompts)
        width, attention_mask = inputs["input_ids"].shape[1], inputs["attention_mask"]
        if self._positions is not None and width + config.max_new_tokens > self._positions:
            config = copy.copy(config)
            config.max_new_tokens = self._positions - width
        criteria = StoppingCriteriaList()
        if self._stop_text is not None:
            criteria.append(_StopAtText(self.tokenizer, self._stop_text, width))
        output = self.model.generate(
            **{
                name: value.to(self.model.device) if torch.is_tensor(value) else value
                for name, value in inputs.items()
            },
            generation_config=config,
            stopping_criteria=criteria,
        )
        if self._dialogues is not None:
            dialogues.keep(output.sequences, attention_mask, output.past_key_values)
        sequences = output.sequences[:, width:].tolist()
        ended = [next((i for i, t in enumerate(ids) if t in self._stop_ids), len(ids)) for ids in sequences]
        replies = self.tokenizer.batch_decode(
            [ids[:end] for ids, end in zip(sequences, ended)], skip_special_tokens=True
        )
        if self._stop_text is not None:
            replies = [_before(reply, self._stop_text) for reply in replies]
        return [reply.strip() for reply in replies]

    @contextmanager
    def _random_state(self):
        if self._seeds is None:
            yield
            return
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self._seeds.getrandbits(63))
            yield


class _StopAtText(StoppingCriteria):
    """Ends a row once its new tokens, decoded, hold the text that ends a turn."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str, prompt_length: int):
        self.tokenizer, self.text, self.prompt_length = tokenizer, text, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        # A token is at least one character, or a part of one.
        start = max(self.prompt_length, input_ids.shape[1] - 4 * len(self.text))
        replies = self.tokenizer.batch_decode(input_ids[:, start:], skip_special_tokens=True)
        return torch.tensor([_before(reply, self.text) != reply for reply in replies], device=input_ids.device)


def _before(reply: str, text: str) -> str:
    """The part of `reply` before `text`; blank lines that a model puts before its turn do not end it."""
    lead = len(reply) - len(reply.lstrip())
    position = reply.find(text, lead)
    return reply if position < 0 else reply[:position]


def _without_oldest_turns(conversation: Conversation) -> Conversation | None:
    """Drop the oldest action and its answer, never the opening turns; `None` if nothing but the last is left."""
    opening = next(i for i, message in enumerate(conversation) if message["role"] != "system") + 1
    if len(conversation) - opening <= 2:
        return None
    return conversation[:opening] + conversation[opening + 2 :]
