"""The class docstrings of the configs, which `help()` prints, against their fields."""

import ast
import dataclasses
import pydoc
import re
import types
import typing

import pytest

from boost_trl import BilevelDPOConfig, BilevelOfflineRLConfig, BilevelSFTSelfRefineConfig


# name (`type`, *optional*, defaults to `value`):
ENTRY = re.compile(r"^ *(\w+) \(`([^`]+)`(, \*optional\*)?(?:, defaults to `([^`]+)`)?\):$", re.MULTILINE)


def own_fields(config_class):
    """The fields that classes of this package define or redefine, by name."""
    ours = [parent for parent in config_class.__mro__ if parent.__module__.startswith("boost_trl.")]
    names = {name for parent in ours for name in parent.__dict__.get("__annotations__", {})}
    return {field.name: field for field in dataclasses.fields(config_class) if field.name in names}


def written_type(config_class, name):
    """Of the class, not of the field: TRL's parser writes `str` over the type of a field that holds a `dict`."""
    written = (parent.__dict__.get("__annotations__", {}) for parent in config_class.__mro__)
    return next(annotations[name] for annotations in written if name in annotations)


def type_names(annotation):
    """`{"float"}` of `float | None`."""
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    parts = typing.get_args(annotation) if is_union else (annotation,)
    names = (part.__name__ if type(part) is type else str(part).replace("typing.", "") for part in parts)
    return set(names) - {"NoneType"}


@pytest.fixture(params=[BilevelDPOConfig, BilevelOfflineRLConfig, BilevelSFTSelfRefineConfig])
def config_class(request):
    return request.param


def test_help_prints_every_own_field_once(config_class):
    printed = pydoc.plain(pydoc.render_doc(config_class)).replace(" |  ", "").partition("Method resolution order")[0]
    documented = [name for name, *_ in ENTRY.findall(printed)]
    assert sorted(documented) == sorted(own_fields(config_class)) and len(documented) > 20


def test_documented_types_and_defaults_are_the_fields(config_class):
    fields, wrong = own_fields(config_class), []
    for name, type_name, optional, default in ENTRY.findall(config_class.__doc__):
        written = written_type(config_class, name)
        is_right = type_name in type_names(written) and optional
        if not is_right or fields[name].default != (ast.literal_eval(default) if default else None):
            wrong.append((name, type_name, default, written, fields[name].default))
    assert not wrong


def test_every_entry_is_explained_and_stands_under_a_heading(config_class):
    parameters = config_class.__doc__.partition("Parameters:\n")[2]
    assert parameters.lstrip().startswith("> ")
    # (text before), then name, type, optional, default and text of every entry
    pieces = ENTRY.split(parameters)[1:]
    short = [name for name, text in zip(pieces[::5], pieces[4::5]) if len(text.split("\n        >")[0].split()) < 3]
    assert not short


def test_every_own_field_has_help_on_the_command_line(config_class):
    assert not [name for name, field in own_fields(config_class).items() if not field.metadata.get("help")]
