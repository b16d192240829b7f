"""Chat templates that mark the assistant's tokens, which are the action tokens."""

import logging
import warnings

from transformers import PreTrainedTokenizerBase


logger = logging.getLogger(__name__)

# Each turn is one paragraph; an action ends with the end-of-sequence token, so `generate` stops by itself.
PLAIN_CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- message['role'] + ':\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] + eos_token }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] }}{%- endif %}"
    "{{- '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'assistant:\\n' }}{%- endif %}"
)


def with_action_marks(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Make sure that the tokenizer's chat template marks the assistant's tokens (`{% generation %}`).

    A template that marks none is replaced by TRL's training version of the same template where TRL has one, else, like
    a missing template, by the one that boost_trl ships (`boost_trl.data.chat_templates.PLAIN_CHAT_TEMPLATE`). A warning
    names the replacement. The tokenizer is changed in place and returned.

    Raises:
        ValueError: if the tokenizer has no end-of-sequence token, or is not a fast tokenizer (marks need offsets).
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} is a slow tokenizer; action masks need a fast one (AutoTokenizer gives it)"
        )
    if tokenizer.eos_token is None:
        raise ValueError("the tokenizer has no `eos_token`; set one, it ends every action")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    template = tokenizer.chat_template
    if isinstance(template, str) and "{% generation" in template.replace("{%-", "{%"):
        return tokenizer
    if template is not None:
        from trl import get_training_chat_template

        try:
            tokenizer.chat_template = get_training_chat_template(tokenizer)
        except ValueError:
            pass
        else:
            warnings.warn("the chat template marks no assistant tokens; TRL's training version of it is used instead")
            return tokenizer
    reason = "has no chat template" if template is None else "has a chat template that marks no assistant tokens"
    warnings.warn(
        f"the tokenizer {reason}; boost_trl.data.chat_templates.PLAIN_CHAT_TEMPLATE is used instead. Set "
        "`tokenizer.chat_template` to a template with `{% generation %}` marks to choose another"
    )
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    return tokenizer
