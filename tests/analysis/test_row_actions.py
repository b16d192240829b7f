import pytest

from boost_trl import make_env
from boost_trl.analysis import contradictions, play_again
from boost_trl.comparison.offline_rl.worlds import get_world


WORLDS = {
    "twenty_questions": ({"world": "small"}, "is it blorp?"),
    "car_dealer": ({"world": "small"}, ""),
    "webshop": ({"catalogue": "small"}, "click[no such button]"),
}


@pytest.mark.parametrize("name", WORLDS)
def test_actions_of_recorded_games_are_valid_and_a_made_up_one_is_not(name):
    kwargs, made_up = WORLDS[name]
    env = make_env(name, **kwargs)
    # The first half of WebShop's players are experts, the last act at random.
    rows = get_world(name).offline_rows(env, 20, 0).to_list()
    assert all(contradictions(env, row) == {} for row in rows)
    valid = [play_again(env, row) for row in rows]
    assert all(len(each) == len(row["rewards"]) for each, row in zip(valid, rows))
    row, before = next((row, each) for row, each in zip(rows, valid) if all(each) and len(each) > 1)
    action = next(turn for turn in row["messages"] if turn["role"] == "assistant")
    action["content"] = made_up
    after = play_again(env, row)
    assert after[0] is False and len(after) == len(before)


def test_actions_after_the_end_are_not_judged_and_a_task_is_needed():
    env = make_env("twenty_questions", world="small")
    task = env.tasks()[0]
    guess = task.id.split("/")[1]
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": f"number {guess}?"}] * 2
    assert play_again(env, {"messages": messages, "task": task.to_dict()}) == [True, None]
    with pytest.raises(ValueError, match="`messages` and `task`"):
        play_again(env, {"messages": messages})


def test_what_a_row_says_against_the_environment_is_found():
    env = make_env("twenty_questions", world="small")
    row = get_world("twenty_questions").offline_rows(env, 20, 0).to_list()[-1]
    messages, rewards = row["messages"], row["rewards"]
    assert len(rewards) > 1 and messages[2]["role"] == "user"
    truth, messages[2]["content"] = messages[2]["content"], "yes and no"
    paid, rewards[1] = rewards[1], 7.0
    place = [number for number, turn in enumerate(messages) if turn["role"] == "assistant"][1]
    assert contradictions(env, row) == {2: truth, place: f"reward {paid:g}".replace("-", "−")}


class Chance:
    def reset(self, *, seed, task):
        self.seed = seed
        return "", {}

    def step(self, action):
        return f"answer {self.seed}", 0.0, True, False, {}


def test_an_environment_that_answers_by_chance_contradicts_nothing():
    messages = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    row = {"messages": messages, "rewards": [1.0], "task": {"id": "one", "category": "c"}}
    assert contradictions(Chance(), row) is None
