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
        self.store, self.device = store, heads.q_bias.device
        self.hidden_size, self.num_q_heads = config.hidden_size, config.num_q_heads
        self.words = torch.from_numpy(words)
        self._word_of_token = torch.full((config.vocab_size,), len(words))
        self._word_of_token[self.words] = torch.arange(len(words))
        self._others = self._other_logsumexp(heads)
        self.heads = self._few_words(heads)

    @classmethod
    def of(cls, heads: ValueHeads, store: TrajectoryStore) -> "ActionVocabulary | None":
        """The words that occur as actions; `None` where the whole vocabulary is small or occurs."""
        words = np.unique(store.action_tokens).astype(np.int64)
        if heads.config.vocab_size <= SMALL_VOCABULARY or len(words) == heads.config.vocab_size:
            return None
        return cls(heads, store, words)

    def reduce(self, batch: TrajectoryBatch, rows: np.ndarray) -> TrajectoryBatch:
        """The batch of `rows`, as `store.collate` gives it, for `heads`: other action numbers, longer states."""
        others = batch.states.new_zeros(len(batch.states), self.num_q_heads, dtype=torch.float32)
        others[batch.action_index] = self._others[torch.from_numpy(self.store.action_positions(rows))]
        return dataclasses.replace(
            batch,
            actions=self._word_of_token[batch.actions],
            states=torch.cat([batch.states.float(), others], dim=1),
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
    def _other_logsumexp(self, heads: ValueHeads) -> torch.Tensor:
        """log Σ exp Q₀(s, v) over the words left out, without a scalar bias, of every action token, (N, K)."""
        token_bias = heads.q_bias if heads.config.bias == "token" else None
        left_out = torch.from_numpy(np.setdiff1d(np.arange(heads.config.vocab_size), self.words.numpy()))
        blocks = left_out.to(self.device).split(_WORDS_PER_BLOCK)
        last_rows = np.flatnonzero(np.diff(np.cumsum(self.store.action_counts) // _TOKENS_PER_BATCH)) + 1
        pieces = []
        for rows in np.split(np.arange(len(self.store)), last_rows):
            batch = self.store.collate(rows).to(self.device)
            states = batch.states[batch.action_index]
            nothing_taken = torch.zeros_like(batch.actions)
            logsumexp = torch.full((self.num_q_heads, len(states)), -torch.inf, device=self.device)
            for words in blocks:
                bias = None if token_bias is None else token_bias[:, words]
                _, of_block = q_statistics(states, _matrix(heads, words), bias, nothing_taken)
                logsumexp = torch.logaddexp(logsumexp, of_block)
            pieces.append(logsumexp.T.cpu())
        return torch.cat(pieces)

    @torch.no_grad()
    def _few_words(self, heads: ValueHeads) -> ValueHeads:
        sizes = {"vocab_size": len(self.words) + 1, "hidden_size": self.hidden_size + self.num_q_heads, "rank": None}
        few = ValueHeads(dataclasses.replace(heads.config, **sizes)).to(self.device)
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


def _matrix(heads: ValueHeads, words: torch.Tensor) -> torch.Tensor:
    """The rows of W for `words`, (K, len(words), d)."""
    if heads.config.rank is None:
        return heads.q_weight[:, words]
    return heads.q_factor_out[:, words] @ heads.q_factor_in
