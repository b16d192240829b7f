import numpy as np
import pytest

from boost_trl.data.weight_units import WeightUnits
from boost_trl.trainer.offline_rl.optimizer_batch import bilevel_batch, mixed_batch
from boost_trl.trainer.offline_rl.schedule import Phase


# Action tokens of training rows 0..3 and validation rows 4..6.
UNITS = WeightUnits.whole_rows(np.array([2, 4, 8, 1, 5, 10, 2]))


def test_phase_3_by_hand():
    batch = bilevel_batch(
        [np.array([2, 0]), np.array([3])],
        np.array([0.5, 0.25, 0.25]),
        np.array([5, 4, 6]),
        UNITS,
        phase=Phase.PRIMARY,
        alpha=0.4,
        normalization="trajectory_mean",
    )
    first, second = batch.micro_batches
    assert first.rows.tolist() == [2, 0, 5, 4] and second.rows.tolist() == [3, 6]
    # α w̃ over the row's own tokens; 1/M over them for validation rows.
    assert first.coefficients == pytest.approx([0.4 * 0.5 / 8, 0.4 * 0.25 / 2, 1 / 3 / 10, 1 / 3 / 5])
    assert second.coefficients == pytest.approx([0.4 * 0.25 / 1, 1 / 3 / 2])
    assert first.is_validation.tolist() == [False, False, True, True]
    assert (first.training_share, first.validation_share) == (0.5, 0.5)
    assert batch.role == "primary" and batch.rows.tolist() == [2, 0, 5, 4, 3, 6]


def test_phase_1_has_no_validation_rows_and_no_alpha():
    batch = bilevel_batch(
        [np.array([1, 2])],
        np.array([0.9, 0.1]),
        np.empty(0, dtype=np.int64),
        UNITS,
        phase=Phase.AUXILIARY,
        normalization="sum",
    )
    (only,) = batch.micro_batches
    assert only.coefficients.tolist() == [0.9, 0.1] and not only.is_validation.any()
    assert only.validation_share == 0 and batch.role == "auxiliary"


def test_token_means_are_taken_over_the_whole_batch_however_it_is_cut():
    rows, weights = np.array([0, 1, 2, 3]), np.full(4, 0.25)
    for cut in ([rows], [rows[:1], rows[1:]], [rows[:2], rows[2:3], rows[3:]]):
        batch = bilevel_batch(
            cut, weights, np.array([4, 5]), UNITS, phase=Phase.PRIMARY, alpha=1.0, normalization="token_mean"
        )
        everything = np.concatenate([piece.coefficients[~piece.is_validation] for piece in batch.micro_batches])
        # Σ over the 15 tokens of the batch, each counting alike.
        assert everything == pytest.approx([1 / 15] * 4)
        of_validation = np.concatenate([piece.coefficients[piece.is_validation] for piece in batch.micro_batches])
        assert of_validation == pytest.approx([1 / 15] * 2)


def test_a_mix_counts_every_row_alike():
    batch = mixed_batch([np.array([3, 4]), np.array([3, 0])], 4, UNITS, normalization="trajectory_mean")
    first, second = batch.micro_batches
    assert first.coefficients == pytest.approx([1 / 4 / 1, 1 / 4 / 5])
    assert second.coefficients == pytest.approx([1 / 4 / 1, 1 / 4 / 2])
    assert first.is_validation.tolist() == [False, True] and not second.is_validation.any()
    assert [piece.training_share for piece in batch.micro_batches] == [0.25, 0.5]
    assert [piece.validation_share for piece in batch.micro_batches] == [0.25, 0.0]
    assert batch.role == "primary"
