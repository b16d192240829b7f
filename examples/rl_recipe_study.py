"""The study behind "RL: the recipe against two-stage training" in docs/reproductions.md. Resumable policy by policy.

    python examples/rl_recipe_study.py
    python examples/rl_recipe_study.py --report docs/data/rl_recipe_study.json

Three worlds, planted and natural noise, MC and ILQL. A cell trains one policy, and plays it. The methods that are compared are choices
among policies, so that a policy that several of them consider is trained once: what a method chooses is decided by games on validation
tasks, as many in all for every control.
"""

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from trl import TrlParser

from boost_trl.comparison.cells import Cell, run_cells, saved_results, write_rows
from boost_trl.comparison.offline_rl.comparison import is_near_chance
from boost_trl.comparison.offline_rl.games import BETAS, best_beta, play_games
from boost_trl.comparison.offline_rl.methods import CHOSEN_BY_GAMES, METHODS, OfflineRLMethod
from boost_trl.comparison.offline_rl.study import Place, Study, by_pool
from boost_trl.comparison.offline_rl.training import train_method
from boost_trl.comparison.offline_rl.worlds import TINY_SELF_PLAY
from boost_trl.comparison.results import Result, standard_error
from boost_trl.environments.rollout import choose_tasks, summarize
from boost_trl.environments.twenty_questions.pretraining import build_embedded_lm
from boost_trl.tables import MISSING, markdown_table, plus_minus
from boost_trl.trainer.offline_rl.weight_candidates import Candidate


FINISH_SHARE = 0.5
RECIPE = tuple(candidate.name for candidate in CHOSEN_BY_GAMES)
UNIFORM = ("uniform", f"uniform+finish@{FINISH_SHARE:g}")
CONTROLS = ("two_stage", "vanilla_validation", "uniform_mix", "return_filter", "loss_filter")


def _finishing_or_not(name: str) -> tuple[str, str]:
    return name, METHODS[name].finishing(FINISH_SHARE).name


# Methods as choices among policies, each by so many games on validation tasks per β: 128 in all, but half of that for the recipe,
# whose games were to be shared with equal weights as well (`four_candidates`, the first form of the recipe).
CHOICES = {
    "recipe": (32, RECIPE),
    "recipe, always weights": (32, RECIPE),
    "two_stage": (128, ("two_stage",)),
    "vanilla_validation": (64, _finishing_or_not("vanilla_validation")),
    "uniform_mix": (64, UNIFORM),
    "return_filter": (64, _finishing_or_not("return_filter")),
    "loss_filter": (64, _finishing_or_not("loss_filter")),
    "uniform_mix, never finishing": (128, UNIFORM[:1]),
    "four_candidates": (32, (*UNIFORM, *RECIPE)),
    "oracle_mix": (64, _finishing_or_not("oracle_mix")),
}


POOLS = [
    *(f"{world}-{kind}" for world in ("webshop", "twenty_questions", "car_dealer") for kind in ("planted", "natural")),
    "torn_twenty_questions-planted",
]


@cache
def pools() -> dict[str, Place]:
    """The cells' worlds and options, by the name of the pool."""
    # A model that has read of the stale world as often as of the true one, so that its loss does not tell which rows are stale.
    torn = {"embedded_lm": lambda number, folder: build_embedded_lm(number, folder, doubts=number)}
    hot = {"self_play": TINY_SELF_PLAY | {"temperature": 1.0}}
    # Scores by short fits, as in the study of guards; the smaller pools and few trusted rows are for time and for room.
    common = {"score_steps": 72, "unseen_tasks": True}
    questions = {"dialogues": 2000, **common}
    cars = {"dialogues": 1800, "validation_rows": 8, **common}
    shops = {"dialogues": 1400, "validation_rows": 12, **common}
    return {
        "webshop-planted": Place("webshop", {"noise": "bot", **shops}),
        "webshop-natural": Place("webshop", {"noise": "stale", **shops}),
        "twenty_questions-planted": Place("twenty_questions", {"noise": "bot", **questions}),
        "twenty_questions-natural": Place("twenty_questions", {"noise": "weak", **questions}, changes=hot),
        "car_dealer-planted": Place("car_dealer", {"noise": "bot", **cars}),
        "car_dealer-natural": Place("car_dealer", {"noise": "weak", **cars}),
        "torn_twenty_questions-planted": Place("twenty_questions", {"noise": "stale", **questions}, changes=torn),
    }


