import numpy as np
import pytest

from boost_trl.analysis import change_by_group, relative_weight_change, weight_shift


def test_relative_weight_change_is_zero_for_uniform_weights_of_any_scale():
    np.testing.assert_allclose(relative_weight_change(np.full(4, 7.0)), 0)
    np.testing.assert_allclose(relative_weight_change([0.5, 0.25, 0.25]), [0.5, -0.25, -0.25])


def test_change_by_group_by_hand():
    # Equal weight 1: changes +2, 0, -1, -1.
    groups = change_by_group([6, 2, 0, 0], ["a", "b", "b", "b"])
    assert [group.name for group in groups] == ["a", "b"]
    a, b = groups
    assert (a.rows, a.mean, a.gained, a.weight_share) == (1, 2.0, 1.0, 0.75)
    assert (b.rows, b.mean, b.gained, b.weight_share) == (3, pytest.approx(-2 / 3), 0.0, 0.25)
    assert a.error == 0 and b.error == pytest.approx(1 / 3)  # changes 0, -1, -1: variance 1/3
    assert b.low == -1 and b.high == pytest.approx(-0.2)
    with pytest.raises(ValueError, match="each of the 3 rows, got 1"):
        change_by_group([1, 1, 1], ["a"])


def test_weight_shift_by_hand():
    before = np.array([2.0, 1.5, 1.2, 0.1, 0.1, 0.1, 1.0])
    after = np.array([3.0, 1.1, 0.5, 1.4, 0.2, 0.3, 1.0])
    shift = weight_shift(before, after)
    assert shift.kept == pytest.approx(2 / 3) and shift.promoted == pytest.approx(1 / 4)
    assert shift.high_before == pytest.approx(3 / 7) and shift.high_after == pytest.approx(3 / 7) and shift.rows == 7
    assert weight_shift([0.5, 0.5], [2, 2]).kept is None and weight_shift([2, 2], [2, 2]).promoted is None
    with pytest.raises(ValueError, match="same rows"):
        weight_shift([1, 2], [1])
