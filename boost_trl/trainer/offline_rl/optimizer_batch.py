r"""The plan of one policy update: which rows count, and for how much, before the first of them is looked at.

A policy update descends \\( \sum_u c_u \, T_u \ell_u \\), where \\( T_u \ell_u \\) is the sum of unit u's token losses, a
unit being a row or one of its turns (see `boost_trl.data.weight_units`). The coefficient \\( c_u \\) holds the unit's weight, α and what
turns the sum into \\( \ell_u \\). Weights are normalised over the whole batch, that is over the micro-batches of all
processes, so the plan is made of all of them, the same on every process.
"""

from dataclasses import dataclass

import numpy as np

from boost_trl.data.weight_units import WeightUnits
from boost_trl.trainer.offline_rl.schedule import Phase


def row_scale(units: WeightUnits, rows: np.ndarray, normalization: str) -> np.ndarray:
    """Factors from each row's sum of token losses to its loss ℓ, equation (8), under `loss_normalization`, of all rows of the
    batch, (B,)."""
    lengths = units.row_lengths[rows]
    if normalization == "trajectory_mean":
        return 1 / lengths
    if normalization == "token_mean":
        return np.full(len(lengths), len(lengths) / lengths.sum())
    return np.ones(len(lengths))


def unit_scale(units: WeightUnits, rows: np.ndarray, normalization: str) -> np.ndarray:
    """Factors from each unit's sum of token losses to its loss ℓ, equation (36), whose mean over a row by shares is the row's
    ℓ; of the units of all rows of the batch, (U,)."""
    return np.repeat(row_scale(units, rows, normalization), units.counts[rows]) / units.shares[units.of_rows(rows)]


def _cut(values: np.ndarray, pieces: list[np.ndarray], units: WeightUnits) -> list[np.ndarray]:
    """Values of the units of all `pieces`, rows each, piece by piece."""
    return np.split(values, np.cumsum([units.counts[piece].sum() for piece in pieces])[:-1])


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward and backward pass of one process.

    Args:
        rows (`np.ndarray` of shape `(B,)`): of the store of training and validation rows.
        coefficients (`np.ndarray` of shape `(U,)`): c, of the units of these rows.
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
    units: WeightUnits,
    *,
    phase: Phase,
    alpha: float = 1.0,
    normalization: str,
) -> OptimizerBatch:
    r"""The batch of phases 1 and 3 and of plain training: \\( \frac1M \sum_j \ell_j + \alpha \sum_u \tilde w_u \ell_u \\).

    Args:
        training (`list[np.ndarray]`): the training rows of every micro-batch, N in all.
        weights (`np.ndarray` of shape `(U,)`): w̃ of the units of these rows, which sum to one.
        validation (`np.ndarray` of shape `(M,)`): validation rows, spread evenly over the micro-batches; none outside of
            phase 3.
        units (`WeightUnits`): of all rows of the store.
        phase (`Phase`), alpha (`float`): of the update.
        normalization (`str`): `loss_normalization`.
    """
    rows = np.concatenate(training)
    of_training = alpha * weights * unit_scale(units, rows, normalization)
    drawn = np.array_split(validation, len(training))
    of_validation = np.empty(0)
    if len(validation):
        shares = units.shares[units.of_rows(validation)]
        of_validation = shares * unit_scale(units, validation, normalization) / len(validation)
    share = 1 / len(training)
    return OptimizerBatch(
        phase=phase,
        alpha=alpha,
        micro_batches=[
            MicroBatch(
                rows=np.concatenate([piece, upper]),
                coefficients=np.concatenate([coefficients, upper_coefficients]),
                is_validation=np.repeat([False, True], [len(piece), len(upper)]),
                training_share=share,
                validation_share=share if len(validation) else 0.0,
            )
            for piece, coefficients, upper, upper_coefficients in zip(
                training, _cut(of_training, training, units), drawn, _cut(of_validation, drawn, units)
            )
        ],
    )


def mixed_batch(
    rows: list[np.ndarray],
    num_training: int,
    units: WeightUnits,
    *,
    normalization: str,
    within_rows: np.ndarray | None = None,
) -> OptimizerBatch:
    r"""The batch of validated reweighting, \\( \frac1B \sum_i \ell_i \\): rows drawn by weight and validation rows count
    equally, and the units of a row by their part of its weight, equation (38).

    Args:
        rows (`list[np.ndarray]`): of every micro-batch, B in all; those from `num_training` on are validation rows.
        num_training (`int`): training rows of the store.
        units (`WeightUnits`): of all rows of the store.
        normalization (`str`): `loss_normalization`.
        within_rows (`np.ndarray` of shape `(U,)`, *optional*): of all units of the training rows, see
            [`WeightUnits.within_rows`]; by default they count alike.
    """
    everything = np.concatenate(rows)
    coefficients = row_scale(units, everything, normalization) / len(everything)
    coefficients = np.repeat(coefficients, units.counts[everything])
    if within_rows is not None:
        factors = np.ones(len(units))
        factors[: len(within_rows)] = within_rows
        coefficients *= factors[units.of_rows(everything)]
    micro_batches = []
    for piece, of_piece in zip(rows, _cut(coefficients, rows, units)):
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
