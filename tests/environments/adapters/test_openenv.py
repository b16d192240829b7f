"""OpenEnv's environments in `rollout`."""

import asyncio

import pytest

from boost_trl import rollout
from boost_trl.environments.adapters.openenv import from_openenv
from boost_trl.environments.base import Environment, Task

from .echo import EchoClient, Result, to_echo


class SyncEchoClient(EchoClient):
    def reset(self, **kwargs):
        return asyncio.run(super().reset(**kwargs))

    def step(self, action):
        self.left -= 1
        return Result(action["message"], 1.0, not self.left)

    def close(self):
        pass


def test_openenv():
    env = from_openenv(EchoClient, to_echo, str.upper, name="echo", max_steps=5, tasks=4)
    assert isinstance(env, Environment)
    assert env.reset(task="2", seed=9)[0] == "SEED 2"
    assert env.step("")[0] == "Invalid action: say something"
    assert env.step("a")[:4] == ("A", 0.0, False, False)
    env.step("b")
    _, reward, terminated, truncated, info = env.step("c")
    assert (reward, terminated, truncated, info["score"], info["success"]) == (2.0, True, False, 2.0, True)
    client = env._inner
    env.close()
    assert client.loop == "closed"


def test_openenv_inside_a_running_loop():
    """As in a notebook."""

    async def cell():
        env = from_openenv(EchoClient, to_echo, str, name="echo", max_steps=5)
        return env.reset(task="7")[0]

    assert asyncio.run(cell()) == "seed 7"


@pytest.mark.parametrize("client", [EchoClient, SyncEchoClient])
def test_openenv_games_have_sessions_of_their_own(client):
    EchoClient.clients = 0
    env = from_openenv(
        client,
        to_echo,
        str,
        name="echo",
        max_steps=2,
        tasks=[Task(str(n), "echo", data={"level": n}) for n in range(6)],
    )
    games = rollout(lambda conversations: ["hi"] * len(conversations), env, env.tasks(), num_envs=3, progress=False)
    assert EchoClient.clients == 3
    assert games["error"] == [None] * 6 and games["terminated"] == [False] * 6  # cut after two of three steps
    assert games["score"] == [0.0 if client is EchoClient else 2.0] * 6
    starts = [messages[0]["content"] for messages in games["messages"]]
    assert starts == [f"seed {seed}" for seed in games["seed"]]
