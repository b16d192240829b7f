"""Planted noise turn by turn: dialogues in which a bot now and then speaks for the player."""

import random

from datasets import Dataset, Features, List, Value

from boost_trl.environments.planted_noise import check_share
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import FEATURES, play_episode
from boost_trl.environments.twenty_questions.scripted_policies import STRATEGIES, Beliefs, Strategy
from boost_trl.environments.twenty_questions.world import World, sample


class Interrupted:
    """A strategy that a bot interrupts: it repeats one guess, whatever the answers were.

    Args:
        strategy (`Callable[[Beliefs, random.Random], str]`): who plays the other turns.
        guess (`str`): what the bot says.
        share (`float`): chance of every turn to be the bot's.
    """

    def __init__(self, strategy: Strategy, guess: str, share: float):
        self.strategy, self.guess, self.share = strategy, guess, share
        self.is_bot: list[bool] = []

    def __call__(self, beliefs: Beliefs, rng: random.Random) -> str:
        self.is_bot.append(rng.random() < self.share)
        return self.guess if self.is_bot[-1] else self.strategy(beliefs, rng)


def add_bot_turns(dataset: Dataset, env: TwentyQuestions | World, share: float = 0.5, seed: int = 0) -> Dataset:
    """Play every dialogue of a pool again, with the same policy and task, and let a bot take every turn with probability
    `share`.

    The answers stay true: a bot's turn is a lost question, or a lucky guess. Good and bad turns then stand in nearly every
    dialogue, so that no choice of whole dialogues can tell them apart.

    Args:
        dataset (`Dataset`): rows of [`offline_trajectories`].
        env (`TwentyQuestions` or `World`): the game that the rows are from.
        share (`float`, *optional*, defaults to `0.5`): of all turns, in [0, 1].
        seed (`int`, *optional*, defaults to `0`): which turns.

    Returns:
        `Dataset`: as many rows, with `noise_turns` (a list, true for the bot's turns), `is_noise` where there is one, and
        `noise_kind`.

    Raises:
        ValueError: for a share outside [0, 1].
    """
    check_share(share)
    env = TwentyQuestions(world=env) if isinstance(env, World) else env
    world, rows = env.world, []
    for index, row in enumerate(dataset):
        rng = random.Random(f"bot turns {seed} {index}")
        task_id = row["task"]["id"]
        candidates = world.candidates(world.items[world.index_of[task_id]].category)
        player = Interrupted(STRATEGIES[row["policy"]], world.items[sample(candidates, rng)].guess, share)
        made = play_episode(env, player, task_id, rng, policy=row["policy"])
        marks = {"noise_turns": player.is_bot, "is_noise": any(player.is_bot)}
        rows.append(made | marks | {"noise_kind": "bot_turns" if marks["is_noise"] else ""})
    return Dataset.from_list(rows, features=Features({**FEATURES, "noise_turns": List(Value("bool"))}))
