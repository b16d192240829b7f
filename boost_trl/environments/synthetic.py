"""Synthetic self-play ([B] Appendix F): one language model plays both roles, no simulator.

An environment takes part by offering `synthetic_rules()`, which returns a [`SyntheticRules`]: the roles' prompts, when
a text-only episode is over, and what it earned by its own words.
"""

import hashlib
import json
import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

from datasets import Dataset
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from boost_trl.data import template_arguments
from boost_trl.data.trajectories import to_trajectory

from .base import Environment, Task, make_env
from .policies import GenerationPolicy
from .synthetic_file import SyntheticFile
from .synthetic_fit import check_rows_fit, task_of_row
from .synthetic_rules import Message, OffersSyntheticRules, SyntheticRules, TextOutcome, rules_of
from .time_limit import time_limit


__all__ = ["OffersSyntheticRules", "SyntheticRules", "TextOutcome", "generate_synthetic"]


logger = logging.getLogger(__name__)

_RULES_TIMEOUT = 600.0  # seconds, as of a step in `rollout`


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
    left out: first the example, then the oldest turns. `tools` and `chat_template_kwargs` that all rows share are rendered too.

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
        `score` and `success` by the text, `parent`, the index of the row that seeded it, and that row's `category`,
        `task`, `tools` and `chat_template_kwargs`.

    Raises:
        RuntimeError: if the rules raised, hung or answered nonsense in every episode; in some, these are left out with a warning.
        ValueError: if the environment offers no rules, a row is bad, has no task where one is needed or is no game of the
            environment (see `check_rows_fit`; rules alone take any row), or `output_path` holds rows of other arguments.
    """
    _check_options(prompt_style, max_turns, temperature)
    env = make_env(env) if isinstance(env, str) else env
    rules = rules_of(env)
    seeds = _seed_rows(dataset, rules, prompt_style)
    if isinstance(env, Environment):
        check_rows_fit(env, dataset, "dataset")
    self_play = _SelfPlay(
        model,
        tokenizer,
        rules,
        seeds,
        prompt_style=prompt_style,
        example=example,
        seed=seed,
        max_turns=min(max_turns or rules.max_turns, rules.max_turns),
        generation_config=GenerationConfig(
            do_sample=True, temperature=temperature, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens
        ),
        chat_template_kwargs=_template_arguments(dataset),
    )
    settings = self_play.settings(getattr(env, "name", None)) | {"batch_size": batch_size}
    file = None
    if output_path is not None:
        file = SyntheticFile(output_path, settings, len(seeds), batch_size, type(rules).__name__)
    rows = [] if file is None else file.rows
    bar = tqdm(total=len(seeds), initial=len(rows), desc="Synthesizing", unit="episode", disable=not progress)
    while len(rows) < len(seeds):
        new = self_play.write(range(len(rows), min(len(rows) + batch_size, len(seeds))))
        if file is not None:
            file.append(new)
        rows = rows + new
        bar.update(len(new))
    bar.close()
    return Dataset.from_list(_kept(rows))


def _kept(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the episodes that the rules have not lost."""
    lost = [row["lost"] for row in rows if "lost" in row]
    if len(lost) == len(rows):
        raise RuntimeError(f"the synthetic rules lost all {len(rows)} episodes, such as by: {lost[0]}")
    if lost:
        logger.warning(
            "%d of %d episodes were lost by the synthetic rules, such as by: %s", len(lost), len(rows), lost[0]
        )
    return [row for row in rows if "lost" not in row]


def _check_options(prompt_style: str, max_turns: int | None, temperature: float) -> None:
    if prompt_style not in ("plain", "paper"):
        raise ValueError(f"`prompt_style` must be 'plain' or 'paper', got {prompt_style!r}")
    if max_turns is not None and max_turns < 1:
        raise ValueError(f"`max_turns` must be at least 1, got {max_turns}")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; sampling needs a positive one")


