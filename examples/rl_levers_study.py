"""The study behind "Levers" in docs/reproductions.md. Resumable cell by cell.

    python examples/rl_levers_study.py
    python examples/rl_levers_study.py --report docs/data/rl_levers_study.json

A cell takes about a quarter of a minute on one core. Six changes of validated reweighting, each a small trainer below, against the weights as they are (`all@0.4`), without
cross-validation and without finishing.
"""

import copy
import logging
import warnings
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trl import TrlParser

from boost_trl.analysis.hitting_time_bound import gaussian_kl, pac_bayes_bound
from boost_trl.comparison.cells import Cell, run_cells, saved_results, write_rows
from boost_trl.comparison.offline_rl.methods import METHODS, OfflineRLMethod
from boost_trl.comparison.offline_rl.study import Place, Study, by_pool
from boost_trl.comparison.offline_rl.worlds import TINY_SELF_PLAY
from boost_trl.comparison.results import standard_error
from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.models.value_heads import ValueHeads
from boost_trl.selection.rules import fractional_ranks
from boost_trl.selection.tempering import effective_sample_size, temper
from boost_trl.tables import MISSING, markdown_table, plus_minus
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.offline_rl.head_fitting import HeadFitter
from boost_trl.trainer.offline_rl.reweighter import Reweighter
from boost_trl.trainer.offline_rl.validated_reweighting import ValidatedWeights, fit_to_pool
from boost_trl.trainer.offline_rl.weight_candidates import Candidate


BASELINE = OfflineRLMethod.of_candidate(Candidate("all", 0.4))
# Effective sample sizes over N among which the bound chooses.
FRACTIONS = np.arange(1, 21) / 20
# Of the Gaussian whose KL `boost-trl analyze` puts in the bound.
SIGMA = 0.02
# Short fits and few trusted rows, as in the study of the recipe.
COMMON = {"score_steps": 72, "unseen_tasks": True}
POOLS = {
    "twenty_questions-natural": Place(
        "twenty_questions",
        {"noise": "weak", "dialogues": 2000, **COMMON},
        changes={"self_play": TINY_SELF_PLAY | {"temperature": 1.0}},
    ),
    "webshop-natural": Place("webshop", {"noise": "stale", "dialogues": 1400, "validation_rows": 12, **COMMON}),
}


@dataclass
class StudyArguments:
    folder: str = field(default="outputs/rl_levers_study", metadata={"help": "Where cells and models are kept."})
    seeds: list[int] = field(
        default_factory=lambda: [29, 30, 31],
        metadata={"help": "Seeds; each draws data and the world."},
    )
    pools: list[str] = field(default_factory=lambda: [*POOLS], metadata={"help": "Pools.", "choices": [*POOLS]})
    methods: list[str] = field(default_factory=lambda: ["all"], metadata={"help": "Methods to run."})
    games: int = field(default=512, metadata={"help": "Games behind every score."})
    report: str | None = field(
        default=None, metadata={"help": "Write all results to this file, print tables, run nothing."}
    )


class LeverTrainer(BilevelOfflineRLTrainer):
    """`method="validated"` with other weights, made of its scores f."""

    def _score_rows(self) -> None:
        super()._score_rows()
        self.validated = self._changed(self.validated)

    @abstractmethod
    def _changed(self, validated: ValidatedWeights) -> ValidatedWeights:
        """The lever."""

    @property
    def _returns(self) -> np.ndarray:
        """Of the pool's rows, (N,)."""
        return self.data.training.row_returns()

    def _tempered(self, validated: ValidatedWeights, scores: np.ndarray, fraction: float = 0.4) -> ValidatedWeights:
        """Weights of whole rows from their scores (N,)."""
        weights, k = temper(scores, fraction)
        units = self.data.training.units
        return _with_weights(validated, units.shares * weights[units.rows], scores[units.rows], units.shares, k)

    def _fit_to_pool(self) -> tuple[HeadFitter, ValueHeads]:
        """ψ, fitted once more, and what has fitted it."""
        fitter = HeadFitter(copy.deepcopy(self.model.primary), self.data.store, self.args)
        return fitter, fit_to_pool(fitter, self.data.num_training, self.args.seed)

    def _pool_losses(self) -> tuple[np.ndarray, np.ndarray]:
        """ℓ of every unit of the pool under the initial heads and under ψ, (U,) each."""
        fitter, auxiliary = self._fit_to_pool()
        rows = np.arange(self.data.num_training)
        return fitter.policy_losses(fitter.initial, rows), fitter.policy_losses(auxiliary, rows)


def _with_weights(
    validated: ValidatedWeights, weights: np.ndarray, scores: np.ndarray, shares: np.ndarray, k: float
) -> ValidatedWeights:
    numbers = {"tempering": k, "effective_sample_size": effective_sample_size(weights, shares)}
    return ValidatedWeights(weights, scores, validated.report | numbers)


