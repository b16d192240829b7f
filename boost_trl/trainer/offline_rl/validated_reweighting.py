r"""Validated reweighting: weights of training rows from a small trusted set, used only where held-out rows agree.

1. ψ: heads fitted to the pool; θ: heads fitted to validation rows (its high-return half, or all of it).
2. Score, equation (18): \\( f_i = -\ell_i(\theta) + \tfrac12 \ell_i(\psi) \\), ℓ the policy part of the loss (mean cross-entropy per
   token). The half keeps what the pool as a whole makes likely, which pure excess loss would punish.
3. Temper, equation (19), by `boost_trl.selection.tempering`: \\( w = \mathrm{softmax}(k f) \\), k such that the effective
   sample size is a given share of the pool.
4. Confidence: where held-out validation rows rank in the pool by the scores that the other rows give, chance ½.
5. With `guard`, cross-validation chooses among several such weights and uniform ones, each with and without a
   finishing stage on validation rows alone. It judges by the cross-entropy of the policy softmax(βQ) at the best β, so that
   it does not mistake a policy that is too sharp, which β mends, for one that is wrong.

All fits are on the cached states of the frozen backbone. Training itself (rows drawn by w, mixed with validation rows) is
in [`BilevelOfflineRLTrainer`]; its draws are in `weighted_batches`.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.models.value_heads import ValueHeads
from boost_trl.selection.confidence import WeightConfidence, confidence_of_folds
from boost_trl.selection.tempering import effective_sample_size, temper
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.offline_rl.data import TrainingData
from boost_trl.trainer.offline_rl.head_fitting import HeadFitter
from boost_trl.trainer.offline_rl.scoring_budget import JUDGED_BETAS, STEP_DIVISORS, affordable_steps, folds_of
from boost_trl.trainer.offline_rl.weight_candidates import Candidate, candidates_of, choose_candidate
from boost_trl.trainer.offline_rl.weighted_batches import WeightedBatches


REPORT_NAME = "validated_reweighting.json"
_WEIGHTS_KEY, _SCORES_KEY = "validated.weights", "validated.scores"
_SEED_OFFSETS = {"training": 3, "pool": 11, "validation": 12, "mixture": 13, "folds": 14, "halves": 15}


def check_folds(args: BilevelOfflineRLConfig, num_validation: int) -> None:
    """Check that validation rows can be cut into folds.

    Raises:
        ValueError: if there are too few validation rows to choose between candidates by cross-validation.
    """
    if args.scores_rows and args.guard and num_validation < 4:
        raise ValueError(
            f"cross-validation cuts `validation_dataset` in folds, which needs 4 usable rows that differ, and it has {num_validation}: "
            "add rows, or set `guard` to false"
        )


@dataclass
class ValidatedWeights:
    """Weights of the pool and how they came about.

    Args:
        weights (`np.ndarray` of shape `(U,)`): w of every unit of the pool (a row, or a turn), float64, sums to one.
        scores (`np.ndarray` of shape `(U,)`): f.
        report (`dict`): see [`validated_weights`].
    """

    weights: np.ndarray
    scores: np.ndarray
    report: dict[str, Any]

    @property
    def confidence(self) -> WeightConfidence | None:
        """Rank of held-out validation rows in the pool; `None` for too few of them."""
        said = self.report["confidence"]
        return None if said is None else WeightConfidence(**said)

    def log_weights(self) -> np.ndarray:
        """ln w (of turns: beyond ln of the share) up to a constant: k f with mean zero, (U,)."""
        return self.report["tempering"] * (self.scores - self.scores.mean())

    def summary(self) -> dict[str, float]:
        """The numbers of the report that belong in a log."""
        losses = {f"guard_cross_entropy_{each['name']}": each["cross_entropy"] for each in self.report["candidates"]}
        names = {"scoring_runtime": "seconds", "score_primary_steps": "primary_steps", "tempering": "tempering"}
        names["guard_finish_share"] = "finish_share"
        return {**{name: self.report[key] for name, key in names.items()}, **losses}

    def verdict(self) -> str:
        """Decision and reason, in one line."""
        report = self.report
        named = ' (docs/glossary.md, "all@0.4")' if "@" in report["winner"] else ""
        ranks = ""
        if self.confidence is not None:
            near = "no more than chance allows" if self.confidence.is_near_chance else "above chance"
            ranks = (
                f"; validation rows rank above {self.confidence.auc:.0%} of the pool by scores that they had no part in, {near} "
                f"(50 ± {self.confidence.chance_error:.0%})"
            )
        return (
            f"Validated reweighting: {report['winner']} weights{named}, n_eff {report['effective_sample_size']:.0f} of "
            f"{report['num_rows']} rows, because {report['reason']} ({report['fits']} fits in {report['seconds']:.0f} s, "
            f"θ for {report['primary_steps']} updates){ranks}"
        )

    def save_report(self, folder: Path) -> None:
        """Write the report as `validated_reweighting.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_NAME).write_text(json.dumps(self.report, indent=2) + "\n")

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights and scores as a checkpoint keeps them, beside the report."""
        return {_WEIGHTS_KEY: torch.from_numpy(self.weights), _SCORES_KEY: torch.from_numpy(self.scores)}

    @classmethod
    def load(cls, folder: Path, tensors: dict[str, torch.Tensor]) -> "ValidatedWeights":
        """From a checkpoint's folder and its tensors."""
        report = json.loads((folder / REPORT_NAME).read_text())
        return cls(tensors[_WEIGHTS_KEY].numpy(), tensors[_SCORES_KEY].numpy(), report)


def high_return_half(returns: np.ndarray) -> np.ndarray:
    """Indices of the top ⌈n/2⌉ returns, ties by row order, ascending."""
    order = np.argsort(-np.asarray(returns, dtype=np.float64), kind="stable")
    return np.sort(order[: -(-len(order) // 2)])


def drawn_batches(
    args: BilevelOfflineRLConfig, validated: ValidatedWeights | None, data: TrainingData, num_updates: int
) -> WeightedBatches:
    """The rows of all policy updates: by the weights and the finishing share that were found or, where nothing was scored,
    by equal weights and the configured share."""
    return WeightedBatches(
        np.ones(data.num_training) if validated is None else data.training.units.total_by_row(validated.weights),
        data.num_validation,
        args.validation_share,
        args.seed + _SEED_OFFSETS["training"],
        num_steps=num_updates,
        finish_share=args.finish_share or 0.0 if validated is None else validated.report["finish_share"],
    )


def fit_to_pool(fitter: HeadFitter, num_pool: int, seed: int) -> ValueHeads:
    """ψ: heads fitted to rows 0..num_pool-1 with uniform weights."""
    draws = WeightedBatches(np.ones(num_pool), 0, 0.0, seed + _SEED_OFFSETS["pool"])
    size = min(fitter.args.score_batch_size, num_pool)
    return fitter.fit(lambda step: draws.rows(step, size))


def validated_weights(fitter: HeadFitter, num_pool: int, *, progress: bool = False) -> ValidatedWeights:
    """Score the pool, temper the scores and, with `args.guard`, choose by cross-validation whether to use them at all.

    In the cross-validation each candidate is judged so: scores come from all folds of validation but one, heads are fitted to
    the mixture of weighted pool rows and those folds, in the finishing share of their updates to those folds alone, and the
    policy's mean cross-entropy per token is taken on the high-return half of the fold left out, at the best β of
    `JUDGED_BETAS`. The
    candidates are those of `candidates_of`; without `args.guard` the configured one is used.

    ψ and the heads of the cross-validation are fitted for `fitter.steps` updates, θ for that number over 64, 16, 4 or 1: the shortest
    after which the next does worse, where each half of θ's rows has to predict the other.

    Args:
        fitter (`HeadFitter`): over a store with the pool's rows 0..num_pool-1 first, then all validation rows.
        num_pool (`int`): N.
        progress (`bool`, *optional*, defaults to `False`): show a bar over the fits.

    Returns:
        `ValidatedWeights`, with a report of `winner`, `reason`, `finish_share` (of the winner), `candidates` (per candidate
        `name`, `score_validation`, `target_effective_fraction`, `finish_share`, what each fold said, `fold_cross_entropies`,
        `fold_betas`, `fold_accuracies`, and the means `cross_entropy` and `accuracy`, the share of argmax actions, which
        decides nothing), `confidence` (rank of validation rows in the pool by scores of θ fitted to the other folds, as
        [`WeightConfidence`] has it; `None` for fewer than 4 rows), `tempering` (k), `effective_sample_size`,
        `num_rows`, `num_validation_rows`, `learning_rate`, `score_steps` (of a fit), `primary_steps` (of θ), `num_words`
        (that have values of their own), `fits` and `seconds`. Where uniform weights win, the scores are still those of the
        configured setting.
    """
    return _ValidatedReweighting(fitter, num_pool, progress).run()


def score_rows(
    heads: ValueHeads,
    store: TrajectoryStore,
    num_pool: int,
    args: BilevelOfflineRLConfig,
    *,
    updates: int,
    rows_per_update: float,
    prior: tuple[torch.Tensor, torch.Tensor | None] | None = None,
    progress: bool = False,
) -> ValidatedWeights:
    """[`validated_weights`] with fits of `args.score_steps` updates, or as many as the training to come allows.

    Args:
        heads (`ValueHeads`): where fits start; stay as they are.
        store (`TrajectoryStore`): with cached `states`, the pool's rows 0..num_pool-1 first, then all validation rows.
        num_pool (`int`): N.
        args (`BilevelOfflineRLConfig`): of the training.
        updates (`int`): policy updates of the training.
        rows_per_update (`float`): rows of one process in each of them.
        prior (`tuple` of `torch.Tensor`, *optional*): π_ref of the policy, as in [`HeadFitter`].
        progress (`bool`, *optional*, defaults to `False`): show a bar over the fits.
    """
    fitter = HeadFitter(heads, store, args, prior=prior)
    if args.score_steps is None:
        fitter.steps = affordable_steps(
            args,
            store.action_counts,
            num_pool,
            num_candidates=len(candidates_of(args)),
            num_words=fitter.num_words,
            heads=heads.config,
            updates=updates,
            rows_per_update=rows_per_update,
        )
    return validated_weights(fitter, num_pool, progress=progress)


class _Fold(NamedTuple):
    """Validation rows that are held out, all others, and f by θ fitted to these: of the pool for either kind of θ, of the rows
    held out for the configured one."""

    held_out: np.ndarray
    others: np.ndarray
    scores: dict[str, np.ndarray]
    held_out_scores: np.ndarray


def _confidence(folds: list[_Fold], kind: str) -> dict[str, float] | None:
    """Rank of the validation rows in the pool, each by scores that it had no part in."""
    if not folds:
        return None
    return asdict(confidence_of_folds((fold.held_out_scores, fold.scores[kind]) for fold in folds))


class _ValidatedReweighting:
    def __init__(self, fitter: HeadFitter, num_pool: int, progress: bool = False):
        self.fitter, self.args, self.num_pool = fitter, fitter.args, num_pool
        self.pool = np.arange(num_pool)
        self.validation = np.arange(num_pool, len(fitter.store))
        self.returns = fitter.store.row_returns()
        self.first_of_equal = fitter.store.first_of_equal()
        self.units, self.pool_units = fitter.store.units, fitter.store.units.first(num_pool)
        self.candidates = candidates_of(self.args)
        self.configured = Candidate(
            self.args.score_validation, self.args.target_effective_fraction, self.args.finish_share or 0.0
        )
        # θ with the fits that find its length, before and within the cross-validation; its own; ψ.
        self.kinds = {self.args.score_validation}
        if self.args.guard:
            kinds = (candidate.score_validation for candidate in self.candidates.values())
            self.kinds |= {kind for kind in kinds if kind is not None}
        num_different = len(np.unique(self.first_of_equal[self.validation]))
        check_folds(self.args, num_different)
        self.num_folds = folds_of(self.args, num_different)
        self.primary_steps: dict[str, int] = {}
        most_fits = 1 + self.num_folds * len(self.kinds) + len(self.kinds) * 2 * len(self._lengths())
        most_fits += 1 + self.num_folds * len(self.candidates) * self.args.guard
        self.bar = tqdm(total=most_fits, desc="Weighing the rows", unit="fit", disable=not progress)

    def run(self) -> ValidatedWeights:
        start = time.perf_counter()
        self.bar.set_postfix_str("the pool")
        self.auxiliary = fit_to_pool(self.fitter, self.num_pool, self.args.seed)
        self.bar.update()
        self.pool_losses = self.fitter.policy_losses(self.auxiliary, self.pool)
        folds = self._score_folds()
        judged: list[dict[str, Any]] = []
        winner, reason = self.configured, "cross-validation is off (`guard=False`)"
        if self.args.guard:
            judged = self._cross_validate(folds)
            name, reason = choose_candidate({each["name"]: each["fold_cross_entropies"] for each in judged})
            winner = self.candidates[name]
        kind = winner.score_validation or self.args.score_validation
        scores = self._scores(self._primary(self.validation, kind, "validation"))
        self.bar.close()
        weights, tempering = temper(scores, winner.fraction, self.pool_units.shares)
        report = {
            "winner": winner.name,
            "reason": reason,
            "finish_share": winner.finish_share,
            "candidates": judged,
            "confidence": _confidence(folds, self.args.score_validation),
            "tempering": tempering,
            "effective_sample_size": effective_sample_size(weights, self.pool_units.shares),
            "num_rows": self.num_pool,
            "num_validation_rows": len(self.validation),
            "learning_rate": self.fitter.learning_rate,
            "score_steps": self.fitter.steps,
            "primary_steps": self.primary_steps[kind],
            "num_words": self.fitter.num_words,
            "fits": self.fitter.num_fits,
            "seconds": time.perf_counter() - start,
        }
        return ValidatedWeights(weights, scores, report)

    def _score_folds(self) -> list["_Fold"]:
        """The folds of the validation rows, with the scores that the other folds give."""
        if not self.num_folds:
            return []
        folds = []
        for number, held_out in enumerate(self._parts(self.validation, self.num_folds, "folds"), start=1):
            others = np.setdiff1d(self.validation, held_out)
            where = f"fold {number} of {self.num_folds}"
            primaries = {kind: self._primary(others, kind, where) for kind in sorted(self.kinds)}
            losses = self.fitter.policy_losses(self.auxiliary, held_out)
            held_out_scores = 0.5 * losses - self.fitter.policy_losses(primaries[self.args.score_validation], held_out)
            scores = {kind: self._scores(heads) for kind, heads in primaries.items()}
            folds.append(_Fold(held_out, others, scores, held_out_scores))
        return folds

    def _cross_validate(self, folds: list["_Fold"]) -> list[dict[str, Any]]:
        """The report's entries, one per candidate."""
        said: dict[str, list[tuple[float, float, float]]] = {name: [] for name in self.candidates}
        equal = np.zeros(len(self.pool_units))
        for number, fold in enumerate(folds, start=1):
            judged_on = fold.held_out[high_return_half(self.returns[fold.held_out])]
            for name, candidate in self.candidates.items():
                self.bar.set_postfix_str(f"cross-validation, fold {number} of {len(folds)}: {name}")
                kind = candidate.score_validation
                scores = equal if kind is None else fold.scores[kind]
                weights, _ = temper(scores, candidate.fraction, self.pool_units.shares)
                heads = self._fit_to_mixture(weights, fold.others, candidate.finish_share)
                losses = self.fitter.cross_entropies(heads, judged_on, JUDGED_BETAS)
                best = int(np.argmin(losses))
                said[name].append((float(losses[best]), JUDGED_BETAS[best], self.fitter.accuracy(heads, judged_on)))
                self.bar.update()
        return [self._judgement(self.candidates[name], *zip(*folds)) for name, folds in said.items()]

    @staticmethod
    def _judgement(candidate: Candidate, losses: tuple, betas: tuple, accuracies: tuple) -> dict[str, Any]:
        return {
            "name": candidate.name,
            "score_validation": candidate.score_validation,
            "target_effective_fraction": candidate.fraction,
            "finish_share": candidate.finish_share,
            "fold_cross_entropies": list(losses),
            "fold_betas": list(betas),
            "fold_accuracies": list(accuracies),
            "cross_entropy": float(np.mean(losses)),
            "accuracy": float(np.mean(accuracies)),
        }

    def _primary(self, validation: np.ndarray, kind: str, where: str) -> ValueHeads:
        """θ, fitted to `validation`."""
        self.bar.set_postfix_str(f"{where}: {'its half of high return' if kind == 'high_return' else 'all of it'}")
        if kind not in self.primary_steps:
            # Once, on all validation rows: in every fold, the search would take half of the time.
            self.primary_steps[kind] = self._steps_that_generalise(self._rows_of_kind(self.validation, kind))
        primary = self._fit_to_validation(self._rows_of_kind(validation, kind), self.primary_steps[kind])
        self.bar.update()
        return primary

    def _scores(self, primary: ValueHeads) -> np.ndarray:
        """f of every unit of the pool."""
        return 0.5 * self.pool_losses - self.fitter.policy_losses(primary, self.pool)

    def _rows_of_kind(self, validation: np.ndarray, kind: str) -> np.ndarray:
        return validation[high_return_half(self.returns[validation])] if kind == "high_return" else validation

    def _parts(self, rows: np.ndarray, number: int, purpose: str) -> list[np.ndarray]:
        """`rows` in parts of like size, drawn anew for each purpose. Equal rows stay together: the same row must not train and
        judge."""
        firsts = self.first_of_equal[rows]
        order = np.random.default_rng(self.args.seed + _SEED_OFFSETS[purpose]).permutation(np.unique(firsts))
        return [rows[np.isin(firsts, part)] for part in np.array_split(order, number)]

    def _lengths(self) -> list[int]:
        """The updates among which θ's are chosen, ascending."""
        return sorted({max(1, self.fitter.steps // divisor) for divisor in STEP_DIVISORS})

    def _steps_that_generalise(self, rows: np.ndarray) -> int:
        """Length of θ's fit to a few rows: the number of updates before one half of them predicts the other worse.

        A θ that has learned its rows by heart ranks the pool by how much it resembles them word for word. Longer fits cost
        most, and are not tried once a longer one did worse.
        """
        choices = self._lengths()
        halves = self._parts(rows, 2, "halves")
        best, least = choices[0], np.inf
        not_tried = 2 * len(choices)
        for steps in choices if all(map(len, halves)) and len(choices) > 1 else ():
            loss = 0.0
            for half, other in (halves, halves[::-1]):
                losses = self.fitter.policy_losses(self._fit_to_validation(half, steps), other)
                loss += (self.units.shares[self.units.of_rows(other)] * losses).sum()
                self.bar.update()
                not_tried -= 1
            if loss >= least:
                break
            best, least = steps, loss
        if self.bar.total is not None:
            self.bar.total -= not_tried
        return best

    def _fit_to_validation(self, rows: np.ndarray, steps: int) -> ValueHeads:
        size = self.args.score_batch_size
        if len(rows) <= size:
            return self.fitter.fit(lambda step: rows, steps)
        draws = WeightedBatches(np.ones(len(rows)), 0, 0.0, self.args.seed + _SEED_OFFSETS["validation"])
        return self.fitter.fit(lambda step: rows[draws.rows(step, size)], steps)

    def _fit_to_mixture(self, weights: np.ndarray, fold: np.ndarray, finish_share: float) -> ValueHeads:
        """A short run of the training step, with the same seed for all candidates, so that they differ by their
        weights and finishing only."""
        draws = WeightedBatches(
            self.pool_units.total_by_row(weights),
            len(fold),
            self.args.validation_share,
            self.args.seed + _SEED_OFFSETS["mixture"],
            num_steps=self.fitter.steps,
            finish_share=finish_share,
        )
        numbers = np.concatenate([self.pool, fold])
        within_rows = np.ones(len(self.units))
        within_rows[: len(weights)] = self.pool_units.within_rows(weights)
        return self.fitter.fit(
            lambda step: numbers[draws.rows(step, self.args.score_batch_size)], within_rows=within_rows
        )