class _SeedRow(NamedTuple):
    """A row of the dataset, from whose first observation and action an episode goes on."""

    messages: list[Message]
    task: Task | None
    columns: dict[str, Any]

    @property
    def prefix(self) -> list[Message]:
        first_action = next(at for at, message in enumerate(self.messages) if message["role"] == "assistant")
        return self.messages[: first_action + 1]

    def content(self) -> list:
        """The row's text and template arguments, as JSON values."""
        arguments = {column: self.columns.get(column) for column in template_arguments.COLUMNS}
        return [*self.messages, arguments] if any(arguments.values()) else self.messages


def _seed_rows(dataset: Dataset, rules: SyntheticRules, prompt_style: str) -> list[_SeedRow]:
    seeds = []
    for index, row in enumerate(dataset):
        messages = [{"role": m["role"], "content": m["content"]} for m in to_trajectory(row, index)["messages"]]
        task = task_of_row(row, index, "dataset")
        if prompt_style == "paper":
            _check_prompt(rules, task, f"dataset, row {index}, column `task`")
        columns = {"category": row.get("category"), "task": row.get("task")}
        columns |= {column: row[column] for column in template_arguments.COLUMNS if column in row}
        seeds.append(_SeedRow(messages, task, columns))
    if not seeds:
        raise ValueError("dataset is empty: there is no trajectory to continue")
    return seeds


def _check_prompt(rules: SyntheticRules, task: Task | None, where: str) -> None:
    if task is None:
        raise ValueError(f"{where}: is missing; the environment's role prompt needs it")
    try:
        rules.environment_prompt(task)
    except Exception as error:  # rules of others raise what they like at a task that is not theirs
        raise ValueError(f"{where}: the environment's role prompt cannot be written for it: {error}") from error


def _judgement(rules: SyntheticRules, row: _SeedRow) -> tuple:
    try:
        with time_limit(_RULES_TIMEOUT, "an answer of the synthetic rules"):
            return tuple(rules.rewards_from_text(row.messages, row.task))
    except (Exception, SystemExit) as error:
        return (f"{type(error).__name__}: {error}",)


def _template_arguments(dataset: Dataset) -> dict[str, Any]:
    """The rows' common arguments of the chat template; none, with a warning, where they differ."""
    shared = template_arguments.shared_template_arguments(dataset)
    if shared is None:
        logger.warning("dataset: rows differ in `tools` or `chat_template_kwargs`, so the model reads neither of them")
    return shared or {}


