import pytest

from boost_trl import make_env
from boost_trl.analysis import play_again
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
