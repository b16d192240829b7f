"""World that a tiny model learns from zero: 12 categories of 16 numbered items, 8 questions."""

import random
from functools import lru_cache

import numpy as np

from boost_trl.environments.twenty_questions.world import Item, Question, World


SMALL_CATEGORIES = (
    "metals", "birds", "tools", "drinks", "fabrics", "stones", "games", "boats", "lamps", "herbs", "masks", "toys",
)  # fmt: skip
# The answerer names what it says yes or no to: a tiny model can then add up what it was told without first having to bind
# every answer to the question before it, which takes it many times longer to learn.
SMALL_ATTRIBUTES = {
    "heavy": "light", "shiny": "dull", "round": "flat", "warm": "cold",
    "soft": "hard", "loud": "quiet", "old": "new", "rare": "common",
}  # fmt: skip
SMALL_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight",
    "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
)  # fmt: skip


@lru_cache(maxsize=64)
def small_world(seed: int = 0, max_questions: int | None = None) -> World:
    """The world that a tiny model learns from zero: 12 categories of 16 numbered items and 8 questions.

    The category is announced. Questions, numbers and the codebook from number to attributes are the same in all
    categories, so all that a good player needs carries over to categories without training data. Each attribute is
    true of half of the numbers. A perfect player needs 4.5 questions where halving stays possible.

    Args:
        seed (`int`, *optional*, defaults to `0`): which codebook.
        max_questions (`int`, *optional*, defaults to 12): questions per game.
    """
    rng = random.Random(f"small world {seed}")
    half = len(SMALL_NUMBERS) // 2
    while True:
        columns = [rng.sample([True] * half + [False] * half, k=2 * half) for _ in SMALL_ATTRIBUTES]
        codebook = np.array(columns).T
        if len({row.tobytes() for row in codebook}) == len(codebook):
            break
    items = tuple(
        Item(f"{category}/{number}", category, (f"number {number}", number), f"number {number}?")
        for category in SMALL_CATEGORIES
        for number in SMALL_NUMBERS
    )
    return World(
        name="small",
        items=items,
        questions=tuple(Question(f"very {one}?", says=(one, other)) for one, other in SMALL_ATTRIBUTES.items()),
        table=np.tile(codebook, (len(SMALL_CATEGORIES), 1)),
        max_questions=max_questions or 12,
        announces_category=True,
        yes="yes",
        no="no",
        opening="category: {category}",
    )