@dataclass(frozen=True)
class _SelfPlay:
    """The settings that the episodes of one call share, and a batch of them at a time."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rules: SyntheticRules
    seeds: Sequence[_SeedRow]
    prompt_style: str
    example: bool
    seed: int
    max_turns: int
    generation_config: GenerationConfig
    chat_template_kwargs: dict[str, Any]

    def write(self, indices: range) -> list[dict[str, Any]]:
        """The synthetic rows of `indices`: a batch, whose episodes are written turn by turn together."""
        # A batch has its own random streams, so that it does not matter in which run it is written.
        draw = random.Random(f"{self.seed}/{indices.start}")
        player, world = (self._policy(role, draw.getrandbits(32)) for role in ("assistant", "user"))
        episodes = [self._episode(index, draw) for index in indices]
        playing = [episode for episode in episodes if not episode.over]
        with world.remembering(), player.remembering():
            while playing:
                for policy in (world, player):
                    _write_turns(policy, playing, self.max_turns)
                    playing = [episode for episode in playing if not episode.over]
        return [episode.row() for episode in episodes]

    def settings(self, environment: str | None) -> dict[str, Any]:
        """Settings by which a file of rows is known to be of this call; JSON values."""
        first = self.seeds[0]
        return {
            "prompt_style": self.prompt_style,
            "example": self.example,
            "seed": self.seed,
            "max_turns": self.max_turns,
            "max_new_tokens": self.generation_config.max_new_tokens,
            "temperature": self.generation_config.temperature,
            "model": self.model.config.name_or_path,
            # How the rules judge a known text stands for their own options, such as the kind of reward.
            "rules": [environment, *_judgement(self.rules, first)],
            "rows": hashlib.sha256(json.dumps([row.content() for row in self.seeds]).encode()).hexdigest(),
        }

    @cached_property
    def _multiline(self) -> bool:
        """Whether observations span lines."""
        return any("\n" in m["content"] for row in self.seeds for m in row.messages if m["role"] != "assistant")

    def _policy(self, role: str, seed: int) -> GenerationPolicy:
        return GenerationPolicy(
            self.model,
            self.tokenizer,
            generation_config=self.generation_config,
            seed=seed,
            role=role,
            multiline=self._multiline,
            chat_template_kwargs=self.chat_template_kwargs,
        )

    def _episode(self, index: int, draw: random.Random) -> "_Episode":
        shown = None
        if self.example and len(self.seeds) > 1:
            other = draw.randrange(len(self.seeds) - 1)
            shown = self.seeds[other + (other >= index)].messages
        render = partial(self.tokenizer.apply_chat_template, tokenize=False, **self.chat_template_kwargs)
        return _Episode(self.seeds[index], index, shown, self.rules, self.prompt_style, render)


class _Episode:
    """One episode that the model writes."""

    def __init__(self, seed_row, index, example, rules, prompt_style, render):
        self.seed_row, self.index, self.rules = seed_row, index, rules
        self.messages: list[Message] = seed_row.prefix
        self.lost: str | None = None
        self.over = self._is_terminal()
        self._system = {}
        self._context = ""
        if prompt_style == "paper":
            lines = "" if example is None else "\n\nAn example of a valid trajectory:\n" + _transcript(example)
            for role, prompt in (("assistant", rules.agent_prompt), ("user", rules.environment_prompt)):
                self._system[role] = {"role": "system", "content": prompt(seed_row.task) + lines}
        elif example is not None:
            self._context = _rendered_example(render, example)

    def prompt(self, role: str) -> tuple[list[Message], str]:
        """Conversation and context from which the turn of `role` is written."""
        if not self._system:
            return self.messages, self._context
        return [self._system[role], *(m for m in self.messages if m["role"] != "system")], ""

    def add(self, role: str, content: str, limit: int) -> None:
        self.messages.append({"role": role, "content": content})
        # The answer to the last action is still written: rules may judge by it.
        spent = role != "assistant" and sum(m["role"] == "assistant" for m in self.messages) >= limit
        self.over = spent or self._is_terminal()

    def row(self) -> dict[str, Any]:
        """The episode in the trajectory format, or its `parent` and what its rules did, for one that they have `lost`."""
        row = None if self.lost is not None else self._limited(self._judged)
        return {"parent": self.index, "lost": self.lost} if row is None else row

    def _is_terminal(self) -> bool:
        return bool(self._limited(self.rules.is_terminal, self.messages)) or self.lost is not None

    def _limited(self, call: Callable, *args) -> Any:
        """The answer of rules, which may be of others; where they raise or hang, this episode is lost alone."""
        try:
            with time_limit(_RULES_TIMEOUT, "an answer of the synthetic rules"):
                return call(*args)
        except (Exception, SystemExit) as error:
            logger.debug("an episode was lost", exc_info=error)
            self.lost = f"{type(error).__name__}: {error}"
            return None

    def _judged(self) -> dict[str, Any]:
        outcome = self.rules.rewards_from_text(self.messages, self.seed_row.task)
        messages = list(self.messages)
        while outcome.terminated and messages[-1]["role"] != "assistant":
            messages.pop()
        row = {
            "messages": messages,
            "rewards": [float(reward) for reward in outcome.rewards],
            "terminated": outcome.terminated,
            **self.seed_row.columns,
            "source": "synthetic",
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


def _rendered_example(render: Callable[..., str], messages: list[Message]) -> str:
    """The example as the template writes it.

    Where a template opens turns with nothing, only their order tells whose turn it is, and the first observation of
    the history would read as the answer to an example's last action: that action is left out.
    """
    opening = render(messages[:1], tools=None)
    if opening.startswith(messages[0]["content"]) and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return render(messages)


def _transcript(messages: Sequence[Message]) -> str:
    names = {"assistant": "Agent", "user": "Environment", "tool": "Environment"}
    return "\n".join(f"{names[m['role']]}: {m['content']}" for m in messages if m["role"] != "system")
