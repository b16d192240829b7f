"""The contract and the registry of names."""

import subprocess
import sys

import pytest
from toy_game import GuessNumber

from boost_trl.environments import base
from boost_trl.environments.base import Environment, Task, check_task, make_env, opening_messages


def test_the_contract_is_importable_by_its_public_name():
    from boost_trl import environments

    assert environments.Environment is Environment and {"Task", "make_env"} <= set(environments.__all__)
    code = "import sys, boost_trl.environments; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", base._BUILT_IN)
def test_worlds_are_made_by_name_and_without_torch(name):
    code = (
        f"import sys; from boost_trl.environments import Environment, make_env; env = make_env({name!r})\n"
        f"assert isinstance(env, Environment) and env.name == {name!r}; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_unknown_names_and_options_are_named():
    with pytest.raises(
        ValueError, match="no environment is called 'chess'; known: car_dealer, twenty_questions, webshop"
    ):
        make_env("chess")
    with pytest.raises(ValueError, match="'car_dealer' has no option `wrld`; its options: .*`world`"):
        make_env("car_dealer", wrld="small")


def test_what_is_no_task_is_refused():
    for task in (None, "id", Task("id", "category")):
        check_task(task)
    for wrong in (5, {"id": "id", "category": "category"}):
        with pytest.raises(ValueError, match="give a `Task` .* or its id"):
            check_task(wrong)


def test_opening_messages_have_a_system_prompt_only_where_there_is_one():
    env = GuessNumber()
    env.system_prompt = ""
    assert opening_messages(env, "Go.") == [{"role": "user", "content": "Go."}]
    env.system_prompt = "Guess."
    assert opening_messages(env, "Go.") == [
        {"role": "system", "content": "Guess."},
        {"role": "user", "content": "Go."},
    ]