def standardized(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() or 1.0)


class RewardAwareTrainer(LeverTrainer):
    """f + G, both standardised over the pool, G the return of the row."""

    def _changed(self, validated):
        return self._tempered(validated, standardized(validated.scores) + standardized(self._returns))


class PositiveTurnsTrainer(LeverTrainer):
    """Σ (f_u − mean f) over the turns u of a row with G_u > V(s_u): its player did better from there than the state promised."""

    def _changed(self, validated):
        turns, units = validated.scores, self.data.training.units
        gains = (turns - turns.mean()) * (advantages(self.data.store, self.data.num_training) > 0)
        return self._tempered(validated, units.total_by_row(gains))


def advantages(store: TrajectoryStore, num_pool: int) -> np.ndarray:
    """G_u − V(s_u) of every turn of the pool, V linear in the state before the turn's first token, by least squares, (U,)."""
    batch = store.collate(np.arange(num_pool))
    first = torch.from_numpy(np.flatnonzero(np.diff(batch.unit.numpy(), prepend=-1)))
    states = batch.states[batch.action_index[first]].double().numpy()
    states = np.column_stack([states, np.ones(len(states))])
    returns = batch.returns[first].double().numpy()
    return returns - states @ np.linalg.lstsq(states, returns)[0]


class AgainstInitialTrainer(LeverTrainer):
    """½ ℓ(initial heads) − ℓ(θ), where f has ½ ℓ(ψ)."""

    def _changed(self, validated):
        of_initial, of_pool = self._pool_losses()
        return self._tempered(validated, validated.scores + 0.5 * (of_initial - of_pool))


class BoundTrainer(LeverTrainer):
    """The n_eff of the smallest bound on the hitting time, equation (41), at KL 0."""

    def _changed(self, validated):
        scores, returns = validated.scores, self._returns
        fitter, auxiliary = self._fit_to_pool()
        pairs = zip(auxiliary.parameters(), fitter.initial.parameters())
        kl = gaussian_kl(sum((after - before).square().sum().item() for after, before in pairs), SIGMA)
        changed = self._tempered(validated, scores, fraction_by_bound(scores, returns, kl=0.0))
        # What the bound would choose for a policy as far from the LM's as ψ is.
        return replace(
            changed, report=changed.report | {"kl": kl, "kl_fraction": fraction_by_bound(scores, returns, kl)}
        )


def fraction_by_bound(scores: np.ndarray, returns: np.ndarray, kl: float) -> float:
    """The entry of `FRACTIONS` with the smallest bound. T is what a return lacks to the pool's best, which in Twenty Questions are
    steps."""
    times = returns.max() - returns

    def bound(fraction: float) -> float:
        return pac_bayes_bound(times, temper(scores, fraction)[0], horizon=float(times.max()), kl=kl).bound

    return float(min(FRACTIONS, key=bound))


class SofterTrainer(LeverTrainer):
    """Turn u of row i counts for 1 + d_u (N w_i − 1): for the row's weight as far as ψ and θ differ on it, elsewhere for 1. d_u ∈
    [0, 1] is the rank of |ℓ_u(ψ) − ℓ_u(θ)| among all turns."""

    def _changed(self, validated):
        units = self.data.training.units
        _, of_pool = self._pool_losses()
        of_validation = 0.5 * of_pool - validated.scores
        differ = fractional_ranks(np.abs(of_pool - of_validation)) / len(of_pool)
        of_rows, k = temper(units.mean_by_row(validated.scores), 0.4)
        weights = units.shares * (1 + differ * (len(of_rows) * of_rows[units.rows] - 1))
        return _with_weights(validated, weights / weights.sum(), validated.scores, units.shares, k)


class FromScoresTrainer(BilevelOfflineRLTrainer):
    """`method="boost"` with φ fitted to k f before training."""

    def _prepare(self) -> None:
        super()._prepare()
        self._score_rows()
        self.validated = None
        shares = self.data.training.units.shares
        self.reweighter = Reweighter(self._fitted_head, self.embeddings, shares, self.args.reweighting_learning_rate)


class FixedFromScoresTrainer(FromScoresTrainer):
    """The same, and φ stays as it was fitted."""

    def _update_reweighting_head(self, reweighter: Reweighter, step: int) -> None:
        pass


def _lever(name: str, label: str, trainer: type[LeverTrainer], **options: Any) -> OfflineRLMethod:
    return replace(BASELINE, name=name, label=label, trainer_class=trainer, options={**BASELINE.options, **options})


def _from_scores(name: str, label: str, trainer: type[FromScoresTrainer]) -> OfflineRLMethod:
    options = {**BASELINE.options, "method": "boost"}
    return replace(METHODS["boost"], name=name, label=label, trainer_class=trainer, options=options)


