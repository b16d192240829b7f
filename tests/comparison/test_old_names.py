"""Modules that examples and pages published before they were moved: each still works, and warns."""

import sys
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "old, name, new",
    [
        ("arguments", "parse_arguments", "arguments.parse_arguments"),
        ("arguments", "TINY_MODEL_TRAINING", "worlds.TINY_MODEL_TRAINING"),
        ("methods", "METHODS", "methods.METHODS"),
        ("offline_setting", "build_setting", "build.build_experiment"),
        ("recipe", "compare", "comparison.compare"),
    ],
)
def test_the_old_module_works_and_warns(old, name, new):
    # An earlier import of it in this process would already have warned.
    sys.modules.pop(f"boost_trl.comparison.{old}", None)
    with pytest.warns(FutureWarning, match=f"boost_trl.comparison.{old}"):
        module = import_module(f"boost_trl.comparison.{old}")
    place, attribute = new.split(".")
    assert getattr(module, name) is getattr(import_module(f"boost_trl.comparison.offline_rl.{place}"), attribute)
