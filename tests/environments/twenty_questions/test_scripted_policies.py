import random
from functools import lru_cache

import numpy as np
import pytest

from boost_trl import rollout
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import play_episode
from boost_trl.environments.twenty_questions.scripted_policies import (
    STRATEGIES,
    Beliefs,
    Enumerator,
    Expert,
    ScriptedPolicy,
)


@lru_cache
def fewest_questions(items: int) -> int:
    """Total number of questions over `items` equally likely items that every question may split as it likes."""
    if items == 1:
        return 1
    split = min(fewest_questions(k) + fewest_questions(items - k) for k in range(1, items // 2 + 1))
    return items + min(split, fewest_questions(items - 1))  # the latter: guess one


def scores(env, player, categories, n):
    rng = random.Random(0)
    tasks = env.tasks(categories)
    return np.array([play_episode(env, player, rng.choice(tasks), rng)["score"] for _ in range(n)])


def test_the_expert_is_nearly_perfect_in_the_small_world():
    env = TwentyQuestions()
    best = 12 - fewest_questions(16) / 16
    assert best == 7.5
    reached = scores(env, Expert(), None, 800)
    assert best - 0.25 < reached.mean() < best + 3 * reached.std() / 800**0.5


def test_quality_of_the_players():
    env = TwentyQuestions()
    mean = {name: scores(env, player, None, 300).mean() for name, player in STRATEGIES.items()}
    order = ["expert", "noisy_expert", "confused_expert", "random"]
    assert [mean[name] for name in order] == sorted((mean[name] for name in order), reverse=True)
    # Sixteen items in random order, twelve guesses: mean of 12 - n over n = 1..12, four in sixteen lost.
    assert mean["enumerator"] == pytest.approx(sum(12 - n for n in range(1, 13)) / 16, abs=0.8)
    # Each guess is right with chance 1/16 whatever went before.
    blind = sum((12 - n) * (15 / 16) ** (n - 1) / 16 for n in range(1, 13))
    assert mean["blind_guesser"] == pytest.approx(blind, abs=0.8)


def test_what_wins_on_known_categories_fails_on_others():
    env = TwentyQuestions(world="full")
    known, others = env.world.categories[:10], env.world.categories[10:]
    narrow = Enumerator(tuple(known))
    assert scores(env, narrow, known, 100).mean() > 6 and scores(env, narrow, others, 100).mean() < 0.5
    assert scores(env, Expert(), known, 100).mean() > 10 and scores(env, Expert(), others, 100).mean() > 10


def test_beliefs_are_the_items_that_agree_with_all_answers():
    env = TwentyQuestions(world="full")
    world = env.world
    beliefs = Beliefs(world)
    for question, answer in [("Is it alive?", "Yes."), ("Is it a cat?", "No."), ("Is it nonsense?", "No.")]:
        beliefs.hear(question, answer)
    alive = [q.text for q in world.questions].index("Is it alive?")
    expected = {item.id for i, item in enumerate(world.items) if world.table[i, alive]} - {"Animals/cat"}
    assert {world.items[i].id for i in beliefs.candidates} == expected
    beliefs.hear("Is it alive?", "No.")  # an oracle that contradicts itself
    assert world.read(Expert()(beliefs, random.Random(0)))[1]


@pytest.mark.parametrize("world", ["small", "full"])
def test_a_scripted_player_is_a_policy(world):
    env = TwentyQuestions(world=world)
    games = rollout(ScriptedPolicy(env.world), env, list(env.tasks())[::7], progress=False)
    assert all(games["success"]) and not any(games["invalid_actions"])
    assert np.mean(games["score"]) > (7 if world == "small" else 10)
