"""TRL's environments in `rollout` and `evaluate_policy`."""

import asyncio

import pytest
from datasets import Dataset

from boost_trl import evaluate_policy, rollout
from boost_trl.environments.adapters.from_trl import from_trl_environment
from boost_trl.environments.base import Environment


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
    assert results["score_mean"] == pytest.approx(sum(10 - guesses[n] for n in (1, 3, 5, 7, 9)) / 5)
    assert results["errors"] == 0
