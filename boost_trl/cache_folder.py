"""Folder of what the package computes, converts, generates or trains once."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`$BOOST_TRL_CACHE/<kind>`, or the Hugging Face assets cache (`$HF_ASSETS_CACHE`, `~/.cache/huggingface/assets`).

    Args:
        kind (`str`): what is kept there.
    """
    if root := os.environ.get("BOOST_TRL_CACHE"):
        return Path(root) / kind
    from huggingface_hub import constants

    # Not `cached_assets_path`, which makes the folder: a place that cannot be written must not stop a game.
    return Path(constants.HF_ASSETS_CACHE).expanduser() / "boost_trl" / kind
