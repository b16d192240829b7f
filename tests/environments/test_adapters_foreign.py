"""Other libraries' environments in `rollout` and `evaluate_policy`: TRL's, Gymnasium's, OpenEnv's."""

import asyncio
import copy
from dataclasses import dataclass

import pytest
from datasets import Dataset

from boost_trl import evaluate_policy, rollout
from boost_trl.environments.adapters.from_trl import from_trl_environment
from boost_trl.environments.adapters.gymnasium import from_gymnasium
from boost_trl.environments.adapters.openenv import from_openenv
from boost_trl.environments.base import Environment, Task


class GuessTRL:
    """Written for TRL: tools, `reset(**row)`, `get_reward`; knows nothing of us."""

    def reset(self, secret, **row):
        self.secret, self.guesses, self.won = secret, 0, False
        return " Go."

    def get_reward(self) -> float:
        return 10.0 - self.guesses if self.won else 0.0

    def guess(self, number: int) -> str:
        """
        Guess the number.

        Args:
            number: From 0 to 9.

        Returns:
            Right, higher or lower.
        """
        if number > 9:
            raise LookupError("there is no such number")
        self.guesses += 1
        self.won = number == self.secret
        return "Right." if self.won else "Higher." if number < self.secret else "Lower."

    async def hint(self) -> list:
        """Get a hint."""
        await asyncio.sleep(0)
        return [{"type": "text", "text": "odd" if self.secret % 2 else "even"}, {"type": "image", "image": None}]

    def say(self, word: str) -> str:
        """Say a word."""
        return f"<{word}>"


@pytest.fixture
def guess_rows():
    prompt = [{"role": "system", "content": "Rules."}, {"role": "user", "content": "Guess."}]
    return Dataset.from_list(
        [
            {"prompt": prompt, "secret": n, "task_id": f"n{n}", "category": "odd" if n % 2 else "even"}
            for n in range(10)
        ]
    )


@pytest.mark.parametrize(
    ("action", "observation", "valid"),
    [
        ("guess[3]", "Higher.", True),
        ('guess[{"number": 8}]', "Lower.", True),
        ('{"name": "guess", "arguments": {"number": 9}}', "Lower.", True),
        ('I think <tool_call>\n{"name": "guess", "arguments": {"number": 7}}\n</tool_call>', "Right.", True),
        ("hint[]", "odd", True),
        ("say[12]", "<12>", True),
        ("guess[99]", '{"error": "there is no such number"}', False),
        ("reset[7]", "Invalid action: there is no tool 'reset'; the tools are guess, hint, say", False),
        ("guess[x]", "Invalid action: Expecting value: line 1 column 1 (char 0)", False),
        ("guess[]", "Invalid action: guess: missing a required argument: 'number'", False),
        ("guess[NaN]", "Invalid action: NaN is no finite number", False),
        ("guess[1e999]", "Invalid action: 1e999 is no finite number", False),
        (
            '{"name": "guess", "arguments": {"number": -Infinity}}',
            "Invalid action: -Infinity is no finite number",
            False,
        ),
        ("guess[" + "[" * 100_000 + "]", "Invalid action: too deeply nested", False),
        (None, "Invalid action: an action is text, not NoneType", False),
        ("hint[x]", "Invalid action: this tool takes no argument", False),
        ('{"name": "guess", "arguments": 7}', 'Invalid action: a call is {"name": ..., "arguments": {...}}', False),
    ],
)
def test_calls_of_a_trl_environment(guess_rows, action, observation, valid):
    env = from_trl_environment(GuessTRL, guess_rows)
    assert env.reset(task="n7")[0] == "Rules.\n\nGuess. Go."
    seen, reward, terminated, truncated, info = env.step(action)
    assert (seen, info["valid"], reward, terminated, truncated) == (observation, valid, 0.0, False, False)
    assert (info["task_id"], info["category"], info["step"]) == ("n7", "odd", 1)


