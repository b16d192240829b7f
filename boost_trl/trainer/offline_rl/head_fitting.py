"""Short fits of value heads on the cached states of a frozen backbone, in plain PyTorch."""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from boost_trl.data.trajectory_store import TrajectoryBatch, TrajectoryStore
from boost_trl.models.policy_with_value_heads import PolicyWithValueHeads
from boost_trl.models.value_heads import ValueHeads
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.offline_rl.action_vocabulary import ActionVocabulary
from boost_trl.trainer.offline_rl.optimizer_batch import row_scale
from boost_trl.trainer.offline_rl.parameter_average import ParameterAverage
from boost_trl.trainer.offline_rl.scoring_budget import LONGEST_FIT
from boost_trl.trainer.offline_rl.token_losses import forward_token_losses, sum_by_unit


# The mean over this last share of the updates is the result of a fit.
AVERAGED_SHARE = 0.25
# How far the first Adam step may move a Q value; what a learning rate of 1e-2 does on a model of width 64.
FIRST_STEP = 0.5
_LOGITS_PER_BATCH = 2**22


class HeadFitter:
    """Fits value heads with the loss of training: `steps` updates of Adam, a learning rate that falls linearly to zero,
    parameters averaged over the last quarter.

    Of a large vocabulary only the tokens that occur as actions have values of their own (see [`ActionVocabulary`]).

    Args:
        initial (`ValueHeads`): where every fit starts; stays as it is.
        store (`TrajectoryStore`): trajectories with cached `states`.
        args (`BilevelOfflineRLConfig`): the loss, `score_batch_size` and `score_learning_rate`.
        steps (`int`, *optional*): updates of a fit; `args.score_steps`, or 400, unless given.
        prior (`tuple` of `torch.Tensor`, *optional*): weight (V, d) and bias (V,), or `None`, whose softmax is the π_ref that
            the policy multiplies; by default there is none.
    """

    def __init__(
        self,
        initial: ValueHeads,
        store: TrajectoryStore,
        args: BilevelOfflineRLConfig,
        steps: int | None = None,
        prior: tuple[torch.Tensor, torch.Tensor | None] | None = None,
    ):
        self.vocabulary = ActionVocabulary.of(initial, store)
        self.initial = initial if self.vocabulary is None else self.vocabulary.heads
        self.store = store
        self.args = args
        self.steps = steps or args.score_steps or LONGEST_FIT
        self.device = initial.q_bias.device
        learning_rate = args.score_learning_rate
        if learning_rate is None:
            assert store.states is not None, "no states are cached"
            # Adam moves every entry of W by the learning rate, so Q(s, a) by at most that times ‖h‖₁.
            sample = store.states[:: max(1, len(store.states) // 4096)].float()
            learning_rate = FIRST_STEP / sample.abs().sum(dim=1).mean().item()
        self.learning_rate = learning_rate
        self.prior = prior
        self._policy_others: dict[tuple[float, bytes], torch.Tensor] = {}
        self.num_fits = 0

    @property
    def num_words(self) -> int:
        """Number of words for which the fitted heads have values."""
        return self.initial.config.vocab_size

    def fit(
        self,
        rows_of: Callable[[int], np.ndarray],
        steps: int | None = None,
        within_rows: np.ndarray | None = None,
    ) -> ValueHeads:
        """Heads fitted to the batches `rows_of(step)`, every row of a batch counting equally, and so do the units of a row
        unless `within_rows` says for all units of the store what they count for; `steps` updates instead of the usual number
        if given."""
        args = self.args
        steps = self.steps if steps is None else steps
        heads = copy.deepcopy(self.initial).requires_grad_(True)
        if self.vocabulary is not None:
            self.vocabulary.hold(heads)
        policy = PolicyWithValueHeads(nn.Identity(), heads)
        parameters = dict(heads.named_parameters())
        optimizer = torch.optim.Adam(parameters.values(), lr=self.learning_rate, fused=True)
        average = ParameterAverage()
        average.allocate(parameters)
        previous = None
        for step in range(steps):
            rows = rows_of(step)
            if rows is not previous:
                batch, token_scale = self._weighed_batch(rows, within_rows)
                previous = rows
            optimizer.param_groups[0]["lr"] = self.learning_rate * (1 - step / steps)
            losses = forward_token_losses(
                policy, batch, ("primary",), self.initial.config, args, token_weights=token_scale
            )["primary"]["loss"]
            (losses * token_scale).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if args.algorithm == "ilql" and args.target_update_rate is not None:
                heads.update_targets(args.target_update_rate)
            if step >= (1 - AVERAGED_SHARE) * steps:
                average.add(parameters)
        average.apply_to(parameters)
        self.num_fits += 1
        return heads.requires_grad_(False)

    @torch.no_grad()
    def policy_losses(self, heads: ValueHeads, rows: np.ndarray) -> np.ndarray:
        """The policy part of the loss of every unit of `rows` (the rows, or their turns): mean over its action tokens (and over
        the Q heads) of logsumexp Q(s,·) − Q(s,a), in nats, without `cql_weight`; float64, (U,)."""
        pieces = []
        for batch in self._batches(rows):
            q_taken, q_logsumexp = heads.q_statistics(batch.cached_states[batch.action_index], batch.actions)
            losses = (q_logsumexp - q_taken).mean(dim=0)
            pieces.append((sum_by_unit(losses, batch) / batch.unit_lengths).cpu().double().numpy())
        return np.concatenate(pieces)

    @torch.no_grad()
    def accuracy(self, heads: ValueHeads, rows: np.ndarray) -> float:
        """The share of the action tokens of `rows` that equal argmax_a Q(s, a), Q the minimum of the heads; all words that
        never occur as actions count as one."""
        correct = total = 0
        for batch in self._batches(rows):
            best = heads.q_logits(batch.cached_states[batch.action_index]).argmax(dim=-1)
            correct += int((best == batch.actions).sum())
            total += len(best)
        return correct / total

    @torch.no_grad()
    def cross_entropies(self, heads: ValueHeads, rows: np.ndarray, betas: Sequence[float]) -> np.ndarray:
        """The mean over the action tokens of `rows` of −ln π_β(a | s), for every β: π_β ∝ exp(βQ), times π_ref if there is a
        prior, Q the minimum of the heads; over the whole vocabulary, float64, (len(betas),)."""
        totals, count = np.zeros(len(betas)), 0
        for piece in self._pieces(rows):
            for number, beta in enumerate(betas):
                batch = self._batch_at(piece, beta)
                states = batch.cached_states[batch.action_index]
                logits = beta * heads.q_logits(states) + self._prior_logits(states)
                totals[number] += nn.functional.cross_entropy(logits, batch.actions, reduction="sum").item()
            count += len(batch.actions)
        return totals / count

    def _batch_at(self, rows: np.ndarray, beta: float) -> TrajectoryBatch:
        """The batch of `rows` in which β Q of the last word stands for all words that never occur as actions, and for their
        prior."""
        if self.vocabulary is None:
            return self._collate(rows)
        key = (beta, rows.tobytes())
        if key not in self._policy_others:
            # The same for all heads that are judged on these rows.
            self._policy_others[key] = self.vocabulary.other_logsumexp(rows, beta, self.prior) / beta
        batch = self.store.collate(rows)
        return self.vocabulary.reduce(batch, self._policy_others[key]).to(self.device)

    def _prior_logits(self, states: torch.Tensor) -> torch.Tensor | float:
        if self.prior is None:
            return 0.0
        weight, bias = self.prior
        if self.vocabulary is None:
            return nn.functional.linear(states.float(), weight, bias)
        words = self.vocabulary.words.to(weight.device)
        hidden = states[:, : weight.shape[1]].float()
        logits = nn.functional.linear(hidden, weight[words], None if bias is None else bias[words])
        return nn.functional.pad(logits, (0, 1))

    def _weighed_batch(self, rows: np.ndarray, within_rows: np.ndarray | None) -> tuple[TrajectoryBatch, torch.Tensor]:
        """The distinct rows of a batch, and what each of their tokens counts for in the batch's mean loss, (N,)."""
        units = self.store.units
        scale = row_scale(units, rows, self.args.loss_normalization) / len(rows)
        # A small pool is drawn many times over; its states need not be read as often.
        rows, place = np.unique(rows, return_inverse=True)
        batch = self._collate(rows)
        scale = np.repeat(np.bincount(place, weights=scale), units.counts[rows])
        if within_rows is not None:
            scale *= within_rows[units.of_rows(rows)]
        return batch, torch.from_numpy(scale).float().to(self.device)[batch.unit]

    def _collate(self, rows: np.ndarray) -> TrajectoryBatch:
        batch = self.store.collate(rows)
        if self.vocabulary is not None:
            batch = self.vocabulary.reduce(batch, self.vocabulary.initial_others(rows))
        return batch.to(self.device)

    def _batches(self, rows: np.ndarray) -> Iterator[TrajectoryBatch]:
        return map(self._collate, self._pieces(rows))

    def _pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """Consecutive `rows`, as many at a time as their logits leave room for."""
        tokens = max(1, _LOGITS_PER_BATCH // self.initial.config.vocab_size)
        borders = np.cumsum(self.store.action_counts[rows]) // tokens
        return np.split(rows, np.flatnonzero(np.diff(borders)) + 1)
