"""Answers that a trained model writes itself, beside the right ones."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@torch.no_grad()
def exact_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    max_new_tokens: int,
    batch_size: int = 60,
) -> float:
    """Share of greedy answers that are the right ones, word for word.

    Args:
        model ([`~transformers.PreTrainedModel`]): with its adapter, if it has one.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer, with a padding token.
        prompts (`Sequence[str]`): plain text, to which the answer is appended.
        answers (`Sequence[str]`): one for each; spaces around them do not count.
        max_new_tokens (`int`): longest answer.
        batch_size (`int`, *optional*, defaults to `60`): answers that are written at once.
    """
    model.eval()
    right = 0
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(
            list(prompts[start : start + batch_size]), padding=True, padding_side="left", return_tensors="pt"
        ).to(model.device)
        written = model.generate(
            **batch, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        texts = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(text.strip() == answer.strip() for text, answer in zip(texts, answers[start:]))
    return right / len(prompts)
