import numpy as np
import pytest

from boost_trl.analysis.weights import distance_to_nearest, pearson, relative_weight_change


def test_relative_weight_change_is_zero_for_uniform_weights_of_any_scale():
    np.testing.assert_allclose(relative_weight_change(np.full(4, 7.0)), 0)
    np.testing.assert_allclose(relative_weight_change([0.5, 0.25, 0.25]), [0.5, -0.25, -0.25])


def test_distance_is_the_mean_l1_distance_to_the_nearest():
    reference = np.array([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]])
    # From (1, 0): 1, 1 and 9.
    np.testing.assert_allclose(distance_to_nearest(np.array([[1.0, 0.0]]), reference, k=2), [1.0])
    np.testing.assert_allclose(distance_to_nearest(np.array([[1.0, 0.0]]), reference, k=10), [11 / 3])
    with pytest.raises(ValueError, match="no reference point"):
        distance_to_nearest(reference, np.empty((0, 2)))


def test_pearson_is_none_where_it_is_undefined():
    assert pearson([1, 2, 3], [2, 4, 7]) == pytest.approx(np.corrcoef([1, 2, 3], [2, 4, 7])[0, 1])
    assert pearson([1, 1, 1], [1, 2, 3]) is None and pearson([1], [2]) is None
