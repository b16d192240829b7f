"""Table of the scripted policies: mean score (and share sold) by segment.

python -m boost_trl.environments.car_dealer.measure --world full
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence

from boost_trl.tables import markdown_table

from .environment import CarDealer
from .language import WORLDS
from .market import SEGMENT_OF, SEGMENTS
from .offline_data import play_episode
from .scripted_policies import STRATEGIES, ScriptedPolicy


def score_table(
    env: CarDealer, strategies: Sequence[str] = tuple(STRATEGIES)
) -> dict[str, dict[str, tuple[float, float]]]:
    """Every scripted policy, without slips, against every buyer of `env`.

    Returns:
        `dict`: policy -> segment (or `"all"`) -> (mean score, success rate).
    """
    table = {}
    for name in strategies:
        games = defaultdict(list)
        for index, task in enumerate(env.tasks()):
            row = play_episode(env, ScriptedPolicy(env, name, seed=index), task, seed=index)
            for group in (SEGMENT_OF[task.category].name, "all"):
                games[group].append((row["score"], row["success"]))
        table[name] = {
            group: tuple(sum(column) / len(played) for column in zip(*played)) for group, played in games.items()
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", choices=WORLDS, default="full")
    parser.add_argument("--buyers-per-brand", type=int, default=64)
    args = parser.parse_args()
    table = score_table(CarDealer(world=args.world, buyers_per_brand=args.buyers_per_brand))
    groups = [*(segment.name for segment in SEGMENTS), "all"]
    rows = [["policy", *groups]]
    for name, scores in table.items():
        rows.append([name, *(f"{scores[group][0]:.1f} ({scores[group][1]:.0%})" for group in groups)])
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
