"""Synthetic self-play ([B] Appendix F): one language model plays both roles, no simulator.

An environment takes part by offering `synthetic_rules()`, which returns a [`SyntheticRules`]: the roles' prompts, when
a text-only episode is over, and what it earned by its own words.
"""

import hashlib
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from datasets import Dataset
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from boost_trl.data.trajectories import to_trajectory
from boost_trl.files import whole_file

from .base import Environment, Task, make_env
from .policies import GenerationPolicy
from .rollout import as_task


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

    def rewards_from_text(self, messages: list[Message], task: Task) -> TextOutcome:
        """Judge a finished episode by its words; `messages` still hold the final observation, if there was one."""


@runtime_checkable
class OffersSyntheticRules(Protocol):
    """An environment that takes part in synthetic self-play."""

    def synthetic_rules(self) -> SyntheticRules:
        """The rules of its games."""


def generate_synthetic(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    env: Environment | SyntheticRules | str,
    *,
    prompt_style: Literal["plain", "paper"] = "plain",
    example: bool = True,
    seed: int = 0,
    batch_size: int = 64,
    max_turns: int | None = None,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    output_path: str | os.PathLike | None = None,
    progress: bool = True,
) -> Dataset:
    """One synthetic trajectory per row of `dataset`, continued from the row's first observation and action.

    The model writes observation and action in turn until the rules call the episode over. Each turn is conditioned on
    an example trajectory, drawn from the other rows, and on the history so far. What does not fit the model's context is
    left out: first the example, then the oldest turns.

    Args:
        model (`PreTrainedModel`): the language model that will be fine-tuned; it plays both roles.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        dataset (`Dataset`): training rows in the trajectory format; `task` is needed by `prompt_style="paper"`.
        env (`Environment`, `SyntheticRules` or `str`): the rules, an environment that offers them, or its name.
        prompt_style (`str`, *optional*, defaults to `"plain"`): `"plain"` puts the example's rendered text before the
            history, which a small model can continue; `"paper"` puts the role's system prompt and the example there.
        example (`bool`, *optional*, defaults to `True`): show an example trajectory.
        seed (`int`, *optional*, defaults to `0`): of sampling and of the choice of examples.
        batch_size (`int`, *optional*, defaults to `64`): episodes that are written together, and rows saved at once.
        max_turns (`int`, *optional*): actions per episode; the rules' own limit by default, and at most.
        max_new_tokens (`int`, *optional*, defaults to `64`): per turn.
        temperature (`float`, *optional*, defaults to `1.0`): of sampling, for both roles.
        output_path (`str`, *optional*): JSON-lines file that grows batch by batch. A run that was killed goes on where
            it stopped when it is called again with the same arguments, and gives the rows of an uninterrupted run.
        progress (`bool`, *optional*, defaults to `True`): show a bar over episodes.

    Returns:
        `datasets.Dataset` in the trajectory format and in the order of `dataset`, with `source` `"synthetic"`,
        `score` and `success` by the text, and `parent`, the index of the row that seeded it.

    Raises:
        ValueError: if the environment offers no rules, a row is bad or has no task where one is needed, or
            `output_path` holds rows of other arguments.
    """
    rules = rules_of(env)
    if prompt_style not in ("plain", "paper"):
        raise ValueError(f"`prompt_style` must be 'plain' or 'paper', got {prompt_style!r}")
    if max_turns is not None and max_turns < 1:
        raise ValueError(f"`max_turns` must be at least 1, got {max_turns}")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; sampling needs a positive one")
    seeds = [_seed_row(row, index, prompt_style) for index, row in enumerate(dataset)]
    if not seeds:
        raise ValueError("dataset is empty: there is no trajectory to continue")
    limit = min(max_turns or rules.max_turns, rules.max_turns)
    settings = {
        "prompt_style": prompt_style,
        "example": example,
        "seed": seed,
        "batch_size": batch_size,
        "max_turns": limit,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "model": model.config.name_or_path,
        # How the rules judge a known text stands for their own options, such as the kind of reward.
        "rules": [type(rules).__name__, *rules.rewards_from_text(seeds[0]["messages"], seeds[0]["task"])],
        "rows": hashlib.sha256(json.dumps([row["messages"] for row in seeds]).encode()).hexdigest(),
    }
    shards = None if output_path is None else _ShardFile(Path(output_path), settings, len(seeds), batch_size)
    rows = [] if shards is None else shards.rows
    config = GenerationConfig(
        do_sample=True, temperature=temperature, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens
    )
    multiline = any("\n" in m["content"] for row in seeds for m in row["messages"] if m["role"] != "assistant")
    bar = tqdm(total=len(seeds), initial=len(rows), desc="Synthesizing", unit="episode", disable=not progress)
    while len(rows) < len(seeds):
        start = len(rows)
        # A batch has its own random streams, so that it does not matter in which run it is written.
        draw = random.Random(f"{seed}/{start}")
        player, world = (
            GenerationPolicy(
                model, tokenizer, generation_config=config, seed=draw.getrandbits(32), role=role, multiline=multiline
            )
            for role in ("assistant", "user")
        )
        episodes = []
        for index in range(start, min(start + batch_size, len(seeds))):
            other = draw.randrange(len(seeds) - 1) if example and len(seeds) > 1 else None
            shown = None if other is None else seeds[other + (other >= index)]["messages"]
            episodes.append(_Episode(seeds[index], index, shown, rules, prompt_style, tokenizer))
        playing = [episode for episode in episodes if not episode.over]
        while playing:
            _write_turns(world, playing, limit)
            playing = [episode for episode in playing if not episode.over]
            _write_turns(player, playing, limit)
            playing = [episode for episode in playing if not episode.over]
        new = [episode.row() for episode in episodes]
        if shards is not None:
            shards.append(new)
        rows = rows + new
        bar.update(len(new))
    bar.close()
    return Dataset.from_list(rows)


