"""Checks of a command's arguments that need no slow import.

The classes of transformers and TRL whose fields are options too can only be imported with torch and all that it needs.
What is ours is parsed without them, and of theirs only the names are read, from the source.
"""

import ast
import dataclasses
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from boost_trl.scripts.command_parser import CommandParser, check_option_names


@dataclasses.dataclass
class EvaluationOptions:
    """The option of transformers' that says whether there have to be rows to evaluate on.

    Args:
        eval_strategy (`str`, *optional*, defaults to `"no"`): `"no"`, `"steps"` or `"epoch"`.
    """

    eval_strategy: str = "no"


def parse_own_options(own_types: Sequence[type], others: dict[str, str], arguments: Sequence[str], prog: str) -> tuple:
    """Instances of `own_types`, which check themselves, from the command line and its `--config`.

    Args:
        own_types (sequence of dataclasses): what can be imported at once.
        others (`dict[str, str]`): the remaining options, as source file below the installed packages (such as
            `"transformers/training_args.py"`) and name of the dataclass in it.
        arguments (sequence of `str`): the command line, after the command's name.
        prog (`str`): what argparse's messages call the command.

    Raises:
        ValueError: for an option that no class has, and as the classes.
        SystemExit: 2, from argparse, for one of ours that is missing or has a value of another type.
    """
    parser = CommandParser(own_types, prog, add_help=False)
    try:
        *parsed, rest = parser.parse_args_and_config(list(arguments), return_remaining_strings=True)
    except yaml.YAMLError as error:
        raise ValueError(f"`--config` is no YAML: {error}") from error
    foreign = _field_names(others)
    if foreign is not None:
        own = {field.name for types in own_types for field in dataclasses.fields(types)}
        check_option_names(rest, foreign | own)
    return tuple(parsed)


def check_names(
    models: Iterable[str | None] = (),
    datasets: Iterable[str | None] = (),
    environment: str | None = None,
    environment_kwargs: dict[str, Any] | None = None,
) -> None:
    """Check that what is named exists, before anything is loaded; `None` names nothing.

    Raises:
        OSError: as [`~boost_trl.hub_names.check_dataset_name`] and [`~boost_trl.hub_names.resolve_model_name`].
        ValueError: as [`~boost_trl.environments.base.make_env`].
    """
    from boost_trl.environments.base import check_env
    from boost_trl.hub_names import check_dataset_name, resolve_model_name

    if environment is not None:
        check_env(environment, **(environment_kwargs or {}))
    for name in filter(None, datasets):
        check_dataset_name(name)
    for name in filter(None, models):
        resolve_model_name(name)


def _field_names(classes: dict[str, str]) -> set[str] | None:
    """Names of the fields of dataclasses that are not imported; `None` if one is not where it was."""
    names = set()
    for file, class_name in classes.items():
        package, _, inside = file.partition("/")
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin).parent / inside
        nodes = ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
        found = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name == class_name]
        if not found:
            return None
        targets = [line.target for line in found[0].body if isinstance(line, ast.AnnAssign)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names
