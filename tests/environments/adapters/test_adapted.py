import copy

import pytest

from boost_trl.environments.adapters.openenv import from_openenv
from boost_trl.environments.base import Task

from .echo import EchoClient, to_echo


def test_copies_and_bad_arguments():
    env = from_openenv(EchoClient, to_echo, str, name="echo", max_steps=2)
    env.reset(task="0")
    other = copy.deepcopy(env)
    with pytest.raises(RuntimeError, match="reset"):
        other.step("a")
    with pytest.raises(ValueError, match="echo has no task 'x'"):
        env.reset(task="x")
    for task in (5, {"id": "0", "category": "echo"}):
        with pytest.raises(ValueError, match="`Task`.*or its id"):
            env.reset(task=task)
    with pytest.raises(ValueError, match="no task of .'nope'.; its categories are echo"):
        env.tasks(["nope"])
    assert env.tasks(["echo"]) == env.tasks() and env.tasks([]) == []
    with pytest.raises(ValueError, match="`max_steps` must be at least 1, got 0"):
        from_openenv(EchoClient, to_echo, str, name="echo", max_steps=0)
    with pytest.raises(ValueError, match="ids that differ"):
        from_openenv(EchoClient, to_echo, str, name="echo", max_steps=2, tasks=[Task("a", "x"), Task("a", "x")])
