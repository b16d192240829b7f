"""Value heads of few words: the tokens that occur as actions, and one word for all others together."""

import dataclasses

import numpy as np
import torch

from boost_trl.data.trajectory_store import TrajectoryBatch, TrajectoryStore
from boost_trl.losses import q_statistics
from boost_trl.models.value_heads import ValueHeads


# Up to this size a whole vocabulary costs little.
SMALL_VOCABULARY = 4096
_WORDS_PER_BLOCK, _TOKENS_PER_BATCH = 8192, 4096


class ActionVocabulary:
    r"""Reduced vocabulary for short fits of value heads, which then cost the same on a vocabulary of 50 thousand words
    as on one of 500.

    A data set of dialogues uses few of its vocabulary's tokens as actions, U of V. The words that never occur count in a
    loss through their log-sum-exp alone. They keep their places relative to each other here, as the heads start
    with, and move together: \\( Q(s, v) = Q_0(s, v) + \delta \cdot h(s) + b \\) with one δ for all of them. Their
    log-sum-exp under \\( Q_0 \\), computed once for every state, is then all that is needed of them. At the start losses
    and gradients of the U words are those of the whole vocabulary, to the last digits.

    In code that is an ordinary [`ValueHeads`] over U + 1 words whose states have K more entries, the log-sum-exp of head k,
    which the last word alone reads, with weight one.

    Args:
        heads (`ValueHeads`): over the whole vocabulary, K Q heads; low-rank ones become full ones of few words.
        store (`TrajectoryStore`): trajectories with cached `states`.
        words (`np.ndarray` of shape `(U,)`): token ids, ascending; among them every action of `store`, and fewer than V.
    """

    def __init__(self, heads: ValueHeads, store: TrajectoryStore, words: np.ndarray):
        config = heads.config
        self.store, self.device, self._whole = store, heads.q_bias.device, heads
        self.hidden_size, self.num_q_heads = config.hidden_size, config.num_q_heads
        self.words = torch.from_numpy(words)
        self._word_of_token = torch.full((config.vocab_size,), len(words))
        self._word_of_token[self.words] = torch.arange(len(words))
        self._others = self.other_logsumexp(np.arange(len(store)))
        self.heads = self._few_words(heads)

    @classmethod
    def of(cls, heads: ValueHeads, store: TrajectoryStore) -> "ActionVocabulary | None":
        """The words that occur as actions; `None` where the whole vocabulary is small or occurs."""
        words = np.unique(store.action_tokens).astype(np.int64)
        if heads.config.vocab_size <= SMALL_VOCABULARY or len(words) == heads.config.vocab_size:
            return None
        return cls(heads, store, words)

    def initial_others(self, rows: np.ndarray) -> torch.Tensor:
        """`other_logsumexp(rows)`, computed before."""
        return self._others[torch.from_numpy(self.store.action_positions(rows))]

    def reduce(self, batch: TrajectoryBatch, of_others: torch.Tensor) -> TrajectoryBatch:
        """The batch of some rows, as `store.collate` gives it, for `heads`: other action numbers, longer states.

        Args:
            batch (`TrajectoryBatch`): on the CPU.
            of_others (`torch.Tensor` of shape `(N, K)`): what stands for the other words at each action token.
        """
        states = batch.cached_states.float()
        others = states.new_zeros(len(states), self.num_q_heads)
        others[batch.action_index] = of_others
        return dataclasses.replace(
            batch,
            actions=self._word_of_token[batch.actions],
            states=torch.cat([states, others], dim=1),
        )

    def hold(self, heads: ValueHeads) -> ValueHeads:
        """Keep what reads the additional entries of the states out of training: their gradient is zero from now on."""
        for name in ("q_weight", "v_weight"):
            if (parameter := getattr(heads, name, None)) is not None:
                parameter.register_hook(
                    lambda gradient: torch.nn.functional.pad(gradient[..., : self.hidden_size], (0, self.num_q_heads))
                )
        return heads

    @torch.no_grad()
    def other_logsumexp(
        self, rows: np.ndarray, beta: float = 1.0, prior: tuple[torch.Tensor, torch.Tensor | None] | None = None
    ) -> torch.Tensor:
        """log Σ exp(β Q₀(s, v) + z(s, v)) over the words left out, without a scalar bias, of the action tokens of `rows`,
        (N, K); z the logits of `prior`, as in `HeadFitter`, or 0."""
        heads = self._whole
        left_out = torch.from_numpy(np.setdiff1d(np.arange(heads.config.vocab_size), self.words.numpy()))
        blocks = left_out.to(self.device).split(_WORDS_PER_BLOCK)
        last_rows = np.flatnonzero(np.diff(np.cumsum(self.store.action_counts[rows]) // _TOKENS_PER_BATCH)) + 1
        pieces = []
        for piece in np.split(rows, last_rows):
            batch = self.store.collate(piece).to(self.device)
            states = batch.cached_states[batch.action_index]
            nothing_taken = torch.zeros_like(batch.actions)
            logsumexp = torch.full((self.num_q_heads, len(states)), -torch.inf, device=self.device)
            for words in blocks:
                weight, bias = _policy_head(heads, words, beta, prior)
                _, of_block = q_statistics(states, weight, bias, nothing_taken)
                logsumexp = torch.logaddexp(logsumexp, of_block)
            pieces.append(logsumexp.T.cpu())
        return torch.cat(pieces)

    @torch.no_grad()
    def _few_words(self, heads: ValueHeads) -> ValueHeads:
        config = dataclasses.replace(
            heads.config, vocab_size=len(self.words) + 1, hidden_size=self.hidden_size + self.num_q_heads, rank=None
        )
        few = ValueHeads(config).to(self.device)
        words = self.words.to(self.device)
        few.q_weight[:, :-1, : self.hidden_size] = _matrix(heads, words)
        for head in range(self.num_q_heads):
            few.q_weight[head, -1, self.hidden_size + head] = 1.0
        if heads.config.bias == "token":
            few.q_bias[:, :-1] = heads.q_bias[:, words]
        else:
            few.q_bias.copy_(heads.q_bias)
        if heads.config.algorithm == "ilql":
            few.v_weight[: self.hidden_size] = heads.v_weight
            few.v_bias.copy_(heads.v_bias)
        few.update_targets(1.0)
        return few


def _policy_head(
    heads: ValueHeads, words: torch.Tensor, beta: float, prior
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight (K, len(words), d) and bias (K, len(words)) of the policy's logits; a scalar bias counts for none."""
    weight = beta * _matrix(heads, words)
    bias = beta * heads.q_bias[:, words] if heads.config.bias == "token" else None
    if prior is not None:
        weight = weight + prior[0][words]
        if prior[1] is not None:
            bias = prior[1][words] + (weight.new_zeros(len(weight), len(words)) if bias is None else bias)
    return weight, bias


def _matrix(heads: ValueHeads, words: torch.Tensor) -> torch.Tensor:
    """The rows of W for `words`, (K, len(words), d)."""
    if heads.config.rank is None:
        return heads.q_weight[:, words]
    return heads.q_factor_out[:, words] @ heads.q_factor_in
