import json
from functools import cache

import pytest
from datasets import Dataset

from boost_trl import generate_synthetic, load_lmrl_gym
from boost_trl.environments.base import make_env
from boost_trl.environments.car_dealer import noise as car_dealer_noise
from boost_trl.environments.car_dealer import offline_data as car_dealer_data
from boost_trl.environments.planted_noise import NOISE_KINDS
from boost_trl.environments.synthetic_fit import check_rows_fit
from boost_trl.environments.twenty_questions import noise as twenty_questions_noise
from boost_trl.environments.twenty_questions import offline_data as twenty_questions_data
from boost_trl.environments.webshop import noise as webshop_noise
from boost_trl.environments.webshop import offline_data as webshop_data


GAMES = {
    "twenty_questions": ("twenty_questions", {}),
    "full twenty_questions": ("twenty_questions", {"world": "full"}),
    "car_dealer": ("car_dealer", {}),
    "small car_dealer": ("car_dealer", {"world": "small"}),
    "webshop": ("webshop", {"catalogue": "small", "observation": "text_rich"}),
    "compact webshop": ("webshop", {"catalogue": "small"}),
}
DATA = {"twenty_questions": twenty_questions_data, "car_dealer": car_dealer_data, "webshop": webshop_data}
NOISE = {"twenty_questions": twenty_questions_noise, "car_dealer": car_dealer_noise, "webshop": webshop_noise}


@cache
def environment(game):
    name, options = GAMES[game]
    return make_env(name, **options)


@cache
def rows_of(game):
    return DATA[GAMES[game][0]].offline_trajectories(environment(game), 40)


@pytest.mark.parametrize("game", GAMES)
def test_an_environments_own_rows_fit(game):
    env, rows = environment(game), rows_of(game)
    check_rows_fit(env, rows, "rows")
    noise = [NOISE[GAMES[game][0]].add_noise(rows, env, kind, share=1.0) for kind in NOISE_KINDS]
    for noisy in noise:
        check_rows_fit(env, noisy, "rows")
    if "webshop" not in game:  # whose purchases are scored against their task's goal
        check_rows_fit(env, rows.remove_columns("task"), "rows")


@pytest.mark.parametrize(
    ("game", "other"), [(game, other) for game in GAMES for other in GAMES if GAMES[game][0] != GAMES[other][0]]
)
def test_rows_of_another_game_do_not_fit_whatever_their_labels(game, other):
    env = environment(game)
    task = env.tasks()[0]
    for row in rows_of(other):
        row["category"] = task.category
        with pytest.raises(ValueError, match="rows, row 0, column `task`: this is no game of"):
            check_rows_fit(env, [row], "rows")
        for relabelled in (None, task.to_dict(), {**row["task"], "category": task.category}):
            with pytest.raises(ValueError, match="rows, row 0, column `messages`: the rules of '.*$") as error:
                check_rows_fit(env, [{**row, "task": relabelled}], "rows")
            assert "\n" not in str(error.value)


def test_rows_of_lmrl_gym_fit(tmp_path):
    conversations = [
        {
            "lines": ["Is it alive? Yes.", "Does it have four legs? Not always, no."],
            "correct": False,
            "word": ["Bear"],
        },
        {"lines": ["Is it a belt? Yes."], "correct": True, "word": ["Belt"]},
    ]
    (tmp_path / "convos.json").write_text(json.dumps(conversations))
    rows = load_lmrl_gym(tmp_path / "convos.json")
    check_rows_fit(environment("full twenty_questions"), rows, "rows")


def test_twenty_questions_in_other_words_are_known_by_their_answers():
    env = environment("full twenty_questions")
    turns = ["What am I thinking of?", "Is it alive?", "No.", "Is it a tool?", "yes", "Is it a hammer?"]
    messages = [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns)]
    row = {"messages": messages, "rewards": [-1.0] * 3, "category": "Tools"}
    check_rows_fit(env, [row], "rows")
    messages[2]["content"] = "No deal."
    with pytest.raises(ValueError, match="rows, row 0, column `messages`: .* its answers are not yes and no alone"):
        check_rows_fit(env, [row], "rows")
    for task in ({"id": None, "category": "Tools"}, "hammer"):
        with pytest.raises(ValueError, match="rows, row 0, column `task`: a task "):
            check_rows_fit(env, [{**row, "task": task}], "rows")


def test_a_row_needs_a_category_of_the_game_or_a_task_that_it_plays():
    env, row = environment("full twenty_questions"), rows_of("full twenty_questions")[0]
    check_rows_fit(env, [{**row, "category": "a user's own"}], "rows")
    with pytest.raises(ValueError, match="rows, row 0, column `category`"):
        check_rows_fit(env, [{**row, "task": None, "category": None}], "rows")


def test_text_that_the_rules_cannot_read_is_named():
    env = environment("car_dealer")
    row = {
        "messages": [{"role": "user", "content": "Start"}, {"role": "assistant", "content": "Hello."}],
        "rewards": [0.0],
        "category": env.tasks()[0].category,
        "task": env.tasks()[0].to_dict(),
    }
    with pytest.raises(ValueError, match="rows, row 0, column `messages`: the rules of 'car_dealer' cannot read it"):
        check_rows_fit(env, [row], "rows")


def test_generate_synthetic_refuses_rows_that_do_not_fit_before_it_asks_the_model():
    row = rows_of("car_dealer")[0] | {"category": "metals", "task": None}
    with pytest.raises(ValueError, match="dataset, row 0, column `messages`: the rules of 'twenty_questions'"):
        generate_synthetic(None, None, Dataset.from_list([row]), "twenty_questions")
