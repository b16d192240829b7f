"""Tokenised trajectories in flat arrays, and ragged batches of them."""

import copy
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from boost_trl.data.ragged import ragged_ranges
from boost_trl.data.tokenization import TokenizedTrajectory
from boost_trl.data.weight_units import WeightUnits


@dataclass
class TrajectoryBatch:
    """A ragged batch of B trajectories with N action tokens and M >= N states, row after row.

    A row's states are those of its action tokens, followed by the bootstrap state if the episode was cut. All tensors
    are on the CPU until `to`.

    Args:
        input_ids (`torch.LongTensor` of shape `(B, S)`): right-padded.
        attention_mask (`torch.LongTensor` of shape `(B, S)`).
        state_index (`torch.LongTensor` of shape `(M,)`): where the states lie in the flattened `(B·S)` hidden states.
        action_index (`torch.LongTensor` of shape `(N,)`): the state of each action token, in `0..M-1`.
        actions (`torch.LongTensor` of shape `(N,)`): token ids.
        has_next (`torch.BoolTensor` of shape `(N,)`): false on the last action of a terminated episode; otherwise the
            next state is `action_index + 1`.
        rewards, returns, discounts (`torch.FloatTensor` of shape `(N,)`).
        row (`torch.LongTensor` of shape `(N,)`): which row, in `0..B-1`, a token belongs to.
        unit (`torch.LongTensor` of shape `(N,)`): which of the batch's units (see [`WeightUnits`]), row after row.
        lengths (`torch.LongTensor` of shape `(B,)`): action tokens per row.
        unit_lengths (`torch.LongTensor` of shape `(U,)`): action tokens per unit.
        states (`torch.Tensor` of shape `(M, d)`, *optional*): cached hidden states; `input_ids` is then empty.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    state_index: torch.Tensor
    action_index: torch.Tensor
    actions: torch.Tensor
    has_next: torch.Tensor
    rewards: torch.Tensor
    returns: torch.Tensor
    discounts: torch.Tensor
    row: torch.Tensor
    unit: torch.Tensor
    lengths: torch.Tensor
    unit_lengths: torch.Tensor
    states: torch.Tensor | None = None

    @property
    def cached_states(self) -> torch.Tensor:
        """`states`, which the batch must have, (M, d)."""
        assert self.states is not None, "no states are cached"
        return self.states

    def to(self, device) -> "TrajectoryBatch":
        return TrajectoryBatch(
            **{
                name: None if value is None else value.to(device, non_blocking=True)
                for name, value in self.__dict__.items()
            }
        )


class TrajectoryStore:
    """All trajectories of a dataset in flat arrays, so that a batch is a few vectorised gathers.

    Args:
        trajectories (`Iterable[TokenizedTrajectory | None]`): from `tokenize_trajectories`; `None` rows are left out.
        pad_token_id (`int`): fills `input_ids`.
        weight_level (`str`, *optional*, defaults to `"trajectory"`): what `units`, the [`WeightUnits`], are.
    """

    def __init__(
        self,
        trajectories: Iterable[TokenizedTrajectory | None],
        pad_token_id: int,
        weight_level: str = "trajectory",
    ):
        everything = list(trajectories)
        rows = [item for item in everything if item is not None]
        self.pad_token_id = pad_token_id
        self.weight_level = weight_level
        self.units = WeightUnits.of(rows, weight_level)
        self.original_row = np.array([i for i, item in enumerate(everything) if item is not None], dtype=np.int64)

        self.input_lengths = np.array([len(item.input_ids) for item in rows])
        self.action_counts = np.array([len(item.action_positions) for item in rows])
        self.is_cut = np.array([item.bootstrap_position >= 0 for item in rows])
        self.state_counts = self.action_counts + self.is_cut
        self._input_start = np.cumsum(self.input_lengths) - self.input_lengths
        self._action_start = np.cumsum(self.action_counts) - self.action_counts
        self._state_start = np.cumsum(self.state_counts) - self.state_counts

        self._input_ids = np.concatenate([item.input_ids for item in rows])
        self._rewards = np.concatenate([item.rewards for item in rows]).astype(np.float32)
        self._returns = np.concatenate([item.returns for item in rows]).astype(np.float32)
        self._discounts = np.concatenate([item.discounts for item in rows]).astype(np.float32)
        self._actions = np.concatenate([item.input_ids[item.action_positions] for item in rows])
        self._state_positions = np.concatenate(
            [
                np.append(item.action_positions - 1, [item.bootstrap_position] if item.bootstrap_position >= 0 else [])
                for item in rows
            ]
        ).astype(np.int64)
        self.states: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.original_row)

    def first(self, count: int) -> "TrajectoryStore":
        """A store of rows 0..count-1, in this one's memory."""
        if not 0 <= count <= len(self):
            raise ValueError(f"`count` is {count}; the store has {len(self)} rows")
        rows = copy.copy(self)
        rows.units = self.units.first(count)
        for name in ("original_row", "input_lengths", "action_counts", "is_cut", "state_counts"):
            setattr(rows, name, getattr(self, name)[:count])
        for name in ("_input_start", "_action_start", "_state_start"):
            setattr(rows, name, getattr(self, name)[:count])
        rows._input_ids = self._input_ids[: rows.input_lengths.sum()]
        for name in ("_rewards", "_returns", "_discounts", "_actions"):
            setattr(rows, name, getattr(self, name)[: rows.action_counts.sum()])
        rows._state_positions = self._state_positions[: rows.num_states]
        rows.states = None if self.states is None else self.states[: rows.num_states]
        return rows

    @property
    def num_states(self) -> int:
        return int(self.state_counts.sum())

    @property
    def action_returns(self) -> np.ndarray:
        """Reward-to-go of every action token, row after row."""
        return self._returns

    @property
    def action_tokens(self) -> np.ndarray:
        """Token id of every action token, row after row."""
        return self._actions

    def action_positions(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Positions of the action tokens of rows `indices` among those of all rows, row after row."""
        indices = np.asarray(indices, dtype=np.int64)
        return ragged_ranges(self._action_start[indices], self.action_counts[indices])

    def row_returns(self) -> np.ndarray:
        """The return of every episode, (len(self),): its first action's reward-to-go."""
        return self._returns[self._action_start]

    def first_of_equal(self) -> np.ndarray:
        """For each row the first that has the same tokens, (len(self),)."""
        ends = self._input_start + self.input_lengths
        first: dict[bytes, int] = {}
        rows = (self._input_ids[start:end].tobytes() for start, end in zip(self._input_start, ends))
        return np.array([first.setdefault(tokens, row) for row, tokens in enumerate(rows)])

    def fingerprint(self, with_rewards: bool = False) -> str:
        """Changes with any token id, position or row border, and on request with any reward, return or discount."""
        digest = hashlib.sha256()
        arrays = [self._input_ids, self.input_lengths, self._state_positions, self.state_counts]
        if with_rewards:
            arrays += [self._rewards, self._returns, self._discounts]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def state_slice(self, index: int) -> slice:
        """Positions of the states of row `index` among all states."""
        start = int(self._state_start[index])
        return slice(start, start + int(self.state_counts[index]))

    def collate(self, indices: Sequence[int] | np.ndarray, *, tokens: bool | None = None) -> TrajectoryBatch:
        """The batch of rows `indices`, in that order.

        Args:
            indices (`Sequence[int]` or `np.ndarray`): rows of this store.
            tokens (`bool`, *optional*): whether `input_ids` is filled; by default only when no states are cached.
        """
        indices = np.asarray(indices, dtype=np.int64)
        batch_size = len(indices)
        counts, state_counts, lengths = (
            self.action_counts[indices],
            self.state_counts[indices],
            self.input_lengths[indices],
        )
        action_rows = self.action_positions(indices)
        state_rows = ragged_ranges(self._state_start[indices], state_counts)
        first_state = np.cumsum(state_counts) - state_counts
        row = np.repeat(np.arange(batch_size), counts)
        unit_lengths = self.units.lengths[self.units.of_rows(indices)]
        has_next = np.ones(len(action_rows), dtype=bool)
        has_next[np.cumsum(counts) - 1] = self.is_cut[indices]

        if tokens is None:
            tokens = self.states is None
        width = int(lengths.max()) if tokens else 0
        input_ids = np.full((batch_size, width), self.pad_token_id, dtype=np.int64)
        mask = np.arange(width) < lengths[:, None]
        if tokens:
            input_ids[mask] = self._input_ids[ragged_ranges(self._input_start[indices], lengths)]
        state_index = np.repeat(np.arange(batch_size) * width, state_counts) + self._state_positions[state_rows]
        return TrajectoryBatch(
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
            state_index=torch.from_numpy(state_index),
            action_index=torch.from_numpy(ragged_ranges(first_state, counts)),
            actions=torch.from_numpy(self._actions[action_rows].astype(np.int64)),
            has_next=torch.from_numpy(has_next),
            rewards=torch.from_numpy(self._rewards[action_rows]),
            returns=torch.from_numpy(self._returns[action_rows]),
            discounts=torch.from_numpy(self._discounts[action_rows]),
            row=torch.from_numpy(row),
            unit=torch.from_numpy(np.repeat(np.arange(len(unit_lengths)), unit_lengths)),
            lengths=torch.from_numpy(counts.astype(np.int64)),
            unit_lengths=torch.from_numpy(unit_lengths.astype(np.int64)),
            states=None if self.states is None or tokens else self.states[torch.from_numpy(state_rows)],
        )
