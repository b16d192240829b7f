"""Environments that are classes in a file: `file.py:ClassName`."""

from dataclasses import is_dataclass
from pathlib import Path

import pytest

from boost_trl.environments.base import Environment, check_env, make_env


PAGE = Path(__file__).parents[2] / "docs" / "environments.md"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file with the page's game, where commands are run."""
    monkeypatch.chdir(tmp_path)
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[2].split("```")[0]
    code += """

from dataclasses import dataclass


@dataclass
class Shorter(GuessNumber):
    max_steps: "int" = 2


def shortest():
    return Shorter(max_steps=1)


class NoGame:
    def reset(self):
        pass
"""
    Path("games.py").write_text(code)
    return tmp_path / "games.py"


def test_a_class_of_a_file_is_made_by_name(file):
    env = make_env("games.py:GuessNumber")
    assert isinstance(env, Environment) and env.name == "guess_number"
    assert type(make_env(f"{file}:GuessNumber")) is type(env)  # run once
    shorter = make_env("games.py:Shorter", max_steps=3)
    assert is_dataclass(shorter) and shorter.max_steps == 3 and make_env("games.py:shortest").max_steps == 1


@pytest.mark.parametrize(
    "name, options, complaint",
    [
        ("nowhere.py:Game", {}, "there is no file 'nowhere.py' here"),
        ("games.py:Game", {}, "games.py has no class 'Game'; it has GuessNumber, Shorter, shortest, NoGame"),
        ("games.py:", {}, "games.py has no class ''"),
        ("games.py:NoGame", {}, "is no environment: it has no `tasks`, `step`, `admissible_actions`, `close`"),
        ("games.py:Shorter", {"max_turns": 1}, "has no option `max_turns`; its options: `max_steps`"),
        ("games:GuessNumber", {}, "or a class as file.py:ClassName"),
    ],
)
def test_what_cannot_be_made_is_said(file, name, options, complaint):
    with pytest.raises(ValueError) as refused:
        check_env(name, **options)
    assert complaint in str(refused.value)


def test_an_error_in_the_file_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    for _ in range(2):
        with pytest.raises(
            ValueError, match="broken.py cannot be run: ModuleNotFoundError: No module named 'nothing_"
        ):
            check_env(f"{tmp_path}/broken.py:Game")
