"""Rewards and score of a negotiation, in the paper's units and in LMRL-Gym's."""

REWARDS = ("step_cost", "score", "revenue", "fancy")


def score(steps: int, price: int | None, max_utterances: int) -> float:
    """The paper's score: utterances of the dialogue that remain at the agreement, 0 without one.

    The buyer's assent is an utterance too, so `steps` turns of the seller use `2 * steps`.
    """
    return 0.0 if price is None else float(max_utterances - 2 * steps)


def terminal_reward(
    kind: str, steps: int, price: int | None, *, sticker: int, budget: int, max_utterances: int
) -> float:
    """Reward of the seller's last turn.

    Args:
        kind (`str`): `"step_cost"`: 0 for a sale, else all remaining steps, so that a failure's rewards sum to minus
            the number of steps allowed; `"score"`: [`score`]; `"revenue"`: the price in thousands of dollars, or 0;
            `"fancy"` (LMRL-Gym's): price over the mean of budget and sticker price, or minus the share of the
            sticker price by which the budget exceeds it.
        steps (`int`): turns the seller took, this one included.
        price (`int`, *optional*): the agreed price, `None` without agreement.
        sticker, budget (`int`): the car's sticker price and the buyer's budget; only `"fancy"` uses them.
        max_utterances (`int`): both sides' turns allowed.
    """
    if kind == "step_cost":
        return 0.0 if price is not None else float(steps - 1 - max_utterances // 2)
    if kind == "score":
        return score(steps, price, max_utterances)
    if kind == "revenue":
        return 0.0 if price is None else price / 1000
    if price is None:
        return -(budget - sticker) / sticker
    return price / ((budget + sticker) / 2)


def step_reward(kind: str) -> float:
    """Reward of every turn but the last; `kind` is one of `REWARDS`."""
    return -1.0 if kind == "step_cost" else 0.0
