r"""Validated selection: weights of the pool's rows from a few updates on the trusted rows, before training.

1. ℓ(θ₀): every row's loss under the model as given. θ: the same model after n updates on the trusted rows alone.
2. Score, equation (34): \\( f_i = \tfrac12 \ell_i(\theta_0) - \ell_i(\theta) \\).
3. Temper, equation (19): \\( w = \mathrm{softmax}(k f) \\), k such that the effective sample size is a given share of the pool.
4. Cross-validation between two halves of the trusted rows finds n, by where the scores of one half rank the other half's
   rows in the pool. With `selection_guard` the weights are used where that rank is far above chance, and otherwise if they win
   against equal ones in short trainings with one half, judged by the other.

Training itself, with rows drawn by w, and what it scores again as it goes on, is in `drawn_rows.py`.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm

from boost_trl.selection import (
    WeightConfidence,
    effective_sample_size,
    score_agreement,
    temper,
    validated_scores,
)
from boost_trl.trainer.common.endless_sampler import EndlessSampler
from boost_trl.trainer.row_weights.adaptation import adaptation
from boost_trl.trainer.row_weights.config import RowWeightsConfig
from boost_trl.trainer.row_weights.prepared_rows import first_of_equal
from boost_trl.trainer.row_weights.scoring_budget import BATCH, SAMPLE, ScoringBudget
from boost_trl.trainer.row_weights.scoring_losses import PoolLosses, TrustedLosses
from boost_trl.trainer.row_weights.trials import (
    EQUAL_WEIGHTS,
    Trial,
    best_steps,
    choose_fraction,
    confidence_of_halves,
    confidence_of_trials,
)


FEWEST_TRUSTED = 4
# Standard errors above chance. The highest of several ranks is beyond it in about one of ten pools with nothing to learn, in which weights cost
# little; more would leave pools alone in which they gain much.
_SURE = 2.0


@dataclass
class ValidatedSelectionResult:
    """Logits of the pool's rows and how they came about.

    Args:
        logits (`np.ndarray` of shape `(N,)`): k f up to a constant, by row number.
        losses (`np.ndarray` of shape `(N,)`): ℓ(θ₀).
        report (`dict` of JSON values): `fraction`, `reason`, `candidates` (per candidate `fraction`, `losses` of the two
            halves and their mean `loss`), `adaptation_steps`, `adaptation_trials` (per half, of the other one: `updates`, `loss`,
            `rank`), `agreement` of the halves' scores, `confidence` (rank of trusted rows by scores that they had no part in, or `None`), `tempering` (k), `effective_sample_size`, `num_rows`,
            `num_validation_rows`, `guard_steps`, `seconds`, and `rounds` (of each later one its `epoch`, its scores' `agreement` with
            the weights so far over rows that were hardly drawn, and `is_taken`).
    """

    logits: np.ndarray
    losses: np.ndarray
    report: dict[str, Any]

    def verdict(self) -> str:
        """Decision and reason, in one line."""
        report = self.report
        kind = "equal weights" if report["fraction"] == EQUAL_WEIGHTS else "weights"
        return (
            f"Validated selection: {kind}, n_eff {report['effective_sample_size']:.0f} of {report['num_rows']} rows, because "
            f"{report['reason']} ({report['adaptation_steps']} updates on {report['num_validation_rows']} trusted rows, "
            f"{report['seconds']:.0f} s)"
        )


class ValidatedSelection:
    """Weights of a pool from trusted rows: equations (34) and (19).

    Args:
        model (`nn.Module`): as it is given, without any engine; it is as before afterwards.
        args ([`RowWeightsConfig`]): of the training.
        pool ([`PoolLosses`]): of N rows.
        trusted ([`TrustedLosses`]): at least 4 rows.
        num_updates (`int`): of the training.
        batch_size (`int`): rows of one of its updates.
        progress (`bool`, *optional*, defaults to `False`): show a bar.
    """

    def __init__(
        self,
        model: nn.Module,
        args: RowWeightsConfig,
        pool: PoolLosses,
        trusted: TrustedLosses,
        num_updates: int,
        batch_size: int,
        progress: bool = False,
    ):
        self.model, self.args, self.pool, self.trusted = model, args, pool, trusted
        self.sample = pool.sample(SAMPLE, args.seed)
        self.budget = ScoringBudget.of(num_updates, args.selection_guard, batch_size)
        total = self.budget.num_updates
        # Below another bar it leaves nothing behind.
        self._bar = tqdm(total=total, desc="Scoring the pool", unit="update", disable=not progress, leave=None)

    def run(self) -> ValidatedSelectionResult:
        """Score the pool and choose its weights."""
        start = time.perf_counter()
        with self._bar, adaptation(self.model, self.args) as self._adapted:
            numbers, losses = self._means(self.pool, "the pool, as the model is")
            sample_losses = losses[np.searchsorted(numbers, self.sample.numbers())]
            folds = self._folds()
            halves = [self._try(*fold, sample_losses) for fold in folds]
            best = [trials[best_steps([trials])] for trials in halves]
            # Equal on every process but for rounding.
            said = [best_steps(halves), confidence_of_halves(halves), confidence_of_trials(best)]
            steps, confidence, highest = broadcast_object_list(said)
            fraction, reason, candidates = broadcast_object_list([self._choose(folds, best, highest)])[0]
            self._adapt(np.arange(len(self.trusted)), steps)
            scores = validated_scores(losses, self._means(self.pool, "the pool, adapted")[1])
        logits, tempering = tempered_logits(scores, fraction)
        report = {
            "fraction": fraction,
            "reason": reason,
            "candidates": candidates,
            "adaptation_steps": steps,
            "adaptation_trials": [
                [{"updates": n, "loss": trial.loss, "rank": trial.rank} for n, trial in trials.items()]
                for trials in halves
            ],
            "agreement": score_agreement(*(trial.scores for trial in best)).to_dict(),
            "confidence": None if confidence is None else asdict(confidence),
            "tempering": tempering,
            "effective_sample_size": effective_sample_size(np.exp(logits)),
            "num_rows": len(numbers),
            "num_validation_rows": len(self.trusted),
            "guard_steps": self.budget.guard_steps if candidates else 0,
            "seconds": time.perf_counter() - start,
            "rounds": [],
        }
        return ValidatedSelectionResult(logits, losses, report)

    def _folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        # The same row must not train and judge.
        rows = self.trusted.equal_rows()
        halves = np.array_split(np.random.default_rng(self.args.seed).permutation(np.unique(rows)), 2)
        first, second = (np.flatnonzero(np.isin(rows, half)) for half in halves)
        return [(first, second), (second, first)]

    def _try(self, rows: np.ndarray, others: np.ndarray, sample_losses: np.ndarray) -> dict[int, Trial]:
        """Scores by the number of updates on `rows`, up to the first that diverge.

        Args:
            sample_losses (`np.ndarray`): of the sample, under the model as it was given.

        Raises:
            ValueError: for updates that diverge at once.
        """
        self._adapted.load()
        trusted_losses = self.trusted.means(others)
        trials: dict[int, Trial] = {}
        batches = self._begin(rows)
        done = 0
        for steps in self.budget.steps:
            for _ in range(steps - done):
                self._update(self._trusted_terms(next(batches)))
            done = steps
            loss = self._held_out(others)
            if not math.isfinite(loss):
                break
            scores = validated_scores(sample_losses, self._means(self.sample, "a sample, adapted to one half")[1])
            trusted_scores, adapted_losses = None, self.trusted.means(others)
            if trusted_losses is not None and adapted_losses is not None:
                trusted_scores = validated_scores(trusted_losses, adapted_losses)
            trials[steps] = Trial(loss, scores, trusted_scores)
        if not trials:
            raise ValueError(
                f"selector='validated': the first {self.budget.steps[0]} updates on `validation_dataset` have diverged; lower "
                "`adaptation_learning_rate` (by default `learning_rate`)"
            )
        return trials

    def _adapt(self, rows: np.ndarray, num_updates: int) -> None:
        """θ: the model as it was given, after updates on these trusted rows alone."""
        self._bar.set_postfix_str("adapting to the trusted rows")
        batches = self._begin(rows)
        for _ in range(num_updates):
            self._update(self._trusted_terms(next(batches)))

    def _begin(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        rate = self.args.adaptation_learning_rate
        self._adapted.begin(self.args.learning_rate if rate is None else rate)
        return _batches(rows, self.args.seed)

    def _train(self, weights: np.ndarray, rows: np.ndarray, what: str) -> None:
        """The model as it was given, after a short training on the sample, drawn by weight, and these trusted rows."""
        self._bar.set_postfix_str(what)
        self._adapted.begin(self.args.learning_rate)
        of_trusted, of_pool = self.args.penalty_schedule(1).coefficients(0)
        pool, size, numbers = self.sample, self.budget.guard_batch, self.sample.numbers()
        batches, draws = _batches(rows, self.args.seed, size), pool.draws(numbers, weights, self.args.seed)

        def loss(batch: dict[str, Any]) -> torch.Tensor:
            return pool.loss(batch, numbers, weights)

        for _ in range(self.budget.guard_steps):
            places = [next(draws) for _ in range(min(size, len(pool)))]
            terms = _terms(pool, loss, places, self.args.per_device_train_batch_size, of_pool)
            self._update([*terms, *self._trusted_terms(next(batches), of_trusted)])

    def _trusted_terms(self, rows: np.ndarray, coefficient: float = 1.0) -> list[Callable[[], torch.Tensor]]:
        trusted = self.trusted
        return _terms(trusted, trusted.loss, rows.tolist(), trusted.batch_size, coefficient)

    def _update(self, terms: list[Callable[[], torch.Tensor]]) -> None:
        self._adapted.update(terms)
        self._bar.update()

    def _held_out(self, rows: np.ndarray) -> float:
        self.model.eval()
        return self.trusted.mean(rows)

    def _means(self, pool: PoolLosses, what: str) -> tuple[np.ndarray, np.ndarray]:
        self._bar.set_postfix_str(what)
        return pool.means(self._bar.refresh)

    def _choose(
        self,
        folds: list[tuple[np.ndarray, np.ndarray]],
        trials: list[Trial],
        highest: WeightConfidence | None,
    ) -> tuple[float, str, list[dict[str, Any]]]:
        """The fraction, why, and what was compared, from the best trial of each half."""
        fraction = self.args.target_effective_fraction
        if not self.args.selection_guard:
            return fraction, "`selection_guard` is off", []
        if highest is not None and highest.auc > 0.5 + _SURE * highest.chance_error:
            ranks = (
                f"trusted rows rank above {highest.auc:.0%} of the pool (equal ones: 50 ± {highest.chance_error:.0%})"
            )
            return fraction, f"{ranks} by scores of their other half, where these are best", []
        losses = {candidate: [] for candidate in (EQUAL_WEIGHTS, fraction)}
        for trial, (rows, others) in zip(trials, folds):
            for candidate in losses:
                weights = temper(trial.scores, candidate)[0]
                self._train(weights, rows, f"short training, n_eff {candidate:.0%}")
                losses[candidate].append(self._held_out(others))
        return choose_fraction(losses)


def check_trusted_rows(dataset: Dataset) -> None:
    """Raises:
    ValueError: for too few different rows to be cut in halves.
    """
    count = len(np.unique(first_of_equal(dataset)))
    if count < FEWEST_TRUSTED:
        raise ValueError(
            f"selector='validated' cuts `validation_dataset` in two halves, which needs {FEWEST_TRUSTED} usable rows that "
            f"differ, and it has {count}; add rows, or use another selector, such as 'rank'"
        )


def check_model_is_whole(model: nn.Module, accelerator: Accelerator) -> None:
    """Raises:
    ValueError: where a process holds a part of the model only before training.
    """
    remedy = "use ZeRO-2 or DDP, or another selector"
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise ValueError(
            "selector='validated' scores rows before training, and ZeRO-3 has split the model as it was loaded; pass a model "
            f"that is loaded before the arguments are made, {remedy}"
        )
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.cpu_ram_efficient_loading:
        raise ValueError(
            "selector='validated' scores rows before training, and FSDP has loaded the model on one process only; set "
            f"`fsdp_cpu_ram_efficient_loading: false`, {remedy}"
        )


def tempered_logits(scores: np.ndarray, fraction: float) -> tuple[np.ndarray, float]:
    """k f, at most 0, and k: the logarithm of the weights of equation (19), exact where these are 0 in floating point."""
    tempering = temper(scores, fraction)[1]
    return tempering * (scores - scores.max()), tempering


def _batches(rows: np.ndarray, seed: int, size: int = BATCH) -> Iterator[np.ndarray]:
    """Endless batches of these rows, in a fresh order each pass."""
    sampler = EndlessSampler(len(rows), seed)
    while True:
        yield rows[sampler.take(min(size, len(rows)))]


def _terms(
    losses: PoolLosses | TrustedLosses,
    loss: Callable[[dict[str, Any]], torch.Tensor],
    rows: list[int],
    size: int,
    coefficient: float,
) -> list[Callable[[], torch.Tensor]]:
    """The mean loss of a batch, times a coefficient, as the losses of its micro-batches, which are still to be computed. `loss`
    is a mean of `losses.num_terms` terms, tokens or rows, each of which counts the same in whichever micro-batch it is."""
    if not coefficient:
        return []
    batches = [losses.batch(rows[start : start + size]) for start in range(0, len(rows), size)]
    counts = [losses.num_terms(batch) for batch in batches]
    total = max(1, sum(counts))

    def term(batch: dict[str, Any], count: int) -> torch.Tensor:
        return coefficient * count / total * loss(batch)

    return [partial(term, batch, count) for batch, count in zip(batches, counts)]
