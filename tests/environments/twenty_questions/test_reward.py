"""Rewards and score, worked by hand."""

import pytest

from boost_trl.environments.twenty_questions.reward import score, step_reward, terminal_reward


@pytest.mark.parametrize(
    ("kind", "steps", "success", "rewards"),
    [
        ("step_cost", 3, True, [-1, -1, 0]),
        ("step_cost", 4, False, [-1, -1, -1, -1]),  # a failure sums to minus the number of questions
        ("score", 3, True, [0, 0, 1]),
        ("score", 4, True, [0, 0, 0, 0]),  # success with the last question leaves nothing
        ("score", 4, False, [0, 0, 0, 0]),
    ],
)
def test_rewards_of_a_game_of_four_questions(kind, steps, success, rewards):
    earned = [step_reward(kind)] * (steps - 1) + [terminal_reward(kind, steps, success, max_steps=4)]
    assert earned == rewards
    assert score(steps, success, max_steps=4) == (4 - steps if success else 0)
