import json
import math
import statistics

import pytest
from datasets import Dataset
from toy_game import GuessNumber

from boost_trl import evaluate_policy, rollout
from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments import rollout as rollout_module
from boost_trl.environments.base import Environment, Task


def count_up(conversations):
    """Guesses 0, 1, 2, … in turn."""
    return [str(sum(m["role"] == "assistant" for m in conversation)) for conversation in conversations]


class Recorder:
    def __init__(self, policy):
        self.policy, self.sizes = policy, []

    def __call__(self, conversations):
        self.sizes.append(len(conversations))
        return self.policy(conversations)


def play(policy, env, ids, **kwargs):
    return rollout(policy, env, list(ids), progress=False, **kwargs)


def test_the_toy_is_an_environment():
    assert isinstance(GuessNumber(), Environment)


def test_rows_are_trajectories():
    env = GuessNumber()
    rows = rollout(count_up, env, env.tasks(), progress=False)
    validate_trajectories(rows)
    assert rows[2]["messages"] == [
        {"role": "system", "content": "Guess a number from 0 to 9."},
        {"role": "user", "content": "It is even."},
        {"role": "assistant", "content": "0"},
        {"role": "user", "content": "Higher."},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Higher."},
        {"role": "assistant", "content": "2"},
    ]
    assert rows[2]["rewards"] == [-1.0, -1.0, 0.0]
    assert rows["category"] == ["even", "odd"] * 5
    assert rows["score"] == [4.0, 3.0, 2.0, 1.0, 0.0] + [0.0] * 5
    assert rows["success"] == [True] * 5 + [False] * 5
    assert set(rows["source"]) == {"offline"} and set(rows["error"]) == {None} and set(rows["luck"]) == {7}
    assert rows[7]["task"] == {"id": "7", "category": "odd", "prompt": "", "data": {"secret": 7}}
    assert all(rows["terminated"]) and len(set(rows["seed"])) == 10


def test_a_truncated_game_keeps_its_last_observation():
    rows = play(count_up, GuessNumber(truncates=True), ["1", "9"])
    validate_trajectories(rows)
    assert rows["terminated"] == [True, False]
    assert rows[1]["messages"][-1] == {"role": "user", "content": "Higher."}
    assert rows["score"] == [3.0, 0.0]


def test_max_turns_cuts_without_a_score():
    rows = play(count_up, GuessNumber(), ["0", "9"], max_turns=2)
    validate_trajectories(rows)
    assert rows[1]["rewards"] == [-1.0, -1.0] and rows["terminated"] == [True, False]
    assert rows["score"] == [4.0, None] and rows["success"] == [True, None]


def test_no_system_message_without_a_system_prompt():
    for env, option in ((GuessNumber(system_prompt=""), True), (GuessNumber(), False)):
        assert play(count_up, env, ["0"], system_prompt=option)[0]["messages"][0]["role"] == "user"


def test_one_policy_call_per_turn_for_the_games_that_still_play():
    policy = Recorder(count_up)
    play(policy, GuessNumber(), "01299")
    assert policy.sizes == [5, 4, 3, 2, 2]


def test_waiting_tasks_take_free_places_and_rows_keep_the_tasks_order():
    policy = Recorder(count_up)
    rows = play(policy, GuessNumber(), "901230", num_envs=2)
    # Game 0 plays five turns beside 0 (one turn), 1 (two turns) and 2 (three, two of them after game 0 made room).
    assert [row["task"]["id"] for row in rows] == list("901230")
    assert policy.sizes[:5] == [2] * 5 and sum(policy.sizes) == 5 + 1 + 2 + 3 + 4 + 1
    assert rows.to_list() == play(count_up, GuessNumber(), "901230").to_list()


def test_a_broken_game_loses_only_itself():
    def policy(conversations):
        crash = [c[1]["content"] == "It is odd." and len(c) == 4 for c in conversations]
        return ["crash" if bad else reply for bad, reply in zip(crash, count_up(conversations))]

    rows = play(policy, GuessNumber(broken=("8",)), "28320", num_envs=2)
    assert [error and error.partition(" (toy_game.py:")[0] for error in rows["error"]] == [
        *(None, "OSError: no such number", "ZeroDivisionError: crashed", None, None)
    ]
    assert rows["score"] == [2.0, None, None, 2.0, 4.0]
    assert rows[2]["rewards"] == [-1.0] and rows[2]["messages"][-1]["role"] == "user" and not rows[2]["terminated"]
    assert rows[1]["rewards"] == [] and rows["category"][1] == "even"


def test_an_environment_that_raised_is_replaced():
    made = []

    def make():
        made.append(GuessNumber(broken=("8",)))
        return made[-1]

    play(count_up, make, "888001", num_envs=1)
    assert len(made) == 4  # three broken, one that plays the last three games


