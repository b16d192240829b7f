"""Environments as TRL's `rollout_func`: the model plays in text, for models whose template knows no tools."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers.integrations import is_deepspeed_zero3_enabled

from ..base import Environment
from ..rollout import _as_factory
from .trl_episode import Episode


if TYPE_CHECKING:
    from trl import GRPOTrainer

_TURN = "\u27e6turn\u27e7"  # stands for an action when the template is asked what it writes after one


def env_reward(completions: list, env_reward: list[float], **kwargs: Any) -> list[float]:
    """The reward function that goes with [`as_rollout_func`]: what the environment paid for each game."""
    return env_reward


def as_rollout_func(
    env: Environment | Callable[[], Environment] | str,
    *,
    max_turn_tokens: int = 64,
    reward: str | None = None,
    unfinished_reward: float = 0.0,
) -> Callable[[list, "GRPOTrainer"], dict[str, Any]]:
    """Make an environment trainable with `GRPOTrainer(rollout_func=...)`, on the rows of [`grpo_rows`].

    Every assistant turn is one action, in the environment's own words. A completion is the whole game after its first
    observation; `env_mask` takes the tokens that the model did not write out of the loss. Pass `env_reward` in
    `reward_funcs`. All games of a batch advance together, one `generate` per turn.

    A game ends as the environment says, or when the next observation would leave no room in
    `GRPOConfig.max_completion_length`, which counts observations too. A turn ends with one of the end-of-sequence
    tokens of the trainer or after `max_turn_tokens`; with a model that thinks before it acts, turn that off by
    `GRPOConfig.chat_template_kwargs`.

    Args:
        env (`Environment`, callable or `str`): an environment (copied for each concurrent game), a factory, or a name
            for `make_env`.
        max_turn_tokens (`int`, *optional*, defaults to `64`): longest action.
        reward (`str`, *optional*), unfinished_reward (`float`, *optional*, defaults to `0.0`): as in
            [`as_environment_factory`].

    Returns:
        `Callable`, TRL's `RolloutFunc`. It raises `ValueError` for rows that are not from [`grpo_rows`], for a template
        that rewrites assistant turns, and for `use_vllm`, continuous batching, FSDP and ZeRO-3 (every process
        generates with the model's own `generate`, as often as its games need; DDP and ZeRO-2 are fine).

    Example:

    ```python
    >>> env = make_env("car_dealer", world="small")
    >>> trainer = GRPOTrainer(
    ...     model, [env_reward], args, grpo_rows(env), processing_class=tokenizer, rollout_func=as_rollout_func(env)
    ... )
    ```
    """
    make = _as_factory(env)
    pool: list[Episode] = []

    def rollout_func(prompts: list[list[dict[str, Any]]], trainer: "GRPOTrainer") -> dict[str, Any]:
        _check_backend(trainer)
        # The prompts are already repeated, once for each generation: one game per entry.
        while len(pool) < len(prompts):
            pool.append(Episode(make(), reward, unfinished_reward))
        games = [_start(episode, prompt, trainer) for episode, prompt in zip(pool, prompts)]
        limit = trainer.max_completion_length
        while playing := [game for game in games if not game.over]:
            room = max(limit - len(game.completion_ids) for game in playing)
            turns = _generate(trainer, [game.ids for game in playing], min(max_turn_tokens, room))
            for game, ids in zip(playing, turns):
                game.play(ids[: limit - len(game.completion_ids)], trainer)
        return {
            "prompt_ids": [game.prompt_ids for game in games],
            "completion_ids": [game.completion_ids for game in games],
            "logprobs": None,  # TRL computes them with the model that generated
            "env_mask": [game.mask for game in games],
            "env_reward": [game.episode.reward for game in games],
        }

    return rollout_func


def _check_backend(trainer: "GRPOTrainer") -> None:
    refused = {
        "use_vllm": trainer.use_vllm,
        "use_transformers_continuous_batching": trainer.use_transformers_continuous_batching,
        # Processes call `generate` a different number of times, so none may wait for another inside it.
        "FSDP": trainer.is_fsdp_enabled,
        "DeepSpeed ZeRO-3": is_deepspeed_zero3_enabled(),
    }
    for name, used in refused.items():
        if used:
            raise ValueError(f"as_rollout_func generates with the model's own `generate`, which excludes {name}")


@dataclass
class _Game:
    episode: Episode
    prompt_ids: list[int]
    completion_ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)  # 1: written by the model
    over: bool = False

    @property
    def ids(self) -> list[int]:
        return self.prompt_ids + self.completion_ids

    def play(self, ids: list[int], trainer: "GRPOTrainer") -> None:
        tokenizer = trainer.processing_class
        self.completion_ids += ids
        self.mask += [1] * len(ids)
        observation = self.episode.act(tokenizer.decode(ids, skip_special_tokens=True).strip())
        ended = ids[-1] in trainer.eos_token_ids
        between = _between_turns(observation, tokenizer.decode(ids[-1:]) if ended else "", trainer)
        # A game without room for a next action ends here, and what nobody reads is not appended.
        self.over = self.episode.over or len(self.completion_ids) + len(between) >= trainer.max_completion_length
        if not self.over:
            self.completion_ids += between
            self.mask += [0] * len(between)


def _start(episode: Episode, prompt: list[dict[str, Any]], trainer: "GRPOTrainer") -> _Game:
    last = prompt[-1]
    if not last.get("game"):
        raise ValueError("the last message of a prompt has no `game`: make the dataset with `grpo_rows(env)`")
    game = json.loads(last["game"])
    opening = [*prompt[:-1], {**last, "content": last["content"] + episode.start(game["task"], game["seed"])}]
    messages = [{"role": message["role"], "content": message["content"]} for message in opening]
    return _Game(episode, _tokenize(_render(messages, trainer), trainer))


def _between_turns(observation: str, written: str, trainer: "GRPOTrainer") -> list[int]:
    """Tokens from the end of an action to the start of the next; `written` is the end that the model wrote itself."""
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": _TURN},
        {"role": "user", "content": observation},
    ]
    _, found, after = _render(messages, trainer).partition(_TURN)
    if not found:
        raise ValueError("the chat template does not write the content of an assistant turn as it is")
    return _tokenize(after.removeprefix(written), trainer)


def _render(messages: list[dict[str, str]], trainer: "GRPOTrainer") -> str:
    return trainer.processing_class.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **trainer.chat_template_kwargs
    )


def _tokenize(text: str, trainer: "GRPOTrainer") -> list[int]:
    return trainer.processing_class(text, add_special_tokens=False)["input_ids"]


def _generate(trainer: "GRPOTrainer", prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """One turn for each prompt, up to and with the first end-of-sequence token."""
    from trl.models import unwrap_model_for_generation

    config = copy.copy(trainer.generation_config)
    config.max_new_tokens = max_new_tokens
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), trainer.processing_class.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    with (
        torch.no_grad(),
        unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            generation_kwargs=trainer.generation_kwargs,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as model,
    ):
        sequences = model.generate(
            input_ids=input_ids.to(trainer.accelerator.device),
            attention_mask=attention_mask.to(trainer.accelerator.device),
            generation_config=config,
        )[:, width:].tolist()
    stops = set(trainer.eos_token_ids)
    ends = [next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids)) for ids in sequences]
    return [ids[:end] for ids, end in zip(sequences, ends)]
