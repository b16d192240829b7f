"""Keys and values of what a model has read and written in earlier turns of the same dialogues."""

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class DialogueCache:
    """Keys and values that one `generate` of many dialogues leaves to the next, which then reads only what is new since.

    The columns of the earlier batch stay; those that are no part of a row's dialogue any more (padding, what came after a reply's
    end) are masked. All is read anew where a row goes on with none of the dialogues, where much is new, and where a model keeps
    something else than keys and values of all positions.

    Args:
        pad_id (`int`): what rows are filled with on the left.
        max_columns (`int`, *optional*): most columns of prompts.
    """

    def __init__(self, pad_id: int, max_columns: int | None = None):
        self.pad_id, self.max_columns = pad_id, max_columns
        self._cache: DynamicCache | None = None
        self._prompts: list[list[int]] = []

    def inputs(self, prompts: list[list[int]]) -> dict:
        """`input_ids` and `attention_mask`, (B, S), for `generate`, and `past_key_values` where there is something to go on from."""
        rows = None if self._cache is None else _rows_that_go_on(self._prompts, prompts)
        cache, self._cache, self._prompts = self._cache, None, prompts
        if cache is None or rows is None:
            return _padded(prompts, self.pad_id)
        ids, mask = self._ids[rows], self._mask[rows]
        known = [_common_length(row[seen], prompt) for row, seen, prompt in zip(ids, mask.bool(), prompts)]
        new = _padded([prompt[length:] for prompt, length in zip(prompts, known)], self.pad_id)
        width, longest = ids.shape[1] + new["input_ids"].shape[1], max(map(len, prompts))
        if 2 * new["input_ids"].shape[1] > longest or width > min(2 * longest, self.max_columns or 2 * longest):
            return _padded(prompts, self.pad_id)
        mask *= mask.cumsum(1) <= torch.tensor(known).unsqueeze(1)
        cache.batch_select_indices(torch.tensor(rows))
        return {
            "input_ids": torch.cat([ids, new["input_ids"]], 1),
            "attention_mask": torch.cat([mask, new["attention_mask"]], 1),
            "past_key_values": cache,
        }

    def keep(self, sequences: torch.Tensor, attention_mask: torch.Tensor, cache) -> None:
        """Take over (B, S') tokens that `generate` returned and its cache."""
        if type(cache) is not DynamicCache or hasattr(cache, "reference_cache"):
            return
        if any(type(layer) is not DynamicLayer for layer in cache.layers):
            return
        # The last token has been written and not read.
        self._cache, self._ids = cache, sequences[:, : cache.get_seq_length()].cpu()
        written = self._ids.shape[1] - attention_mask.shape[1]
        self._mask = torch.nn.functional.pad(attention_mask, (0, written), value=1)


def _rows_that_go_on(before: list[list[int]], prompts: list[list[int]]) -> list[int] | None:
    """For each prompt the earlier one that it goes on from, in their order; `None` if there is none for one of them."""
    rows, row = [], 0
    for prompt in prompts:
        # The last token may have become another one with the reply.
        while row < len(before) and prompt[: len(before[row]) - 1] != before[row][:-1]:
            row += 1
        if row == len(before):
            return None
        rows.append(row)
        row += 1
    return rows


def _common_length(seen: torch.Tensor, prompt: list[int]) -> int:
    """Tokens at the beginning of `prompt` that have been seen; the last is always read."""
    length = min(len(seen), len(prompt) - 1)
    different = (seen[:length] != torch.tensor(prompt[:length])).nonzero()
    return int(different[0]) if len(different) else length


def _padded(prompts: list[list[int]], pad_id: int) -> dict[str, torch.Tensor]:
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}