def test_every_environment_is_closed():
    closed = []

    class Closing(GuessNumber):
        def close(self):
            closed.append(self.task.id)
            if self.task.id == "0":
                raise OSError("already gone")

    rows = play(count_up, lambda: Closing(broken=("8",)), "8180", num_envs=1)
    assert closed == ["8", "8", "0"] and rows["error"][3] is None  # that one cannot be closed costs no games
    closed.clear()

    def raises(conversations):
        raise KeyError("policy")

    with pytest.raises(KeyError):
        play(raises, Closing, "123")
    assert sorted(closed) == ["1", "2", "3"]


def test_seeds_differ_by_game_and_repeat_by_seed():
    one, again, other = (play(count_up, GuessNumber(), "000", seed=seed)["seed"] for seed in (1, 1, 2))
    assert list(one) == list(again) and len({*one, *other}) == 6


def test_environments_come_as_object_class_factory_or_name(monkeypatch):
    expected = play(count_up, GuessNumber(), "05").to_list()
    assert play(count_up, GuessNumber, "05").to_list() == expected
    assert play(count_up, lambda: GuessNumber(), "05").to_list() == expected
    monkeypatch.setattr(rollout_module, "make_env", lambda name: {"guess_number": GuessNumber}[name]())
    assert play(count_up, "guess_number", "05").to_list() == expected
    with pytest.raises(ValueError, match="got int"):
        play(count_up, 3, "05")
    with pytest.raises(ValueError, match="a task is a `Task`, its id or its dict, not 5"):
        play(count_up, GuessNumber, [5])


def test_saved_tasks_play_again(tmp_path):
    env = GuessNumber()
    rows = rollout(count_up, env, env.tasks()[:3], progress=False)
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_json(tmp_path / "rows.jsonl")
    for saved in (
        Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache")),
        Dataset.from_list([json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]),
    ):
        assert rollout(count_up, env, saved["task"], progress=False).to_list() == rows.to_list()


def test_tasks_without_data_are_saved_too(tmp_path):
    class Plain(GuessNumber):
        def tasks(self, categories=None):
            return [Task("0", "even")]

        def step(self, action):
            observation, reward, terminated, truncated, info = "Right.", 0.0, True, False, self._info(True)
            return observation, reward, terminated, truncated, info

    rows = play(count_up, Plain(), ["0"])
    rows.to_parquet(tmp_path / "rows.parquet")
    saved = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    assert play(count_up, Plain(), saved["task"]).to_list() == rows.to_list()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="at least one task"):
        play(count_up, GuessNumber(), [])
    with pytest.raises(ValueError, match="guess_number has no task '10'; ids look like '0'"):
        play(count_up, GuessNumber(), ["0", "10"])
    with pytest.raises(ValueError, match="needs `id` and `category`"):
        play(count_up, GuessNumber(), [{"id": "0"}])
    with pytest.raises(ValueError, match="num_games is 0"):
        evaluate_policy(count_up, GuessNumber(), ["0"], num_games=0)
    with pytest.raises(ValueError, match="num_envs"):
        play(count_up, GuessNumber(), "0", num_envs=0)
    with pytest.raises(ValueError, match="one text per conversation"):
        play(lambda conversations: ["0"], GuessNumber(), "00")


def test_evaluate_policy_reports_mean_and_standard_error():
    env = GuessNumber()
    result = evaluate_policy(count_up, env, env.tasks(), progress=False)
    scores = [4, 3, 2, 1, 0, 0, 0, 0, 0, 0]
    assert result == {
        "score_mean": pytest.approx(1.0),
        "score_se": pytest.approx(statistics.stdev(scores) / math.sqrt(10)),
        "success_rate": 0.5,
        "mean_turns": pytest.approx((1 + 2 + 3 + 4 + 5 + 5 * 5) / 10),
        "num_games": 10,
        "errors": 0,
    }


@pytest.mark.parametrize("num_games", [3, 10, 25])
def test_evaluation_favours_no_task(num_games):
    played = []

    class Counting(GuessNumber):
        def reset(self, *, seed=None, task=None):
            played.append(task.id)
            return super().reset(seed=seed, task=task)

    evaluate_policy(count_up, Counting, GuessNumber().tasks(), num_games=num_games, progress=False)
    counts = [played.count(str(n)) for n in range(10)]
    assert sum(counts) == num_games and max(counts) - min(counts) <= 1


def test_evaluation_leaves_broken_games_out_and_counts_them():
    env = GuessNumber(broken=("0",))
    result = evaluate_policy(count_up, env, ["0", "1", "3"], progress=False)
    assert result["errors"] == 1 and result["num_games"] == 2 and result["score_mean"] == 2.0
    with pytest.raises(RuntimeError, match="no such number"):
        evaluate_policy(count_up, env, ["0"], progress=False)
