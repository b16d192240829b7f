import numpy as np
import pytest

from boost_trl.selection import weights_auc


@pytest.mark.parametrize("ties", [False, True])
def test_equals_the_share_of_pairs_in_order(ties):
    draw = np.random.default_rng(0)
    for _ in range(20):
        weights = draw.integers(0, 4, 30).astype(np.float32) if ties else draw.normal(size=30)
        labels = draw.random(30) < 0.4
        good, bad = weights[labels][:, None], weights[~labels][None]
        pairs = (good > bad).mean() + 0.5 * (good == bad).mean()
        assert weights_auc(weights, labels) == pytest.approx(pairs)


def test_nothing_to_rank_is_none():
    assert weights_auc(np.ones(4), [True, False, True, False]) is None
    assert weights_auc([1.0, 2.0], [True, True]) is None


def test_bad_input():
    with pytest.raises(ValueError, match="3 rows"):
        weights_auc([1.0, 2.0, 3.0], [True, False])
    with pytest.raises(ValueError, match="row 1"):
        weights_auc([1.0, float("nan")], [True, False])
