import numpy as np
import pytest

from boost_trl.selection import prefers_weights


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.5, 0.6, 0.5, 0.6], True),
        # Mean −.05, standard deviation .1915, standard error .0957: within what chance does.
        ([0.7, 1.1, 0.9, 1.1], False),
        ([2.0, 2.0, 2.1, 2.0], False),
        ([1.0, 1.0, 1.0, 1.0], False),
    ],
)
def test_weights_are_kept_only_if_unseen_rows_say_so(losses, expected):
    assert prefers_weights(losses, [1.0] * 4) is expected


@pytest.mark.parametrize(
    ("weighted", "uniform", "message"),
    [([1.0], [1.0], "at least two"), ([1.0, 2.0], [1.0], "got 2 and 1"), ([1.0, np.nan], [1.0, 1.0], "row 1")],
)
def test_losses_that_cannot_be_compared(weighted, uniform, message):
    with pytest.raises(ValueError, match=message):
        prefers_weights(weighted, uniform)
