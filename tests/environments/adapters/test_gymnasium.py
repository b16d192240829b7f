"""Gymnasium's environments in `rollout`."""

import pytest

from boost_trl import rollout
from boost_trl.environments.adapters.gymnasium import from_gymnasium
from boost_trl.environments.base import Environment, Task


# Gymnasium


def corridor():
    gymnasium = pytest.importorskip("gymnasium")

    class Corridor(gymnasium.Env):
        """Five places; the last pays 1. Where it starts comes from the seed."""

        action_space = gymnasium.spaces.Discrete(2, start=3)
        observation_space = gymnasium.spaces.Discrete(5)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.place = options["place"] if options else int(self.np_random.integers(4))
            return self.place, {}

        def step(self, action):
            self.place = max(0, self.place + (1 if action == 4 else -1))
            return self.place, float(self.place == 4), self.place == 4, False, {"distance": 4 - self.place}

    return Corridor


def test_gymnasium_actions_and_tasks():
    env = from_gymnasium(
        corridor(), actions=["Back", "forth"], to_text="place {}".format, max_steps=6, name="corridor"
    )
    assert isinstance(env, Environment)
    assert env.admissible_actions() == ["Back", "forth"] and env.system_prompt == "Answer with one of: Back, forth."
    assert len(env.tasks()) == 100
    starts = {env.reset(task=str(seed))[0] for seed in range(20)}
    assert starts == {f"place {n}" for n in range(4)}
    assert env.reset(task="3", seed=1)[0] == env.reset(task="3", seed=2)[0]  # the task's own seed

    tasks = [Task("far", "corridor", data={"options": {"place": 0}})]
    env = from_gymnasium(corridor(), tasks=tasks, max_steps=6)
    assert env.reset(seed=0, task="far")[0] == "0"
    assert env.step(None)[4]["valid"] is False
    env.reset(seed=0, task="far")
    observation, reward, terminated, truncated, info = env.step("jump")
    assert observation == "Invalid action: answer with one of 3, 4" and info["valid"] is False
    played = [env.step(" 4 ") for _ in range(4)]
    assert [step[1] for step in played] == [0.0, 0.0, 0.0, 1.0]
    assert played[-1][2:4] == (True, False)
    assert played[-1][4].items() >= {"score": 1.0, "success": True, "distance": 0, "step": 5}.items()


def test_gymnasium_in_rollout():
    env = from_gymnasium(corridor()(), actions=["back", "forth"], max_steps=3, name="corridor")  # an instance: copied
    games = rollout(lambda conversations: ["forth"] * len(conversations), env, env.tasks()[:8], progress=False)
    starts = [int(messages[1]["content"]) for messages in games["messages"]]
    assert len(set(starts)) > 1
    assert games["score"] == [float(start >= 1) for start in starts]  # three steps reach 4 from 1, 2 and 3
    assert games["terminated"] == games["success"] == [start >= 1 for start in starts]


def test_gymnasium_by_id_has_its_limit():
    pytest.importorskip("gymnasium")
    env = from_gymnasium("FrozenLake-v1", actions=["left", "down", "right", "up"], tasks=2)
    assert (env.name, env.max_steps) == ("FrozenLake-v1", 100)
    env.reset(task="1")
    assert env.step("left")[4]["valid"]
    env.close()


def test_gymnasium_says_what_it_needs():
    gymnasium = pytest.importorskip("gymnasium")
    Corridor = corridor()
    with pytest.raises(ValueError, match="has 2 actions, but `actions` names 1"):
        from_gymnasium(Corridor, actions=["forth"], max_steps=6)
    with pytest.raises(ValueError, match="pass max_steps"):
        from_gymnasium(Corridor)

    class Continuous(Corridor):
        action_space = gymnasium.spaces.Box(-1, 1)

        def step(self, action):
            return *super().step(4 if action > 0 else 3)[:4], {"is_success": True}

    with pytest.raises(ValueError, match="pass to_action"):
        from_gymnasium(Continuous, max_steps=6)
    env = from_gymnasium(Continuous, to_action=float, max_steps=1)
    env.reset(task="0")
    assert env.step("0.5")[4]["success"] is True  # what the environment says, not the sum of rewards
    env.reset(task="0")
    assert env.step("fast")[4]["valid"] is False
