"""Trajectories as token ids, with action tokens, their rewards and returns.

Per token: the state of an action token is the prefix before it, so its hidden state is that of the token one
position earlier. An action is every token that the chat template marks as the assistant's, its end marker included.
The reward of a turn sits on its last token. Returns are those of the whole episode: they are computed before
truncation and cut with it.
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from boost_trl.data.template_arguments import render_rows, template_arguments, unread_arguments
from boost_trl.data.trajectories import plain_rows, to_trajectory
from boost_trl.losses import returns_to_go


logger = logging.getLogger(__name__)

DISCOUNT_LEVELS = ("turn", "token")


@dataclass
class TokenizedTrajectory:
    """One episode. All arrays but `input_ids` have one entry per action token, (T,).

    Args:
        input_ids (`np.ndarray` of shape `(S,)`): the rendered episode, cut to whole turns.
        action_positions (`np.ndarray`): where the action tokens stand in `input_ids`; all >= 1.
        rewards (`np.ndarray`): 0 but on the last token of each turn.
        returns (`np.ndarray`): reward-to-go of the uncut episode.
        discounts (`np.ndarray`): the factor between this token and its successor.
        bootstrap_position (`int`): the state that follows a cut episode, -1 after a terminated one.
    """

    input_ids: np.ndarray
    action_positions: np.ndarray
    rewards: np.ndarray
    returns: np.ndarray
    discounts: np.ndarray
    bootstrap_position: int

    @property
    def turn_lengths(self) -> np.ndarray:
        """Action tokens of each turn; turns never touch."""
        borders = np.flatnonzero(np.diff(self.action_positions) > 1) + 1
        return np.diff(borders, prepend=0, append=len(self.action_positions))


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Half-open intervals of ones."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def check_prefix_property(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict],
    where: str,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> None:
    """Raise unless every prefix of the dialogue renders to a prefix of the whole.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): with a chat template.
        messages (`list[dict]`): the dialogue.
        where (`str`): what the message calls it.
        chat_template_kwargs (`dict`, *optional*): what the template gets beside the messages.

    Raises:
        ValueError: naming the turn at which the chat template rewrites what came before.
    """
    render = partial(tokenizer.apply_chat_template, tokenize=False, **(chat_template_kwargs or {}))
    whole = render(messages)
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prefixes = [render(messages[: turn + 1])]
        # No chat template renders an empty dialogue, and no policy is asked to continue one.
        if turn > 0:
            prefixes.append(render(messages[:turn], add_generation_prompt=True))
        for text in prefixes:
            if not whole.startswith(text):
                raise ValueError(
                    f"{where}: the chat template of {tokenizer.name_or_path or type(tokenizer).__name__} rewrites "
                    f"earlier turns (seen at turn {turn}), so the policy would be trained on prefixes that it never "
                    "meets; use a template that only appends, e.g. trl.get_training_chat_template(tokenizer) or "
                    "boost_trl.data.chat_templates.PLAIN_CHAT_TEMPLATE"
                )


def _tokenize_one(row, input_ids, mask, tokenizer, max_length, discount, discount_level):
    """The arrays of one checked row, or `None` when no whole action fits into `max_length`."""
    input_ids = np.asarray(input_ids, dtype=np.int32)
    turns = _turns(np.asarray(mask, dtype=np.int8), len(row["rewards"]))
    rewards, returns, discounts = _rewards_of_tokens(turns, row["rewards"], discount, discount_level)
    kept = sum(end <= max_length for _, end in turns)
    if kept == 0:
        return None
    end_of_action = turns[kept - 1][1]
    bootstrap, length = -1, end_of_action
    if kept < len(turns) and turns[kept][0] <= max_length:
        # The reply to the last kept action still fits: V(s') may read it.
        length = turns[kept][0]
        bootstrap = length - 1
    elif kept < len(turns):
        bootstrap = end_of_action - 1
    elif not row["terminated"]:
        bootstrap = end_of_action - 1
        if row["messages"][-1]["role"] != "assistant":
            prompted = _ids_with_generation_prompt(tokenizer, row)
            if len(prompted) <= max_length:
                input_ids, length = prompted, len(prompted)
                bootstrap = length - 1
    positions = np.concatenate([np.arange(start, end) for start, end in turns[:kept]])
    return TokenizedTrajectory(
        input_ids=input_ids[:length],
        action_positions=positions,
        rewards=rewards[: len(positions)],
        returns=returns[: len(positions)],
        discounts=discounts[: len(positions)],
        bootstrap_position=bootstrap,
    )


def _turns(mask: np.ndarray, num_turns: int) -> list[tuple[int, int]]:
    """Half-open intervals of the action tokens of each turn."""
    turns = _runs(mask)
    if len(turns) != num_turns:
        raise ValueError(
            f"the chat template marks {len(turns)} assistant spans for {num_turns} assistant turns; "
            "each turn's end marker must be inside its `{% generation %}` block and turns must not touch"
        )
    # Nothing precedes the first token, so it has no state and cannot be learned.
    turns = [(max(start, 1), end) for start, end in turns]
    if any(start >= end for start, end in turns):
        raise ValueError("an assistant turn renders to no token after the first one of the episode")
    return turns


def _rewards_of_tokens(
    turns: list[tuple[int, int]], rewards: list[float], discount: float, discount_level: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards, returns and discounts of the action tokens, (T,) each, from the rewards of the turns."""
    lengths = [end - start for start, end in turns]
    last_of_turn = np.cumsum(lengths) - 1
    token_rewards = np.zeros(sum(lengths))
    token_rewards[last_of_turn] = rewards
    if discount_level == "token":
        discounts = np.full(len(token_rewards), discount)
        return token_rewards, returns_to_go(torch.from_numpy(token_rewards), discount).numpy(), discounts
    discounts = np.ones(len(token_rewards))
    discounts[last_of_turn] = discount
    turn_returns = returns_to_go(torch.tensor(rewards, dtype=torch.float64), discount).numpy()
    return token_rewards, np.repeat(turn_returns, lengths), discounts


