"""End of a turn: the marks that a chat template writes behind it."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase


# Stands for the content of a turn when a template is asked what it writes around one; no text contains it.
CONTENT, NEXT_CONTENT = "\u27e6turn\u27e7", "\u27e6next turn\u27e7"


@dataclass(frozen=True)
class TurnEnd:
    """Mark at which a turn is over: a token, or a text where the template's mark is no token of its own.

    Args:
        token_id (`int`, *optional*): the special token that the template writes behind the turn.
        text (`str`, *optional*): the text that it writes instead.
    """

    token_id: int | None = None
    text: str | None = None


def turn_end(
    tokenizer: PreTrainedTokenizerBase,
    role: str = "assistant",
    *,
    multiline: bool = False,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> TurnEnd:
    """The mark that the tokenizer's chat template writes after a turn of `role`.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): with a chat template.
        role (`str`, *optional*, defaults to `"assistant"`): whose turn.
        multiline (`bool`, *optional*, defaults to `False`): turns may hold line breaks. Matters only for a template that
            ends a turn by nothing but a line break, where the header of the next turn then ends it.
        chat_template_kwargs (`dict`, *optional*): what the template gets beside the messages.

    Raises:
        ValueError: if the template does not write a turn's content as it is.
    """
    render = partial(tokenizer.apply_chat_template, **(chat_template_kwargs or {}))
    turns = [{"role": "user", "content": "x"}] if role == "assistant" else []
    turns.append({"role": role, "content": CONTENT})
    _, found, end = render(turns, tokenize=False).partition(CONTENT)
    if not found:
        raise ValueError(f"the chat template does not write the content of a {role} turn as it is")
    mark = end.strip()
    first = tokenizer(mark, add_special_tokens=False)["input_ids"][0] if mark else None
    if first in _special_ids(tokenizer):
        return TurnEnd(token_id=first)
    if mark:
        return TurnEnd(text=mark)
    if "\n" in end and not multiline:
        return TurnEnd(text="\n")
    if role == "assistant":
        follow = render([*turns, {"role": "user", "content": NEXT_CONTENT}], tokenize=False)
    else:
        follow = render(turns, tokenize=False, add_generation_prompt=True)
    header = follow.partition(CONTENT)[2].partition(NEXT_CONTENT)[0].removeprefix(end)
    return TurnEnd(text=(end + header).rstrip() or None)


def policy_generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Default generation settings of an extracted policy: it samples its whole distribution, which is what was
    trained, and stops at the end of the assistant's turn.

    Where that end is a text and no token, `generate` needs it as `stop_strings`, together with the tokenizer.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): with the chat template that the policy was trained on.
    """
    try:
        mark = turn_end(tokenizer).token_id
    except ValueError:
        # A template that rewrites contents still trains; its end of sequence has to do.
        mark = None
    ends = {tokenizer.eos_token_id, mark} - {None}
    pad = tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted(ends) or None,
        pad_token_id=min(ends, default=None) if pad is None else pad,
    )


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return (added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}