class LeversStudy(Study):
    methods = {
        method.name: method
        for method in (
            METHODS["two_stage"],
            replace(METHODS["uniform_mix"], shows_best_beta=False),
            METHODS["loss_filter"],
            BASELINE,
            _lever("reward_aware", "(a) reward-aware scores", RewardAwareTrainer),
            _lever("positive_turns", "(b) turns of positive advantage", PositiveTurnsTrainer, weight_level="turn"),
            _lever("against_initial", "(c) against the initial heads", AgainstInitialTrainer),
            _lever("bound", "(d) n_eff by the bound", BoundTrainer),
            METHODS["uniform"],
            METHODS["boost"],
            _from_scores("boost_from_scores", "(e) BOOST, φ from the scores", FromScoresTrainer),
            _from_scores("boost_fixed_scores", "(e) BOOST, φ from the scores, fixed", FixedFromScoresTrainer),
            _lever("softer", "(f) softer advantages", SofterTrainer, weight_level="turn"),
        )
    }


def make_study(arguments: StudyArguments) -> LeversStudy:
    folder = Path(arguments.folder)

    def place(cell: Cell) -> Place:
        options = {"games": arguments.games, "cache_dir": str(folder / "cache" / f"{cell.setting}-{cell.seed}")}
        return replace(POOLS[cell.setting], options={**POOLS[cell.setting].options, **options})

    return LeversStudy(folder, place)


def all_cells(arguments: StudyArguments) -> list[Cell]:
    """One seed of everything before the next."""
    return [
        Cell(name, seed, pool)
        for seed in arguments.seeds
        for pool in arguments.pools
        for name in LeversStudy.choose(arguments.methods)
    ]


def table(rows: list[dict[str, Any]], pool: str) -> str:
    """Markdown: score of every method in a pool, the difference to the baseline paired by seed, mean ± SE over seeds, n_eff over N
    and the AUC of the weights where they are not constant."""
    lines = [["method", "seeds", "score", "minus all@0.4", "n_eff / N", "AUC of the weights"]]
    for name, method in LeversStudy.methods.items():
        if not (both := _pairs(rows, pool, name, BASELINE.name)):
            continue
        aucs = [row["weights_auc"] for row, _ in both if row["weights_auc"] is not None]
        fraction = np.mean([row["effective_sample_size"] / row["num_rows"] for row, _ in both])
        lines.append(
            [
                method.label,
                str(len(both)),
                _mean_and_error([row["score_mean"] for row, _ in both]),
                MISSING if name == BASELINE.name else _mean_and_error(_gains(both), "+.2f"),
                f"{fraction:.2f}" if aucs else MISSING,
                f"{np.mean(aucs):.2f}" if aucs else MISSING,
            ]
        )
    return markdown_table(lines)


def schedule_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: what φ adds on BOOST's schedule, by where it starts and whether it learns, paired by seed, mean ± SE."""
    pairs = [("boost", "uniform"), ("boost_from_scores", "uniform"), ("boost_fixed_scores", "uniform")]
    pairs += [("boost_from_scores", "boost"), ("boost_from_scores", "boost_fixed_scores")]
    pools = [pool for pool in POOLS if any(row["setting"] == pool for row in rows)]
    lines = [["difference of scores", *pools]]
    for first, second in pairs:
        labels = [LeversStudy.methods[name].label for name in (first, second)]
        gains = [_gains(_pairs(rows, pool, first, second)) for pool in pools]
        if any(gains):
            lines.append([" − ".join(labels), *(_mean_and_error(each, "+.2f") for each in gains)])
    return markdown_table(lines)


Pairs = list[tuple[dict[str, Any], dict[str, Any]]]


def _pairs(rows: list[dict[str, Any]], pool: str, first: str, second: str) -> Pairs:
    """Results of two methods in a pool, by every seed that has both."""
    seeds = [results for (setting, _), results in by_pool(rows).items() if setting == pool]
    return [(results[first], results[second]) for results in seeds if {first, second} <= results.keys()]


def _gains(pairs: Pairs) -> list[float]:
    return [first["score_mean"] - second["score_mean"] for first, second in pairs]


def _mean_and_error(values: list[float], style: str = ".2f") -> str:
    return plus_minus(float(np.mean(values)), standard_error(values), style) if values else MISSING


def report(arguments: StudyArguments) -> None:
    rows = [result.to_dict() for result in saved_results(make_study(arguments), all_cells(arguments))]
    for row in rows:
        del row["label"], row["game_scores"]
    write_rows(arguments.report, rows)
    for pool in arguments.pools:
        print(f"{pool}\n\n{table(rows, pool)}\n")
    print(schedule_table(rows))


def main(arguments: StudyArguments) -> None:
    if arguments.report is not None:
        report(arguments)
        return
    run_cells(make_study(arguments), all_cells(arguments))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    parser = TrlParser(StudyArguments)
    main(parser.parse_args_and_config()[0])
