import json

import pytest
from toy_game import GuessNumber

from boost_trl.environments.adapters.trl_episode import grpo_rows


def test_rows(tmp_path):
    rows = grpo_rows(GuessNumber(), GuessNumber().tasks(["odd"]), seed=10)
    assert rows["task_id"] == ["1", "3", "5", "7", "9"] and rows["seed"] == [10, 11, 12, 13, 14]
    assert rows[1]["prompt"][0]["content"] == "Guess a number from 0 to 9."
    assert json.loads(rows[1]["prompt"][-1]["game"])["task"]["data"] == {"secret": 3}
    rows.to_parquet(tmp_path / "rows.parquet")  # no struct without fields
    assert grpo_rows(GuessNumber(), system_prompt="Play.")[0]["prompt"][0]["content"] == "Play."
    assert [message["role"] for message in grpo_rows(GuessNumber(system_prompt=""))[0]["prompt"]] == ["user"]
    with pytest.raises(ValueError, match="at least one task"):
        grpo_rows(GuessNumber(), [])