def _ids_with_generation_prompt(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]) -> np.ndarray:
    rendered = tokenizer.apply_chat_template(
        row["messages"], add_generation_prompt=True, return_dict=True, **template_arguments(row)
    )
    return np.asarray(rendered["input_ids"], dtype=np.int32)


def tokenize_trajectories(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 1024,
    discount: float = 1.0,
    discount_level: str = "turn",
    name: str = "dataset",
    batch_size: int = 256,
) -> list[TokenizedTrajectory | None]:
    """Check and tokenise every row.

    Args:
        dataset (`Dataset`): rows in the trajectory format.
        tokenizer (`PreTrainedTokenizerBase`): with a chat template that marks the assistant's tokens.
        max_length (`int`, *optional*, defaults to `1024`): tokens; whole turns are dropped from the end beyond it.
        discount (`float`, *optional*, defaults to `1.0`): γ.
        discount_level (`str`, *optional*, defaults to `"turn"`): `"turn"`, or `"token"` (LMRL-Gym).
        name (`str`, *optional*): what messages call the dataset.

    Returns:
        `list`: one entry per row; `None` for a row without a whole action within `max_length`.

    Raises:
        ValueError: for an unknown `discount_level`, a bad row, a template that rewrites earlier turns, or when no row is left.
    """
    if discount_level not in DISCOUNT_LEVELS:
        raise ValueError(f"`discount_level` must be 'turn' or 'token', got {discount_level!r}")
    if len(dataset) == 0:
        raise ValueError(f"{name} is empty: it has no trajectory to use")
    dataset = plain_rows(dataset)
    spot_checks = {*range(min(16, len(dataset))), *range(0, len(dataset), max(1, len(dataset) // 16))}
    tokenized: list[TokenizedTrajectory | None] = []
    unread: set[str] = set()
    progress = tqdm(total=len(dataset), desc=f"Tokenizing {name}", disable=len(dataset) < 5000, leave=False)
    for start in range(0, len(dataset), batch_size):
        stop = min(start + batch_size, len(dataset))
        rows = [to_trajectory(dataset[index], index, name) for index in range(start, stop)]
        for index in sorted(spot_checks & set(range(start, stop))):
            row = rows[index - start]
            check_prefix_property(tokenizer, row["messages"], f"{name}, row {index}", template_arguments(row))
        for row in rows:
            if arguments := template_arguments(row):
                unread |= unread_arguments(tokenizer, arguments)
        for offset, (row, (ids, mask)) in enumerate(zip(rows, render_rows(tokenizer, rows))):
            try:
                tokenized.append(_tokenize_one(row, ids, mask, tokenizer, max_length, discount, discount_level))
            except ValueError as error:
                raise ValueError(f"{name}, row {start + offset}: {error}") from error
        progress.update(stop - start)
    progress.close()
    if unread:
        names = ", ".join(f"`{argument}`" for argument in sorted(unread))
        logger.warning(
            f"{name}: the chat template does not read {names}, which some rows pass to it: it makes no difference to them"
        )
    dropped = sum(item is None for item in tokenized)
    if dropped == len(tokenized):
        raise ValueError(f"{name}: no row has a whole action within `max_length`={max_length} tokens; raise it")
    if dropped:
        logger.warning(
            f"{name}: {dropped} of {len(tokenized)} rows have no whole action within `max_length`={max_length} tokens "
            "and are left out"
        )
    return tokenized