@dataclass
class StudyArguments:
    folder: str = field(default="outputs/rl_recipe_study", metadata={"help": "Where cells and models are kept."})
    seeds: list[int] = field(
        default_factory=lambda: [23, 24, 25],
        metadata={"help": "Seeds; each draws data and, in two worlds, the world."},
    )
    pools: list[str] | None = field(default=None, metadata={"help": "Pools, by default all.", "choices": POOLS})
    games: int = field(default=256, metadata={"help": "Games behind every score."})
    report: str | None = field(
        default=None, metadata={"help": "Write all results to this file, print tables, run nothing."}
    )


def all_policies() -> dict[str, OfflineRLMethod]:
    uniform = [Candidate(finish_share=candidate.finish_share) for candidate in CHOSEN_BY_GAMES]
    of_candidates = [OfflineRLMethod.of_candidate(candidate) for candidate in (*uniform, *CHOSEN_BY_GAMES)]
    others = [
        METHODS[name] for name in ("two_stage", "vanilla_validation", "return_filter", "loss_filter", "oracle_mix")
    ]
    finishing = [method.finishing(FINISH_SHARE) for method in others[1:]]
    return {method.name: method for method in (*of_candidates, *others, *finishing)}


def policies_of(pool: str) -> list[str]:
    """The policies that are trained in a pool: the oracle's, which need to know what is noise, where it was planted."""
    is_planted = pool.endswith("planted")
    return [name for name, method in RecipeStudy.methods.items() if is_planted or not method.needs_planted_noise]


def games_of(policy: str) -> list[int]:
    """The numbers of validation games per β after which some method that considers the policy judges it, ascending."""
    return sorted({number for number, names in CHOICES.values() if policy in names})


class RecipeStudy(Study):
    """One policy per cell, with the score that it has at the β that each number of validation games chooses."""

    methods = all_policies()

    def steps(self, cell: Cell) -> int:
        return 1

    def run(self, cell: Cell, advance: Callable[[], object] = lambda: None) -> Result:
        method, experiment = self.methods[cell.method], self.experiment(cell)
        arguments, training_args, _ = self.options(cell)
        experiment.evaluation = None  # games alone judge
        start = time.perf_counter()
        trainer = train_method(method, experiment, replace(training_args, seed=cell.seed), self.run_folder(cell))
        seconds = time.perf_counter() - start
        numbers = games_of(cell.method)
        tasks = choose_tasks(experiment.validation_tasks, numbers[-1], 2 * cell.seed + 1)
        said = {beta: play_games(trainer, experiment, beta, tasks, 2 * cell.seed + 1)["score"] for beta in BETAS}
        means = {number: {beta: float(np.mean(said[beta][:number])) for beta in BETAS} for number in numbers}
        betas = {number: best_beta(means[number]) for number in numbers}
        tasks = choose_tasks(experiment.evaluation_tasks, arguments.games, 2 * cell.seed)
        played = {
            beta: summarize(play_games(trainer, experiment, beta, tasks, 2 * cell.seed))
            for beta in set(betas.values())
        }
        judged = {
            str(number): {
                "validation_score": means[number][beta],
                "beta": beta,
                **{name: played[beta][name] for name in ("score_mean", "score_se", "success_rate")},
            }
            for number, beta in betas.items()
        }
        confidence = (trainer.validated_report or {}).get("confidence")
        return self._result(cell, trainer, seconds, {"judged": judged, "confidence": confidence})


def all_cells(seeds: list[int], chosen: list[str] | None = None) -> list[Cell]:
    """MC first, the torn model last, and one seed of everything before the next."""
    return [
        Cell(name, seed, f"{pool}-{algorithm}")
        for algorithm, names in (("mc", POOLS[:-1]), ("ilql", POOLS[:-1]), ("mc", POOLS[-1:]))
        for seed in seeds
        for pool in names
        if chosen is None or pool in chosen
        for name in policies_of(pool)
    ]


def make_study(arguments: StudyArguments) -> RecipeStudy:
    folder = Path(arguments.folder)

    def place(cell: Cell) -> Place:
        pool, algorithm = cell.setting.rsplit("-", 1)
        cache_dir = str(folder / "cache" / f"{pool}-{cell.seed}")
        options = {"algorithm": algorithm, "games": arguments.games, "cache_dir": cache_dir}
        return replace(pools()[pool], options={**pools()[pool].options, **options})

    return RecipeStudy(folder, place)


Results = dict[str, dict[str, Any]]


