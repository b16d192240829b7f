import random

import pytest

from boost_trl.environments import base
from boost_trl.environments.base import Task, make_env
from boost_trl.environments.twenty_questions.environment import TwentyQuestions


def test_it_is_a_registered_environment():
    env = make_env("twenty_questions", world="full", reward="score")
    assert isinstance(env, base.Environment) and env.max_steps == 20 and env.admissible_actions() is None
    assert {task.category for task in env.tasks(["Animals"])} == {"Animals"}


@pytest.mark.parametrize(("reward", "expected"), [("step_cost", [-1, -1, 0]), ("score", [0, 0, 9])])
def test_a_won_game(reward, expected):
    env = TwentyQuestions(reward=reward)
    observation, info = env.reset(task="metals/seven")
    assert observation == "category: metals" and info["category"] == "metals" and info["step"] == 0
    answer, first, terminated, truncated, info = env.step("very heavy?")
    truth = env.world.table[env.world.index_of["metals/seven"], 0]
    assert answer == ("yes heavy" if truth else "no light") and not terminated and not truncated and info["valid"]
    answer, second, terminated, _, _ = env.step("number eight?")
    assert answer == "no" and not terminated
    answer, third, terminated, truncated, info = env.step("number seven?")
    assert answer == "yes" and terminated and not truncated
    assert [first, second, third] == expected
    assert info["success"] and info["score"] == 9 and info["step"] == 3
    with pytest.raises(RuntimeError, match="reset"):
        env.step("number seven?")


@pytest.mark.parametrize(("reward", "total"), [("step_cost", -12), ("score", 0)])
def test_a_lost_game_sums_to_minus_all_steps(reward, total):
    env = TwentyQuestions(reward=reward)
    env.reset(task=Task("herbs/two", "herbs"))
    steps = [env.step("number one?") for _ in range(12)]
    assert [terminated for _, _, terminated, _, _ in steps] == [False] * 11 + [True]
    assert sum(step[1] for step in steps) == total
    assert steps[-1][4]["success"] is False and steps[-1][4]["score"] == 0


def test_success_with_the_last_question_scores_nothing_but_is_one():
    env = TwentyQuestions(max_questions=2)
    env.reset(task="herbs/two")
    env.step("very soft?")
    _, reward, terminated, _, info = env.step("number two?")
    assert (reward, terminated, info["success"], info["score"]) == (0, True, True, 0)


@pytest.mark.parametrize(
    "text", ["", "   ", "?", "number", "seventeen?", "\u2603 \x00", "very very", "yes", "a" * 5000, None, 7]
)
def test_any_text_is_a_question_that_costs_a_step(text):
    env = TwentyQuestions()
    env.reset(task="herbs/two")
    answer, reward, terminated, _, info = env.step(text)
    assert (answer, reward, terminated, info["valid"]) == ("no", -1, False, False)


def test_seeds_choose_the_game_and_nothing_global_moves():
    env = TwentyQuestions()
    state = random.getstate()
    drawn = [env.reset(seed=seed)[1]["task_id"] for seed in range(40)]
    assert random.getstate() == state
    assert drawn == [env.reset(seed=seed)[1]["task_id"] for seed in range(40)] and len(set(drawn)) > 20


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match="'tiny'"):
        TwentyQuestions(world="tiny")
    with pytest.raises(ValueError, match="'dense'"):
        TwentyQuestions(reward="dense")
    with pytest.raises(ValueError, match="metals/hundred"):
        TwentyQuestions().reset(task="metals/hundred")
    for task in (5, {"id": "metals/seven", "category": "metals"}):
        with pytest.raises(ValueError, match="`Task`.*or its id"):
            TwentyQuestions().reset(task=task)
    with pytest.raises(ValueError, match="Planets"):
        TwentyQuestions(world="full").tasks(["Planets"])


@pytest.mark.parametrize(
    "question",
    [
        "Is it a cat?",
        "is it the CAT",
        "Is the object a kind of cat?",
        "Could it be a cat?",
        "Is it a kitten?",
        "cat?",
        "Is it something called a house cat?",
    ],
)
def test_guesses_that_pass(question):
    env = TwentyQuestions(world="full")
    env.reset(task="Animals/cat")
    answer, _, terminated, _, info = env.step(question)
    assert answer == "Yes." and terminated and info["score"] == 19


@pytest.mark.parametrize(
    "question", ["Is it a cat or a dog?", "Is it an animal?", "Is it a cat toy?", "Is it a pet cat?"]
)
def test_questions_that_are_no_guess(question):
    env = TwentyQuestions(world="full")
    env.reset(task="Animals/cat")
    assert not env.step(question)[2]


def test_an_answerer_answers_in_the_tables_place():
    asked = []

    def contrary(question, item):
        asked.append((question, item))
        return "no." if question == "Is it a cat?" else "  YES, of course"

    env = TwentyQuestions(world="full", answerer=contrary)
    env.reset(task="Animals/cat")
    # LMRL-Gym's rule: a wrong "no" to the right guess is no win, and neither is a "yes" to a vague one.
    assert [env.step(text)[:3] for text in ("Is it a cat?", "Is it a pet?", "Is it a kitten?")] == [
        ("No.", -1, False),
        ("Yes.", -1, False),
        ("Yes.", 0, True),
    ]
    assert asked == [("Is it a cat?", "cat"), ("Is it a pet?", "cat"), ("Is it a kitten?", "cat")]