def test_the_end_of_a_trl_environment(guess_rows):
    env = from_trl_environment(GuessTRL, guess_rows, max_steps=3)
    assert isinstance(env, Environment)
    assert "- guess(number: int) -> str: Guess the number." in env.system_prompt
    env.reset(task="n7")
    env.step("guess[7]")
    assert env.step("I am done.")[1:4] == (9.0, True, False)  # 10 − 1 guess, as get_reward says
    with pytest.raises(RuntimeError, match="reset"):
        env.step("guess[7]")

    env.reset(task="n7")
    env.step("guess[1]")
    env.step("nonsense[1]")
    _, reward, terminated, truncated, info = env.step("guess[7]")
    assert (reward, terminated, truncated) == (8.0, False, True)
    assert (info["score"], info["success"]) == (8.0, False)  # cut before it ended

    env = from_trl_environment(GuessTRL, guess_rows, done=lambda game: game.won, reward=lambda game: game.guesses)
    env.reset(task="n2")
    _, reward, terminated, _, info = env.step("guess[2]")
    assert (reward, terminated, info["score"], info["success"]) == (1.0, True, 1.0, True)


def test_reward_attribute_and_rows_without_ids():
    class Bare:
        def reset(self, prompt):
            self.reward = 0.5

        def wait(self) -> str:
            """Wait."""
            return "..."

    env = from_trl_environment(Bare, [{"prompt": "Wait here."}])
    assert [(task.id, task.category) for task in env.tasks()] == [("0", "Bare")]
    assert env.reset(seed=0)[0] == "Wait here."
    assert env.step("no more")[1] == 0.5
    with pytest.raises(ValueError, match="same `task_id`"):
        from_trl_environment(Bare, [{"task_id": "a"}, {"task_id": "a"}])
    with pytest.raises(ValueError, match="at least one task"):
        from_trl_environment(Bare, [])


def halve(conversations):
    """Plays GuessTRL by halving, ten games at a time."""
    replies = []
    for conversation in conversations:
        low, high = 0, 9
        turns = conversation[2:]
        for action, answer in zip(turns[::2], turns[1::2]):
            guess = int(action["content"].strip("gues[]"))
            low, high = (guess + 1, high) if answer["content"] == "Higher." else (low, guess - 1)
        replies.append(f"guess[{(low + high) // 2}]")
    return replies


def test_rollout_and_evaluation_of_a_trl_environment(guess_rows):
    env = from_trl_environment(GuessTRL, guess_rows, done=lambda game: game.won)
    games = rollout(halve, env, env.tasks(), num_envs=4, progress=False)
    # Halving 0 to 9 asks for 4 first; each number's guesses by hand:
    guesses = [3, 2, 3, 4, 1, 3, 4, 2, 3, 4]
    assert [len(rewards) for rewards in games["rewards"]] == guesses
    assert games["score"] == [10.0 - n for n in guesses] and all(games["success"])
    results = evaluate_policy(halve, env, env.tasks(["odd"]), progress=False)
    assert results["reward_mean"] == pytest.approx(sum(10 - guesses[n] for n in (1, 3, 5, 7, 9)) / 5)
    assert results["errors"] == 0


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


# OpenEnv: a client as openenv-core's, asynchronous, bound to the loop in which it connected.


@dataclass
class Result:
    observation: str
    reward: float | None
    done: bool


class EchoClient:
    clients = 0

    def __init__(self):
        EchoClient.clients += 1
        self.loop = None

    async def reset(self, **kwargs):
        self.loop = self.loop or asyncio.get_running_loop()
        self.left, self.kwargs = 3, kwargs
        return Result(f"seed {kwargs['seed']}", None, False)

    async def step(self, action):
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        self.left -= 1
        return Result(action["message"], None if self.left else 2, not self.left)

    async def close(self):
        self.loop = "closed"


class SyncEchoClient(EchoClient):
    def reset(self, **kwargs):
        return asyncio.run(super().reset(**kwargs))

    def step(self, action):
        self.left -= 1
        return Result(action["message"], 1.0, not self.left)

    def close(self):
        pass


def to_echo(text):
    if not text:
        raise ValueError("say something")
    return {"message": text}


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
    with pytest.raises(ValueError, match="max_steps is 0"):
        from_openenv(EchoClient, to_echo, str, name="echo", max_steps=0)
    with pytest.raises(ValueError, match="ids that differ"):
        from_openenv(EchoClient, to_echo, str, name="echo", max_steps=2, tasks=[Task("a", "x"), Task("a", "x")])
