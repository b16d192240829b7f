"""Rewards and score of a game of Twenty Questions."""

REWARDS = ("step_cost", "score")


def score(steps: int, success: bool, max_steps: int) -> float:
    """The paper's score: questions that remain at success, 0 for a failure."""
    return float(max_steps - steps) if success else 0.0


def step_reward(kind: str) -> float:
    """Reward of every question but the last; `kind` is one of `REWARDS`."""
    return -1.0 if kind == "step_cost" else 0.0


def terminal_reward(kind: str, steps: int, success: bool, max_steps: int) -> float:
    """Reward of the last question.

    Args:
        kind (`str`): `"step_cost"`: 0 if it guesses the item, else −1; `"score"`: [`score`].
        steps (`int`): questions asked, this one included.
        success (`bool`): whether it guesses the item.
        max_steps (`int`): questions allowed.
    """
    if kind == "score":
        return score(steps, success, max_steps)
    return 0.0 if success else step_reward(kind)
