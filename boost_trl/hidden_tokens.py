"""Access tokens stay out of what is written, printed and uploaded."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


HIDDEN = "<TOKEN>"
# Of settings that reach `from_pretrained`, `load_dataset` and the like.
_TOKEN_NAMES = ("token", "hub_token", "use_auth_token")
_HUB_TOKEN = re.compile(r"\bhf_\w{8,}")
_SECRET = re.compile(
    r"""(hf_(?=\w{8})|(?:token|secret|_key|password)\w*['"]?\s*[=:]\s*['"]?)[^\s,'"]+""", flags=re.IGNORECASE
)


def without_tokens(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of settings in which tokens are hidden, those of nested settings too."""
    return {
        name: HIDDEN
        if name in _TOKEN_NAMES and isinstance(value, str)
        else without_tokens(value)
        if isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }


def without_hub_tokens(text: str) -> str:
    """`text` without tokens of the Hub."""
    return _HUB_TOKEN.sub(HIDDEN, text)


def without_secrets(text: str) -> str:
    """`text` without tokens of the Hub, and without values of what is called token, secret, key or password."""
    return _SECRET.sub(r"\1(left out)", text)


@contextmanager
def tokens_kept_out(args: Any) -> Iterator[None]:
    """Training arguments without tokens while the block lasts: Trainer pickles them beside a model, to be uploaded with it.

    Args:
        args (`TrainingArguments`): changed in place, and changed back.
    """
    nested = {name: value for name, value in vars(args).items() if isinstance(value, Mapping)}
    kept = {"hub_token": args.hub_token, **nested}
    try:
        args.hub_token = None
        for name, value in nested.items():
            setattr(args, name, without_tokens(value))
        yield
    finally:
        for name, value in kept.items():
            setattr(args, name, value)
