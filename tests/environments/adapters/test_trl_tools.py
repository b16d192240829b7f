"""One step of GRPO with tools."""

import inspect
import pickle

import pytest
from datasets import concatenate_datasets
from toy_game import GuessNumber

from boost_trl.environments.adapters.trl_episode import grpo_rows
from boost_trl.environments.adapters.trl_tools import ToolEnvironment, as_environment_factory
from boost_trl.environments.base import make_env

from .games import GAMES, call, logged, moved, play


@pytest.mark.parametrize("name", GAMES)
def test_one_step_with_tools(name, grpo):
    make, task_id, reward_name, calls, actions = GAMES[name]
    env = make()
    task = next(task for task in env.tasks() if task.id == task_id)
    observations, score = play(env, task, 3, actions)
    assert score > 0
    contexts = []

    def script(batch):
        contexts.append(batch)
        turns = [text.count("<tool_response>") for text in batch]
        return [
            "I give up." if len(contexts) == 1 and row else [*calls, "Done."][turns[row]] for row in range(len(batch))
        ]

    trainer = grpo(grpo_rows(env, [task], seed=3), script, environment_factory=as_environment_factory(env))
    assert moved(trainer)
    assert logged(trainer, f"rewards/{reward_name}/mean") == pytest.approx(score / 2)  # the other gave up
    assert logged(trainer, "tools/failure_frequency") == 0
    played = len(observations) - 1
    assert logged(trainer, "tools/call_frequency") == played / 2
    assert f"<|im_start|>user\n{observations[0]}<|im_end|>" in contexts[0][0]
    last = contexts[-1][0]
    assert [part.split("\n</tool_response>")[0] for part in last.split("<tool_response>\n")[1:]] == observations[1:]


@pytest.mark.parametrize(
    ("name", "tools"),
    [
        ("twenty_questions", {"ask", "guess"}),
        ("car_dealer", {"say"}),
        ("webshop", {"search", "click"}),
        ("toy", {"act"}),
    ],
)
def test_trl_sees_these_tools_only(name, tools, grpo):
    env = GuessNumber() if name == "toy" else GAMES[name][0]()
    trainer = grpo(grpo_rows(env), environment_factory=as_environment_factory(env))
    assert {tool.__name__ for tool in trainer.tools} == tools
    assert all(inspect.signature(tool).parameters for tool in trainer.tools)


def test_trl_exposes_every_public_method_and_passes_every_column(grpo):
    seen = []

    class Bare:
        def reset(self, **row):
            seen.append(row)

        def get_reward(self):
            return 0.0

        def look(self) -> str:
            """
            Look.

            Returns:
                What is seen.
            """

        def _hidden(self):
            pass

    rows = grpo_rows(GuessNumber())
    trainer = grpo(rows, lambda batch: ["No."] * len(batch), environment_factory=Bare)
    assert [tool.__name__ for tool in trainer.tools] == ["look"]
    trainer.train()
    assert [set(row) for row in seen] == [set(rows.column_names)] * 2
    assert seen[0] == seen[1]  # both generations of a group get one row


def test_a_factory_for_the_asynchronous_trainer_can_be_pickled():
    factory = pickle.loads(pickle.dumps(as_environment_factory("twenty_questions")))
    assert factory().reset(task_id="metals/one", seed=1, prompt=[]) == "category: metals"


def test_rewards_of_tools():
    tools = as_environment_factory(GuessNumber)()
    assert tools.reset(**grpo_rows(GuessNumber())[7]) == "It is odd."
    assert tools.act("9") == "Lower."
    assert tools.get_reward() == 0.0  # not the −1 that the step has cost
    assert tools.act("7") == "Right." and tools.get_reward() == 3.0  # 5 − 2 guesses remain
    assert tools.act("1") == "The game is over." and tools.get_reward() == 3.0
    tools.reset(task={"id": "4", "category": "even", "data": {"secret": 4}})
    assert tools.get_reward() == 0.0

    named = as_environment_factory(GuessNumber, reward="luck", unfinished_reward=-5.0)()
    named.reset(task_id="7")
    assert named.get_reward() == -5.0
    named.act("7")
    assert named.get_reward() == 7.0

    missing = as_environment_factory(GuessNumber, reward="profit")()
    missing.reset(task_id="7")
    missing.act("7")
    with pytest.raises(ValueError, match=r"guess_number ended a game without info\['profit'\].*'luck'"):
        missing.get_reward()  # not inside a tool, where TRL would show the error to the model and go on


@pytest.mark.parametrize("world", ["small", "full"])
def test_every_item_can_be_guessed_by_its_name(world):
    env = make_env("twenty_questions", world=world)
    tools = as_environment_factory(env)()
    for item in env.world.items:
        for name in item.names:
            tools.reset(task_id=item.id)
            tools.guess(name)
            assert tools.get_reward() == env.max_steps - 1, name


def test_own_tools(grpo):
    class GuessTools(ToolEnvironment):
        def guess(self, number: int) -> str:
            """
            Guess the number.

            Args:
                number: From 0 to 9.

            Returns:
                Whether it is right, higher or lower.
            """
            return self._act(str(number))

    env = GuessNumber()
    factory = as_environment_factory(env, tools=GuessTools)
    script = lambda batch: [call("guess", "number", 7) if "Right." not in text else "Done." for text in batch]  # noqa: E731
    trainer = grpo(grpo_rows(env, env.tasks()[7:8]), script, environment_factory=factory)
    trainer.train()
    assert logged(trainer, "rewards/GuessTools/mean") == 4.0


def test_two_environments_in_one_run(grpo):
    guess, twenty = GuessNumber(), make_env("twenty_questions")
    envs = {"guess": (guess, guess.tasks()[7:8]), "twenty": (twenty, twenty.tasks()[:1])}
    rows = concatenate_datasets(
        [grpo_rows(env, tasks).add_column("environment", [name]) for name, (env, tasks) in envs.items()]
    )

    def script(batch):
        if any("<tool_response>" in text for text in batch):
            return ["Done."] * len(batch)
        return [call("act", "action", "7") if '"act"' in text else call("guess", "item", "one") for text in batch]

    factories = {name: as_environment_factory(env) for name, (env, _) in envs.items()}
    trainer = grpo(rows, script, rows_per_step=2, environment_factory=factories)
    trainer.train()
    assert logged(trainer, "rewards/ActTools/mean") == 4.0
    assert logged(trainer, "rewards/TwentyQuestionsTools/mean") == 11.0
