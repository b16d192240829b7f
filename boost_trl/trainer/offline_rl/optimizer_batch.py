r"""The plan of one policy update: which rows count, and for how much, before the first of them is looked at.

A policy update descends \\( \sum_i c_i \, n_i \ell_i \\), where \\( n_i \ell_i \\) is the sum of row i's token losses. The
coefficient \\( c_i \\) holds the row's weight, α and what turns the sum into \\( \ell_i \\). Weights are normalised over the
whole batch, that is over the micro-batches of all processes, so the plan is made of all of them, the same on every process.
"""

from dataclasses import dataclass

import numpy as np

from boost_trl.trainer.offline_rl.schedule import Phase


def trajectory_scale(action_counts: np.ndarray, normalization: str) -> np.ndarray:
    """Factors from each row's sum of token losses to its loss ℓ, equation (8), under `loss_normalization`, given the
    action tokens of all rows of the batch, (B,)."""
    if normalization == "trajectory_mean":
        return 1 / action_counts
    if normalization == "token_mean":
        return np.full(len(action_counts), len(action_counts) / action_counts.sum())
    return np.ones(len(action_counts))


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward and backward pass of one process.

    Args:
        rows (`np.ndarray` of shape `(B,)`): of the store of training and validation rows.
        coefficients (`np.ndarray` of shape `(B,)`): c.
        is_validation (`np.ndarray` of shape `(B,)`): which are validation rows.
        training_share, validation_share (`float`): what it counts for in the batch's mean loss over rows of either kind.
    """

    rows: np.ndarray
    coefficients: np.ndarray
    is_validation: np.ndarray
    training_share: float
    validation_share: float


@dataclass(frozen=True)
class OptimizerBatch:
    """All rows of one policy update.

    Args:
        phase (`Phase`): what the update trains.
        alpha (`float`): what the training rows' weights are multiplied by.
        micro_batches (`list[MicroBatch]`): of all processes, process after process.
    """

    phase: Phase
    alpha: float
    micro_batches: list[MicroBatch]

    @property
    def rows(self) -> np.ndarray:
        """Of all micro-batches, (B,)."""
        return np.concatenate([micro_batch.rows for micro_batch in self.micro_batches])

    @property
    def role(self) -> str:
        """Whose value heads the update trains, beside the backbone."""
        return "auxiliary" if self.phase is Phase.AUXILIARY else "primary"


def bilevel_batch(
    training: list[np.ndarray],
    weights: np.ndarray,
    validation: np.ndarray,
    action_counts: np.ndarray,
    *,
    phase: Phase,
    alpha: float = 1.0,
    normalization: str,
) -> OptimizerBatch:
    r"""The batch of phases 1 and 3 and of plain training: \\( \frac1M \sum_j \ell_j + \alpha \sum_i \tilde w_i \ell_i \\).

    Args:
        training (`list[np.ndarray]`): the training rows of every micro-batch, N in all.
        weights (`np.ndarray` of shape `(N,)`): w̃, which sum to one.
        validation (`np.ndarray` of shape `(M,)`): validation rows, spread evenly over the micro-batches; none outside of
            phase 3.
        action_counts (`np.ndarray`): action tokens of every row of the store.
        phase (`Phase`), alpha (`float`): of the update.
        normalization (`str`): `loss_normalization`.
    """
    rows = np.concatenate(training)
    borders = np.cumsum([len(piece) for piece in training])[:-1]
    of_training = np.split(alpha * weights * trajectory_scale(action_counts[rows], normalization), borders)
    of_validation = np.empty(0)
    if len(validation):
        of_validation = trajectory_scale(action_counts[validation], normalization) / len(validation)
    share = 1 / len(training)
    places = np.array_split(np.arange(len(validation)), len(training))
    return OptimizerBatch(
        phase=phase,
        alpha=alpha,
        micro_batches=[
            MicroBatch(
                rows=np.concatenate([piece, validation[place]]),
                coefficients=np.concatenate([coefficients, of_validation[place]]),
                is_validation=np.repeat([False, True], [len(piece), len(place)]),
                training_share=share,
                validation_share=share if len(validation) else 0.0,
            )
            for piece, coefficients, place in zip(training, of_training, places)
        ],
    )


def mixed_batch(
    rows: list[np.ndarray], num_training: int, action_counts: np.ndarray, *, normalization: str
) -> OptimizerBatch:
    r"""The batch of validated reweighting, \\( \frac1B \sum_i \ell_i \\): rows drawn by weight and validation rows count
    equally.

    Args:
        rows (`list[np.ndarray]`): of every micro-batch, B in all; those from `num_training` on are validation rows.
        num_training (`int`): training rows of the store.
        action_counts (`np.ndarray`): action tokens of every row of the store.
        normalization (`str`): `loss_normalization`.
    """
    everything = np.concatenate(rows)
    coefficients = trajectory_scale(action_counts[everything], normalization) / len(everything)
    micro_batches = []
    for piece, of_piece in zip(rows, np.split(coefficients, np.cumsum([len(piece) for piece in rows])[:-1])):
        is_validation = piece >= num_training
        micro_batches.append(
            MicroBatch(
                rows=piece,
                coefficients=of_piece,
                is_validation=is_validation,
                training_share=(~is_validation).sum() / len(everything),
                validation_share=is_validation.sum() / len(everything),
            )
        )
    return OptimizerBatch(Phase.VANILLA, 1.0, micro_batches)
