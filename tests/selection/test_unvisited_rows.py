"""Rows that no update has visited yet: they weigh what the visited ones weigh on average."""

import numpy as np
import pytest
import torch

from boost_trl.selection import Selector


SIZE, BATCH = 200, 10
RULES = [
    {"selector": "bds"},
    {"selector": "bds", "selector_optimizer": "sgd"},
    {"selector": "bds", "selector_optimizer": "adam", "selector_learning_rate": 0.05},
    {"selector": "rank", "keep_fraction": 0.3},
]


def passes(selector, count, see=lambda *arguments: None):
    """`count` passes over the pool in random order; the first half of the rows is hard."""
    selector.set_schedule(count * SIZE // BATCH, SIZE // BATCH)
    draw = np.random.default_rng(0)
    for number in range(count):
        for ids in draw.permutation(SIZE).reshape(-1, BATCH):
            see(number, ids)
            selector.update(ids, np.where(ids < SIZE // 2, 2.5, 1.5) + draw.normal(0, 0.2, BATCH), 0.3)


def assert_unvisited_rows_have_the_mean(selector, visited):
    """By definition, over the visited rows alone: weight one, and ω the logarithm of the mean of exp ω."""
    weights, logits = selector.weights().double().numpy(), selector.logits().double().numpy()
    unvisited = np.setdiff1d(np.arange(SIZE), visited)
    np.testing.assert_allclose(weights[unvisited], 1, rtol=1e-6)
    assert weights[visited].mean() == pytest.approx(1, rel=1e-6)
    own = np.exp(logits[visited])
    np.testing.assert_allclose(weights[visited], own / own.mean(), rtol=1e-5)
    np.testing.assert_allclose(logits[unvisited], np.log(own.mean()), atol=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_first_visit_has_weight_one_however_late(rule):
    selector, visited = Selector(SIZE, **rule), []

    def see(number, ids):
        if number == 0:
            np.testing.assert_allclose(selector.weights(ids), 1, rtol=1e-6)
            visited.extend(ids.tolist())

    passes(selector, 1, see)
    assert len(visited) == SIZE
    assert selector.weights()[: SIZE // 2].mean() < 0.95 < 1.05 < selector.weights()[SIZE // 2 :].mean()


@pytest.mark.parametrize("rule", [*RULES, {"selector": "bmo"}, {"selector": "bmo_exact"}], ids=str)
def test_unvisited_rows_weigh_as_much_as_the_mean_of_the_visited(rule):
    selector = Selector(SIZE, **rule)
    selector.set_schedule(20, 20)
    draw, visited = np.random.default_rng(1), set()
    for _ in range(19):
        ids = draw.choice(150, BATCH, replace=False)  # rows from 150 on are never visited
        visited.update(ids.tolist())
        selector.update(ids, draw.normal(2, 1, BATCH), 0.3)
        rows = np.array(sorted(visited))
        if rule["selector"] == "bmo_exact":
            selector.refresh(rows, draw.normal(2, 1, len(rows)))
        assert_unvisited_rows_have_the_mean(selector, rows)
        assert selector.share_seen() == len(rows) / SIZE
        # The summaries are those of the whole softmax, unvisited rows included.
        sigma = selector.weights().double().numpy() / SIZE
        assert sigma.sum() == pytest.approx(1, rel=1e-6)
        assert selector.effective_sample_size() == pytest.approx(1 / (sigma**2).sum(), rel=1e-5)
        assert selector.entropy() == pytest.approx(-(sigma[sigma > 0] * np.log(sigma[sigma > 0])).sum(), rel=1e-5)
        assert selector.largest_weight() == pytest.approx(SIZE * sigma.max(), rel=1e-5)
    assert selector.weights().std() > 0.1


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_mean_weight_of_an_epoch_stays_one(rule):
    """The weighted loss keeps the size of the plain one, whatever the rows weigh."""
    selector, means = Selector(SIZE, **rule), {}
    passes(selector, 4, lambda number, ids: means.setdefault(number, []).append(selector.weights(ids).mean().item()))
    for number, weights in means.items():
        assert np.mean(weights) == pytest.approx(1, abs=0.1), number
    assert selector.weights().max() > 1.2


def test_which_selectors_need_a_second_visit():
    assert Selector(3, selector="rank").needs_second_visit
    assert Selector(3, selector="bds").needs_second_visit
    # The batch's own losses, or those of all rows; nothing is learned.
    assert not any(Selector(3, selector=name).needs_second_visit for name in ("bmo", "bmo_exact", "mixing", "uniform"))


def test_a_selector_saved_halfway_goes_on_to_the_last_bit(tmp_path):
    whole = Selector(SIZE, selector="bds")
    half = np.arange(SIZE // 2)
    whole.update(half, np.linspace(0, 3, len(half)), 0.5)
    whole.save_pretrained(tmp_path)
    resumed = Selector.from_pretrained(tmp_path)
    for selector in (whole, resumed):
        selector.update([3, 190], [5.0, 0.1], 0.5)
    assert torch.equal(resumed.logits(), whole.logits()) and torch.equal(resumed.weights(), whole.weights())
    assert torch.isfinite(whole.logits()).all()
