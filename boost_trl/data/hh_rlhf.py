"""Anthropic's preference dialogues ([hh-rlhf](https://github.com/anthropics/hh-rlhf)) as trajectories.

A pair is two dialogues that differ in the assistant's last answer, of which people chose one. As in trlX's ILQL example
both are episodes: the chosen answer earns +1, the rejected one −1, earlier answers nothing.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_dataset


_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def parse_dialogue(text: str) -> list[dict[str, str]]:
    r"""The turns of `"\n\nHuman: …\n\nAssistant: …"`.

    Consecutive turns of one speaker become one, joined by an empty line.

    Args:
        text (`str`): the dialogue.

    Returns:
        `list[dict]`: messages, of which the last is the assistant's.

    Raises:
        ValueError: if the text does not begin with a turn or does not end with the assistant's.
    """
    before, *parts = _TURN.split(text)
    if before.strip() or not parts:
        raise ValueError(f"must begin with '\\n\\nHuman:' or '\\n\\nAssistant:', got {text[:40]!r}")
    messages: list[dict[str, str]] = []
    for speaker, content in zip(parts[::2], parts[1::2]):
        role, content = _ROLES[speaker], content.strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = f"{messages[-1]['content']}\n\n{content}".strip()
        else:
            messages.append({"role": role, "content": content})
    if messages[-1]["role"] != "assistant":
        raise ValueError("must end with an answer, '\\n\\nAssistant: …'")
    return messages


def load_hh_rlhf(
    name_or_path: str | os.PathLike = "Anthropic/hh-rlhf", *, data_dir: str = "harmless-base", split: str = "train"
) -> Dataset:
    """Preference pairs as trajectories, two rows per pair: the chosen dialogue, then the rejected one.

    Args:
        name_or_path (`str`, *optional*, defaults to `"Anthropic/hh-rlhf"`): a `.jsonl` or `.jsonl.gz` file with the
            keys `chosen` and `rejected`, or a dataset on the Hub.
        data_dir (`str`, *optional*, defaults to `"harmless-base"`), split (`str`, *optional*, defaults to `"train"`):
            which part of the Hub's dataset.

    Returns:
        `datasets.Dataset` in the trajectory format, with `pair` (int) and `preferred` (bool, what people chose).

    Raises:
        ValueError: naming file, row and column of the first bad dialogue.
    """
    if Path(name_or_path).is_file():
        pairs = Dataset.from_json(str(name_or_path))
    else:
        pairs = load_dataset(str(name_or_path), data_dir=data_dir, split=split)
    rows = []
    for index, pair in enumerate(pairs):
        for column in ("chosen", "rejected"):
            if not isinstance(pair.get(column), str):
                raise ValueError(f"{name_or_path}, row {index}, column `{column}`: must be a text")
            try:
                messages = parse_dialogue(pair[column])
            except ValueError as error:
                raise ValueError(f"{name_or_path}, row {index}, column `{column}`: {error}") from error
            rows.append(_trajectory(messages, index, column == "chosen"))
    return Dataset.from_list(rows)


def _trajectory(messages: list[dict[str, str]], pair: int, preferred: bool) -> dict[str, Any]:
    answers = sum(message["role"] == "assistant" for message in messages)
    return {
        "messages": messages,
        "rewards": [0.0] * (answers - 1) + [1.0 if preferred else -1.0],
        "terminated": True,
        "source": "offline",
        "pair": pair,
        "preferred": preferred,
    }


def split_pairs(rows: Dataset, sizes: dict[str, int], *, seed: int) -> dict[str, Dataset]:
    """Disjoint random sets of pairs. Pairs that answer the same prompt land in the same set.

    Args:
        rows (`Dataset`): from `load_hh_rlhf`, perhaps filtered by whole pairs.
        sizes (`dict[str, int]`): pairs per set; fewer only where what is left of one prompt does not fit.
        seed (`int`): of the draw.

    Returns:
        `dict[str, Dataset]`: the sets, their pairs in the order of `rows`.

    Raises:
        ValueError: if there are not enough pairs.
    """
    if sum(sizes.values()) > len(rows) // 2:
        wanted = " + ".join(f"{size} {name}" for name, size in sizes.items())
        raise ValueError(f"{wanted} pairs are more than the {len(rows) // 2} there are")
    groups: dict[str, list[int]] = {}
    for pair, messages in enumerate(rows["messages"][::2]):
        groups.setdefault(repr(messages[:-1]), []).append(pair)
    order = np.random.default_rng(seed).permutation(len(groups))
    shuffled = [list(groups.values())[group] for group in order]
    parts = {}
    for name, size in sizes.items():
        chosen: list[int] = []
        too_many: list[list[int]] = []
        for group in shuffled:
            if len(chosen) + len(group) <= size:
                chosen += group
            else:
                too_many.append(group)
        shuffled = too_many
        parts[name] = rows.select([row for pair in sorted(chosen) for row in (2 * pair, 2 * pair + 1)])
    return parts


def swap_labels(rows: Dataset, share: float, *, seed: int) -> Dataset:
    """Plant wrong labels: in a share of the pairs the two answers trade their rewards.

    Args:
        rows (`Dataset`): whole pairs, from `load_hh_rlhf` or `split_pairs`.
        share (`float`): of the pairs, in [0, 1].
        seed (`int`): of the draw.

    Returns:
        `Dataset`: the rows in their order, with `is_noise`: whether the pair is swapped.

    Raises:
        ValueError: if `share` is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must lie in [0, 1], got {share}")
    pairs = len(rows) // 2
    swapped = np.zeros(pairs, dtype=bool)
    swapped[np.random.default_rng(seed).permutation(pairs)[: round(share * pairs)]] = True
    is_noise = np.repeat(swapped, 2).tolist()

    def relabel(row: dict[str, Any], index: int) -> dict[str, Any]:
        sign = -1.0 if is_noise[index] else 1.0
        return {"rewards": [*row["rewards"][:-1], sign * row["rewards"][-1]], "is_noise": is_noise[index]}

    return rows.map(relabel, with_indices=True, keep_in_memory=True)
