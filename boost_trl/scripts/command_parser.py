"""The parser of every command: TRL's, with errors of one line, former names of options, and help in two lengths."""

import dataclasses
import re
import sys
import warnings
from argparse import SUPPRESS, Action, ArgumentDefaultsHelpFormatter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, get_type_hints

from trl import TrlParser

from boost_trl.scripts.nearest_name import nearest_name


CONFIG_HELP = "--config FILE.yaml reads any of these options from a file; options on the command line win."


class CommandParser(TrlParser):
    """[`~trl.TrlParser`] for a command.

    A dataclass can have `_former_names` besides its fields: a dict from the former name of an option to the present one.
    Both work, on the command line and in `--config`; the former one warns, unless `warns_of_former_names` is set to false, as
    where the same command line was parsed before.

    Args:
        dataclass_types (sequence of dataclasses): whose fields are the options.
        prog (`str`, *optional*): what messages call the command.
        arguments (`str`, *optional*, defaults to `""`): arguments without a name, for the usage.
        options (*optional*): those of `argparse.ArgumentParser`.
    """

    warns_of_former_names = True

    def __init__(
        self, dataclass_types: Sequence[type] = (), prog: str | None = None, arguments: str = "", **options: Any
    ):
        needed = [f"--{name} {name.upper()}" for types in dataclass_types for name in _required(types)]
        usage = " ".join(filter(None, ["%(prog)s", arguments, *needed, "[--config FILE.yaml] [OPTIONS]"]))
        defaults = {"usage": usage, "epilog": CONFIG_HELP, "allow_abbrev": False, "formatter_class": _Formatter}
        super().__init__(dataclass_types, prog=prog, **defaults | options)
        self.former_names = {
            former: name for types in dataclass_types for former, name in getattr(types, "_former_names", {}).items()
        }

    def error(self, message: str) -> None:
        """Exit with status 2 and one line, with each option in one spelling."""
        message = re.sub(r"(--\w+)/--[\w-]+", r"\1", message)
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` lists the options\n")

    def parse_args_and_config(
        self, args: Iterable[str] | None = None, return_remaining_strings: bool = False, **options: Any
    ) -> tuple:
        """As [`~trl.TrlParser`]'s.

        Raises:
            OSError: if there is no file of the name that `--config` has.
            ValueError: for an option that does not exist, with the one that is spelt nearly so; for a former name beside
                the present one.
        """
        args = self._with_present_names(sys.argv[1:] if args is None else args)
        for option, file in zip(args, args[1:]):
            if option == "--config" and not Path(file).is_file():
                raise FileNotFoundError(f"`--config`: there is no file {file!r} here")
        *parsed, rest = super().parse_args_and_config(args, return_remaining_strings=True, **options)
        if return_remaining_strings:
            return (*parsed, rest)
        names = {option_name(text) for action in self._actions for text in action.option_strings}
        check_option_names(rest, {name for name in names if name is not None})
        if rest:
            raise ValueError(f"{rest[0]!r} belongs to no option")
        return tuple(parsed)

    def set_defaults_with_config(self, **config: Any) -> list[str]:
        """As [`~trl.TrlParser`]'s, also for former names."""
        for former in self.former_names.keys() & config.keys():
            value = config.pop(former)
            config[self._present_name(former, config)] = value
        return super().set_defaults_with_config(**config)

    def _with_present_names(self, args: Iterable[str]) -> list[str]:
        args = list(args)
        given = [option_name(word) for word in args]
        for place, former in enumerate(given):
            if former is not None and former in self.former_names:
                _, *value = args[place].split("=", 1)
                args[place] = "=".join([f"--{self._present_name(former, given)}", *value])
        return args

    def _present_name(self, former: str, given: Iterable[str | None]) -> str:
        name = self.former_names[former]
        if name in given:
            raise ValueError(f"`{former}` is the former name of `{name}`, and both are given; keep the second")
        if self.warns_of_former_names:
            warnings.warn(
                f"`{former}` is now called `{name}`; the next version will not know `{former}`", FutureWarning
            )
        return name


class _Formatter(ArgumentDefaultsHelpFormatter):
    """Each option in one spelling, with the type of its value, and no default that says nothing."""

    def add_argument(self, action: Action) -> None:
        shown = copy(action)
        shown.option_strings = [text for text in action.option_strings if "-" not in text.lstrip("-")]
        if action.metavar is None and action.choices is None and action.nargs != 0:
            kind = getattr(action.type, "__name__", "str")
            shown.metavar = {"str": "TEXT", "string_to_bool": "BOOL"}.get(kind, kind.upper())
        if action.default is None:
            shown.default = SUPPRESS
        super().add_argument(shown)


def without_bf16_on_cpu(parser: CommandParser) -> CommandParser:
    """`parser`, whose `bf16` is false by default on a machine where TRL's default, bfloat16, is refused."""
    from transformers.utils import is_torch_bf16_gpu_available

    if not is_torch_bf16_gpu_available():
        parser.set_defaults(bf16=False)
    return parser


def help_parser(prog: str, own: Mapping[str, type], others: Sequence[type], **options: Any) -> CommandParser:
    """A parser to print the help of a training command, its own options first.

    Args:
        prog (`str`): what the help calls the command.
        own (mapping of `str` to dataclass): its own options by their title.
        others (sequence of dataclasses): what these have beyond `own`, and beyond one another, comes last.
        options (*optional*): those of [`CommandParser`].
    """
    # `HfArgumentParser` reads the title of a class's options from `_argument_group_name`.
    shown = [type(kind.__name__, (kind,), {"_argument_group_name": title}) for title, kind in own.items()]
    names = {field.name for kind in own.values() for field in dataclasses.fields(kind)}
    for kind in others:
        types = get_type_hints(kind)
        fields = [field for field in dataclasses.fields(kind) if field.init and field.name not in names]
        rest = [(field.name, types[field.name], _same(field)) for field in fields]
        title = {"_argument_group_name": f"all other options of {kind.__name__}"}
        shown.append(dataclasses.make_dataclass(kind.__name__, rest, namespace=title, kw_only=True))
        names |= {field.name for field in fields}
    return CommandParser(shown, prog=prog, **options)


def check_option_names(strings: Iterable[str], known: set[str]) -> None:
    """Check that what look like options among `strings` are some.

    Raises:
        ValueError: for one that is not in `known`, with the one that is spelt nearly so.
    """
    for text in strings:
        name = option_name(text)
        if name is None or name in known or name.removeprefix("no_") in known:
            continue
        near = nearest_name(name, known)
        hint = "`--help` lists the options" if near is None else f"did you mean `--{near}`?"
        raise ValueError(f"there is no option `{text.split('=')[0]}`; {hint}")


def option_name(text: str) -> str | None:
    """`"max_steps"` of `"--max-steps=4"`, `None` of what is no option."""
    return text[2:].split("=")[0].replace("-", "_") if text.startswith("--") else None


def _required(kind: type) -> list[str]:
    missing = dataclasses.MISSING
    return [field.name for field in dataclasses.fields(kind) if field.default is missing is field.default_factory]


def _same(field: dataclasses.Field) -> Any:
    return dataclasses.field(default=field.default, default_factory=field.default_factory, metadata=field.metadata)