def choose(policies: Results, method: str) -> tuple[str, dict[str, Any]]:
    """The policy that a method chooses in one pool, the first of equals, and what was said of it. The recipe is Two-stage where
    held-out trusted rows rank no higher in the pool than chance allows."""
    if method == "recipe" and is_near_chance(policies[RECIPE[0]]):
        method = METHODS["by_games"].where_near_chance
    number, names = CHOICES[method]
    said = {name: policies[name]["judged"][str(number)] for name in names}
    best = max(said, key=lambda name: said[name]["validation_score"])
    return best, said[best]


def whole_cells(rows: list[dict[str, Any]]) -> dict[str, list[Results]]:
    """Per cell (pool and algorithm), the results of every seed that has all policies, in the seeds' order."""
    found: dict[str, list[Results]] = {}
    for (cell, _), policies in by_pool(rows).items():
        if {*policies_of(cell.rsplit("-", 1)[0])} <= policies.keys():
            found.setdefault(cell, []).append(policies)
    return found


def scores_by_cell(rows: list[dict[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Per cell and method, the score with every seed; the methods whose policies are there."""
    return {
        cell: {
            method: np.array([choose(policies, method)[1]["score_mean"] for policies in seeds])
            for method, (_, names) in CHOICES.items()
            if {*names} <= seeds[0].keys()
        }
        for cell, seeds in whole_cells(rows).items()
    }


def _shown(values: np.ndarray | None, form: str = ".2f") -> str:
    return MISSING if values is None else plus_minus(float(values.mean()), standard_error(values), form)


def scores_table(cells: dict[str, dict[str, np.ndarray]]) -> str:
    """Markdown: score of every method (columns) in every cell (rows), mean ± SE over seeds."""
    lines = [["cell", "seeds", *CHOICES]]
    for cell, scores in cells.items():
        lines.append([cell, str(len(scores["recipe"])), *(_shown(scores.get(method)) for method in CHOICES)])
    return markdown_table(lines)


def differences_table(cells: dict[str, dict[str, np.ndarray]]) -> str:
    """Markdown: the recipe minus every control, paired by seed; whether it is above all of them; the oracle's headroom; and the
    share of it that the recipe has, (recipe − Uniform mix) / (oracle − Uniform mix), where it is larger than its error."""
    lines = [["recipe minus", *CONTROLS, "above all", "oracle minus uniform_mix", "share of it"]]
    for cell, scores in cells.items():
        gains = {name: scores["recipe"] - scores[name] for name in CONTROLS}
        room, share = None, MISSING
        if "oracle_mix" in scores:
            room = scores["oracle_mix"] - scores["uniform_mix"]
            if room.mean() > standard_error(room):
                share = f"{gains['uniform_mix'].mean() / room.mean():.0%}"
        above = "yes" if all(gain.mean() > 0 for gain in gains.values()) else "no"
        lines.append([cell, *(_shown(gain, "+.2f") for gain in gains.values()), above, _shown(room, "+.2f"), share])
    return markdown_table(lines)


def choices_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: what the recipe chose in every cell, seed by seed, and how well its weights tell good rows from bad ones."""
    lines = [["cell", "chosen", "rank of held-out trusted rows", "AUC of the weights"]]
    for cell, seeds in whole_cells(rows).items():
        auc = np.mean([policies["all@0.4"]["weights_auc"] for policies in seeds])
        said = [policies[RECIPE[0]].get("confidence") for policies in seeds]
        ranks = ", ".join(MISSING if each is None else f"{each['auc']:.2f}" for each in said)
        lines.append([cell, ", ".join(choose(policies, "recipe")[0] for policies in seeds), ranks, f"{auc:.2f}"])
    return markdown_table(lines)


def report(arguments: StudyArguments) -> None:
    rows = [
        result.to_dict()
        for result in saved_results(make_study(arguments), all_cells(arguments.seeds, arguments.pools))
    ]
    write_rows(arguments.report, rows)
    cells = scores_by_cell(rows)
    if not cells:
        print("no cell has all of its policies yet")
        return
    print(f"{scores_table(cells)}\n\n{differences_table(cells)}\n\n{choices_table(rows)}")


def main(arguments: StudyArguments) -> None:
    if arguments.report is not None:
        report(arguments)
        return
    run_cells(make_study(arguments), all_cells(arguments.seeds, arguments.pools))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    parser = TrlParser(StudyArguments)
    main(parser.parse_args_and_config()[0])