class _Episode:
    """One episode that the model writes."""

    def __init__(self, seed_row, index, example, rules, prompt_style, tokenizer):
        self.seed_row, self.index, self.rules = seed_row, index, rules
        self.messages: list[Message] = list(seed_row["prefix"])
        self.over = rules.is_terminal(self.messages)
        self._system = {}
        self._context = ""
        if prompt_style == "paper":
            lines = "" if example is None else "\n\nAn example of a valid trajectory:\n" + _transcript(example)
            for role, prompt in (("assistant", rules.agent_prompt), ("user", rules.environment_prompt)):
                self._system[role] = {"role": "system", "content": prompt(seed_row["task"]) + lines}
        elif example is not None:
            self._context = _rendered_example(tokenizer, example)

    def prompt(self, role: str) -> tuple[list[Message], str]:
        """Conversation and context from which the turn of `role` is written."""
        if not self._system:
            return self.messages, self._context
        return [self._system[role], *(m for m in self.messages if m["role"] != "system")], ""

    def add(self, role: str, content: str, limit: int) -> None:
        self.messages.append({"role": role, "content": content})
        # The answer to the last action is still written: rules may judge by it.
        spent = role != "assistant" and sum(m["role"] == "assistant" for m in self.messages) >= limit
        self.over = spent or self.rules.is_terminal(self.messages)

    def row(self) -> dict[str, Any]:
        outcome = self.rules.rewards_from_text(self.messages, self.seed_row["task"])
        messages = list(self.messages)
        while outcome.terminated and messages[-1]["role"] != "assistant":
            messages.pop()
        row = {
            "messages": messages,
            "rewards": [float(reward) for reward in outcome.rewards],
            "terminated": outcome.terminated,
            "category": self.seed_row["category"],
            "source": "synthetic",
            "task": self.seed_row["task_column"],
            "score": float(outcome.score),
            "success": outcome.success,
            "parent": self.index,
        }
        to_trajectory(row, self.index, "rewards_from_text of the synthetic rules")
        return row


def _write_turns(policy: GenerationPolicy, episodes: list[_Episode], limit: int) -> None:
    if episodes:
        conversations, contexts = zip(*(episode.prompt(policy.role) for episode in episodes))
        for episode, reply in zip(episodes, policy.reply(conversations, contexts)):
            episode.add(policy.role, reply, limit)


def _rendered_example(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> str:
    """The example as the template writes it.

    Where a template opens turns with nothing, only their order tells whose turn it is, and the first observation of
    the history would read as the answer to an example's last action: that action is left out.
    """
    opening = tokenizer.apply_chat_template(messages[:1], tokenize=False)
    if opening.startswith(messages[0]["content"]) and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return tokenizer.apply_chat_template(messages, tokenize=False)


def _transcript(messages: Sequence[Message]) -> str:
    names = {"assistant": "Agent", "user": "Environment", "tool": "Environment"}
    return "\n".join(f"{names[m['role']]}: {m['content']}" for m in messages if m["role"] != "system")


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


def _seed_row(row: dict[str, Any], index: int, prompt_style: str) -> dict[str, Any]:
    messages = [{"role": m["role"], "content": m["content"]} for m in to_trajectory(row, index)["messages"]]
    first_action = next(i for i, message in enumerate(messages) if message["role"] == "assistant")
    column = task = row.get("task")
    if task is None and prompt_style == "paper":
        raise ValueError(f"dataset, row {index}, column `task`: is missing; the environment's role prompt needs it")
    if task is not None:
        task = as_task({"category": row.get("category") or "", **task})
    return {
        "messages": messages,
        "prefix": messages[: first_action + 1],
        "task": task,
        "task_column": column,
        "category": row.get("category"),
    }


class _ShardFile:
    """Rows on disk, one batch at a time, beside the settings that they were made with."""

    def __init__(self, path: Path, settings: dict[str, Any], num_rows: int, batch_size: int):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        settings_path = path.with_name(path.name + ".settings.json")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            settings_path.write_text(json.dumps(settings, indent=2) + "\n")
            return
        settings = json.loads(json.dumps(settings))
        known = json.loads(settings_path.read_text()) if settings_path.exists() else {}
        differing = [
            f"{key}={known.get(key)!r}, now {settings[key]!r}" for key in settings if known.get(key) != settings[key]
        ]
        if differing:
            raise ValueError(
                f"{path} holds rows of other settings ({'; '.join(differing)}); remove it or name another"
            )
        lines = path.read_bytes().splitlines(keepends=True)
        whole = len([line for line in lines if line.endswith(b"\n")])
        whole = num_rows if whole >= num_rows else whole - whole % batch_size
        if whole < len(lines):
            # A kill in the middle of a write leaves a part of a batch.
            with whole_file(path) as draft:
                draft.write_bytes(b"".join(lines[:whole]))
        self.rows = [json.loads(line) for line in lines[:whole]]

    def append(self, rows: list[dict[str, Any]]) -> None:
        with self.path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
