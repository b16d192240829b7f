"""`--resume_from_checkpoint` of the training commands."""

from pathlib import Path


def with_newest_checkpoint(arguments: list[str]) -> list[str]:
    """The command line with `true` behind a `--resume_from_checkpoint` that has no value."""
    filled = []
    for argument, following in zip(arguments, [*arguments[1:], "--"]):
        filled.append(argument)
        if argument == "--resume_from_checkpoint" and following.startswith("--"):
            filled.append("true")
    return filled


def parse_resume(value: str | bool | None, output_dir: str) -> str | bool | None:
    """Argument of `Trainer.train` from the text of the command line.

    Args:
        value (`str` or `bool`, *optional*): `"true"` for the last checkpoint in `output_dir`, or a folder.
        output_dir (`str`): of the run.

    Raises:
        ValueError: if there is no such checkpoint.
    """
    from transformers.trainer_utils import get_last_checkpoint

    value = {"true": True, "false": False, "none": None}.get(str(value).lower(), value)
    if value is True and (not Path(output_dir).is_dir() or get_last_checkpoint(output_dir) is None):
        raise ValueError(f"`resume_from_checkpoint`: {output_dir} has no checkpoint; leave it out to start afresh")
    if isinstance(value, str) and not Path(value).is_dir():
        raise ValueError(
            f"`resume_from_checkpoint`: there is no folder {value!r}; 'true' takes the last in {output_dir}"
        )
    return value
