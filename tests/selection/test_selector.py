"""`Selector` against a brute-force softmax regression, whose weights autograd sees through the full softmax."""

import inspect
import logging
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from boost_trl.selection import Selector, row_means
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig


N = 7
ALL_KINDS = [
    {"selector": "bds"},
    {"selector": "bds", "selector_optimizer": "sgd"},
    {"selector": "bds", "selector_optimizer": "adam"},
    {"selector": "bmo"},
    {"selector": "bmo_exact"},
    {"selector": "rank"},
    {"selector": "mixing"},
    {"selector": "uniform"},
]


def softmax_regression(seed=0):
    """θ (d, V), pool features and labels, validation features and labels."""
    g = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    pool = randn(N, 4), torch.randint(3, (N,), generator=g)
    validation = randn(5, 4), torch.randint(3, (5,), generator=g)
    return randn(4, 3), pool, validation


def losses_of(theta, data):
    return cross_entropy(data[0] @ theta, data[1], reduction="none")


def softmax_of_visited(logits, visited):
    """σ(ω), differentiable: rows that were not visited have the mean of those that were."""
    sigma = torch.full((N,), 1 / N, dtype=torch.float64)
    if visited:
        rows = torch.tensor(sorted(visited))
        sigma = sigma.index_put((rows,), len(visited) / N * torch.softmax(logits[rows], 0))
    return sigma


def test_uniform_at_the_start():
    for kind in ALL_KINDS:
        selector = Selector(N, **kind)
        assert torch.equal(selector.weights(torch.arange(N)), torch.ones(N))
        assert selector.weights(np.array([3])).dtype == torch.float32
        assert selector.effective_sample_size() == N
        assert selector.largest_weight() == 1
        assert selector.share_seen() == 0
        assert selector.entropy() == pytest.approx(np.log(N))


def test_simplex_weights_sum_to_one():
    selector = Selector(N, weight_scale="simplex", selector="bds")
    selector.update([0, 1, 2], [1.0, 2.0, 5.0], 10.0)
    assert selector.weights().sum().item() == pytest.approx(1)
    assert selector.weights([0]) > selector.weights([2])


@pytest.mark.parametrize("weight_scale, scale", [("mean_one", N), ("simplex", 1)])
@pytest.mark.parametrize("optimizer, rate", [("sgd", 0.5), ("adam", 0.05)])
def test_dense_training_equals_autograd_through_the_softmax_of_visited_rows(optimizer, rate, weight_scale, scale):
    """Whole loop of equations (22)–(24) with the extra forward, against torch's optimizers."""
    theta, pool, validation = softmax_regression()
    selector = Selector(
        N,
        selector="bds",
        selector_optimizer=optimizer,
        selector_learning_rate=rate,
        weight_scale=weight_scale,
    )
    omega = torch.zeros(N, dtype=torch.float64, requires_grad=True)
    reference = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]([omega], lr=rate)
    visited = set()
    thetas = [theta.clone().requires_grad_(), theta.clone().requires_grad_()]
    draw = np.random.default_rng(0)
    for step in range(30):
        batch, gamma = torch.from_numpy(draw.choice(N, 3, replace=False)), 0.1 + 0.02 * step
        reference_weights = scale * softmax_of_visited(omega.detach(), visited)[batch]
        for index, weights in enumerate([selector.weights(batch).double(), reference_weights]):
            parameter = thetas[index]
            loss = (
                losses_of(parameter, validation).mean() + gamma * (weights * losses_of(parameter, pool)[batch]).sum()
            )
            (gradient,) = torch.autograd.grad(loss, parameter)
            thetas[index] = (parameter - 0.3 * gradient).detach().requires_grad_()
        # Equation (23), the losses at the new parameters, constants in ω.
        selector.update(batch, losses_of(thetas[0], pool)[batch], gamma)
        if visited:
            new = [row for row in batch.tolist() if row not in visited]
            omega.data[new] = omega.data[sorted(visited)].exp().mean().log()
        visited.update(batch.tolist())
        reference.zero_grad()
        constants = losses_of(thetas[1], pool)[batch].detach()
        (gamma * scale * (softmax_of_visited(omega, visited)[batch] * constants).sum()).backward()
        reference.step()
    assert len(visited) == N
    assert omega.detach().std() > 0.01
    torch.testing.assert_close(selector.logits().double(), omega.detach(), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(thetas[0], thetas[1], atol=1e-5, rtol=1e-4)


def test_sparse_update_by_hand():
    selector = Selector(4, selector_learning_rate=0.5, selector_max_step=0.3, selector="bds")
    # First batch: C̄ is its own mean, 2. Weights are 1, so the steps are −0.5·0.2·(C − 2).
    selector.update([2, 0], [3.0, 1.0], 0.2)
    common = np.log(np.cosh(0.1))  # of rows 1 and 3: log((e⁰·¹ + e⁻⁰·¹)/2)
    np.testing.assert_allclose(selector.logits(), [0.1, common, -0.1, common], atol=1e-7)
    # Second batch: C̄ is still 2; rows 1 and 3 weigh 1 and move by −0.1·(C − 2), but row 3's step of 100 is clipped.
    selector.update([1, 3], [2.5, 1e3], 0.2)
    np.testing.assert_allclose(selector.logits(), [0.1, common - 0.05, -0.1, common - 0.3], atol=1e-6)
    # Third: C̄ = (0.99·(3 + 1) + 1002.5)/(0.99·2 + 2), over batches one and two only.
    mean = (0.99 * 4 + 1002.5) / (0.99 * 2 + 2)
    before = selector.logits().double()
    moved = 4 * torch.softmax(before, 0)[0].item()
    selector.update([0], [mean + 1.0], 0.2)
    assert selector.logits()[0].item() == pytest.approx(before[0].item() - 0.1 * moved * 1.0, abs=1e-6)


@pytest.mark.parametrize("weight_scale, scale", [("mean_one", N), ("simplex", 1)])
def test_expected_sparse_update_is_lemma_9(weight_scale, scale):
    """All N rows that could be drawn, each with its own θ(m): the mean step is equation (26), times N for mean-one
    weights."""
    theta, pool, validation = softmax_regression()
    rate, gamma = 1.0, 0.4
    start = Selector(N, selector_learning_rate=rate, weight_scale=weight_scale, selector_max_step=1e9, selector="bds")
    start.update(range(N), 6 / scale * np.arange(N), 1.0)
    sigma = torch.softmax(start.logits().double(), 0)
    assert sigma.max() > 3 * sigma.min()

    after = torch.empty(N, dtype=torch.float64)
    for row in range(N):
        parameter = theta.clone().requires_grad_()
        loss = losses_of(parameter, validation).mean() + gamma * sigma[row] * losses_of(parameter, pool)[row]
        (gradient,) = torch.autograd.grad(loss, parameter)
        after[row] = losses_of(theta - 0.5 * gradient, pool)[row]
    state = start.state_dict()
    state["baseline"] = torch.stack([(sigma * after).sum(), sigma.sum()])  # an exact C̄

    mean_step = torch.zeros(N, dtype=torch.float64)
    for row in range(N):
        selector = Selector(
            N, selector_learning_rate=rate, weight_scale=weight_scale, selector_max_step=1e9, selector="bds"
        )
        selector.load_state_dict(state)
        selector.update([row], after[[row]], gamma)
        mean_step += (selector.logits().double() - start.logits().double()) / N
    lemma = rate * gamma * sigma / N * ((sigma * after).sum() - after)
    torch.testing.assert_close(mean_step, scale * lemma, atol=2e-7, rtol=1e-5)


def test_bmo_by_hand():
    selector = Selector(4, selector="bmo", bmo_tau=2.0, selector_learning_rate=0.25)
    # The first visits set rows 0 and 1 to −2·L; the others have log((e⁻² + e⁻⁴)/2).
    selector.update([0, 1], [1.0, 2.0], 0.3)
    common = np.log((np.exp(-2) + np.exp(-4)) / 2)
    np.testing.assert_allclose(selector.logits(), [-2, -4, common, common])
    # ω₀ ← −2 − ¼(−2 + 2·3) = −3; row 2 is new.
    selector.update([0, 2], [3.0, 0.5], 0.3)
    common = float(np.log((np.exp(-3) + np.exp(-4) + np.exp(-1)) / 3))
    np.testing.assert_allclose(selector.logits(), [-3, -4, -1, common], rtol=1e-6)
    torch.testing.assert_close(selector.weights(), 4 * torch.softmax(torch.tensor([-3.0, -4, -1, common]), 0))
    assert selector.share_seen() == 0.75
    assert selector.updates_before_weights


def test_exact_bmo_is_a_softmax_of_the_losses():
    losses = torch.tensor([0.3, 2.0, 1.0, 4.0])
    selector = Selector(5, selector="bmo_exact", bmo_tau=0.7)
    selector.refresh([0, 1, 2, 4], losses)
    common = (-0.7 * losses).exp().mean().log()
    expected = torch.tensor([*(-0.7 * losses[:3]), common, -0.7 * losses[3]])
    torch.testing.assert_close(selector.weights(), 5 * torch.softmax(expected, 0))
    selector.update([0, 1], [9.0, 9.0], 1.0)
    torch.testing.assert_close(selector.logits(), expected)
    with pytest.raises(ValueError, match="repeats"):
        selector.refresh([0, 0], [1.0, 1.0])
    with pytest.raises(ValueError, match="bmo_exact"):
        Selector(5, selector="bds").refresh([0], [1.0])


def test_rank_follows_its_definition():
    size, total, keep = 20, 40, 0.4
    selector = Selector(size, selector="rank", keep_fraction=keep, rank_refresh_steps=10)
    selector.set_schedule(total_steps=total, steps_per_epoch=10)
    draw, scores, weights = np.random.default_rng(1), {}, np.ones(size)
    for step in range(1, total + 1):
        ids = draw.choice(15, 2, replace=False)  # rows 15–19 are never visited
        losses = draw.choice([0.5, 1.0, 1.0, 3.0], 2)  # ties
        selector.update(ids, losses, 0.1)
        for row, loss in zip(ids, losses):
            scores[row] = 0.5 * scores[row] + 0.5 * loss if row in scores else loss
        if step % 10 == 0:
            kept = 1 - (1 - keep) * min(1, step / (0.75 * total))
            omega = np.full(size, np.nan)
            for row in scores:
                below = sum(scores[other] < scores[row] for other in scores)
                ties = sum(scores[other] == scores[row] for other in scores)
                omega[row] = (kept - (below + (ties - 1) / 2) / len(scores)) / 0.05
            gates = 1 / (1 + np.exp(-omega))
            weights = np.where(np.isnan(gates), 1, gates / np.nanmean(gates))
        np.testing.assert_allclose(selector.weights(), weights, rtol=1e-5)
    assert weights.max() > 1.3 > 0.1 > weights.min()


def test_rank_needs_to_know_how_long_training_lasts():
    with pytest.raises(ValueError, match="set_schedule"):
        Selector(4, selector="rank").update([0], [1.0], 0.1)


def test_rank_refreshes_twenty_times_an_epoch():
    selector = Selector(10, selector="rank")
    selector.set_schedule(total_steps=200, steps_per_epoch=100)
    for _ in range(5):
        assert selector.logits().abs().max() == 0
        selector.update([0, 1], [1.0, 2.0], 0.1)
    assert selector.logits().abs().max() > 0


@pytest.mark.parametrize("kind", ["mixing", "uniform"])
def test_fixed_weights_never_move(kind):
    selector = Selector(5, selector=kind)
    selector.update([0, 3], [1.0, 9.0], 1.0)
    assert torch.equal(selector.weights(), torch.ones(5))
    assert selector.share_seen() == 0.4
    assert not selector.is_learned


@pytest.mark.parametrize("kind", ALL_KINDS[:6], ids=str)
def test_order_of_the_gathered_batch_changes_no_bit(kind):
    selectors = [Selector(50, **kind) for _ in range(2)]
    for selector in selectors:
        selector.set_schedule(20, 5)
        if selector.selector == "bmo_exact":
            selector.refresh(range(50), np.linspace(0, 3, 50))
    draw = np.random.default_rng(0)
    for _ in range(20):
        ids, losses = draw.choice(50, 16), draw.normal(1.5, 0.5, 16).astype(np.float32)
        shuffled = draw.permutation(16)
        selectors[0].update(ids, losses, 0.3)
        selectors[1].update(torch.from_numpy(ids[shuffled]), torch.from_numpy(losses[shuffled]), 0.3)
    for name, value in selectors[0].state_dict().items():
        assert torch.equal(value.nan_to_num(7), selectors[1].state_dict()[name].nan_to_num(7)), name


def test_pieces_of_rows_are_summed_and_counted_before_they_are_divided():
    draw = np.random.default_rng(0)
    ids, counts = np.repeat([4, 1, 9], 5), draw.integers(1, 30, 15)
    sums = draw.normal(2, 1, 15) * counts
    rows, means = row_means(ids, sums, counts)
    np.testing.assert_array_equal(rows, [1, 4, 9])
    np.testing.assert_allclose(means, [sums[ids == row].sum() / counts[ids == row].sum() for row in rows])
    for _ in range(10):
        order = draw.permutation(15)
        assert (row_means(ids[order], sums[order], counts[order])[1] == means).all()
    rows, means = row_means(np.array([-1, 3, 5]), np.array([1.0, 0.0, 2.0]), np.array([1, 0, 4]))
    assert rows.tolist() == [5] and means.tolist() == [0.5]
    assert len(row_means(np.array([], int), np.array([]), np.array([], int))[0]) == 0


def test_a_row_drawn_twice_counts_twice():
    """Against autograd, when all rows were visited: the sum over the batch has the row's term twice."""
    omega = torch.zeros(N, dtype=torch.float64, requires_grad=True)
    losses = torch.tensor([1.0, 2.0, 2.5], dtype=torch.float64)
    (N * torch.softmax(omega, 0)[[5, 1, 5]] * losses).sum().backward()
    selector = Selector(N, selector_optimizer="sgd", selector="bds")
    selector.update(range(N), np.zeros(N), 0.4)
    selector.update([5, 1, 5], losses, 0.4)
    torch.testing.assert_close(selector.logits().double(), -0.4 * omega.grad, atol=1e-6, rtol=1e-6)

    bmo = Selector(2, selector="bmo", selector_learning_rate=0.25)
    bmo.update([0], [1.0], 1.0)
    bmo.update([0, 0], [3.0, 3.0], 1.0)  # −1 → −1.5 → −1.875
    assert bmo.logits()[0].item() == pytest.approx(-1.875)


def test_bds_and_bmo_order_rows_alike():
    draw = np.random.default_rng(0)
    level = draw.normal(1.5, 0.3, 200)
    selectors = [Selector(200, selector="bds"), Selector(200, selector="bmo")]
    for ids in np.concatenate([draw.permutation(200).reshape(-1, 20) for _ in range(3)]):
        losses = level[ids] + draw.normal(0, 0.1, 20)
        for selector in selectors:
            selector.update(ids, losses, 0.2)
    for selector in selectors:
        assert np.corrcoef(selector.logits(), level)[0, 1] < -0.9


@pytest.mark.parametrize("kind", ALL_KINDS[:4], ids=str)
def test_running_sums_stay_exact(kind):
    """Weights, entropy, n_eff and the largest weight against the full softmax after thousands of updates."""
    size = 500
    selector = Selector(size, **{**kind, "bmo_tau": 3.0})
    draw = np.random.default_rng(0)
    for step in range(3000):
        ids = draw.choice(size, 8, replace=False)
        selector.update(ids, draw.normal(2, 1, 8) * (30 if step % 500 == 0 else 1), 0.3)
    probability = torch.softmax(selector.logits().double(), 0)
    assert probability.max() > 1.01 / size
    torch.testing.assert_close(selector.weights().double(), size * probability, rtol=1e-6, atol=1e-12)
    assert selector.effective_sample_size() == pytest.approx(1 / (probability**2).sum().item(), rel=1e-6)
    entropy = -(probability * probability.clamp(min=1e-300).log()).sum().item()
    assert selector.entropy() == pytest.approx(entropy, abs=1e-6)
    assert selector.largest_weight() == pytest.approx(size * probability.max().item(), rel=1e-6)


def test_running_sums_survive_logits_that_leave_and_return():
    selector = Selector(100, selector="bmo", selector_learning_rate=1.0)
    selector.update(range(100), np.full(100, 1.0), 1.0)
    for loss in (-30.0, 1.0, -700.0, 5.0, 3000.0, 1.0):
        selector.update([3], [loss], 1.0)
        expected = 100 * torch.softmax(selector.logits().double(), 0)
        torch.testing.assert_close(selector.weights().double(), expected, rtol=1e-6, atol=1e-30)


def test_collapse_warns_once(caplog):
    selector = Selector(100, selector="bmo", bmo_tau=50.0, min_effective_sample_size=0.05)
    with caplog.at_level(logging.WARNING):
        selector.update(range(100), np.ones(100), 0.1)
        assert not selector.has_collapsed and not caplog.records
        for _ in range(3):
            selector.update([0], [0.0], 0.1)
    assert selector.has_collapsed
    assert len(caplog.records) == 1 and "n" in caplog.records[0].message
    assert "of 100 rows" in caplog.records[0].message and "Lower `selector_learning_rate`" in caplog.records[0].message
    caplog.clear()
    Selector(100, selector="validated").assign(np.eye(100)[0] * 50)
    assert "Raise `target_effective_fraction`" in caplog.records[0].message


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 100, 1000])
def test_a_small_pool_can_collapse_too(rows):
    """All weight on one row is a collapse unless there is no other row, although 1 % of 100 rows is one row."""
    for share in (0.01, 0.0):
        selector = Selector(rows, selector="bmo_exact", bmo_tau=100.0, min_effective_sample_size=share)
        assert not selector.has_collapsed
        selector.refresh(range(rows), [0.0] + [1.0] * (rows - 1))
        assert selector.effective_sample_size() == pytest.approx(1)
        assert selector.has_collapsed == (share > 0 and rows > 1)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"selector": "BDS"}, "selector"),
        ({"selector_optimizer": "adamw"}, "selector_optimizer"),
        ({"weight_scale": "sum"}, "weight_scale"),
        ({"selector_learning_rate": 0.0}, "selector_learning_rate"),
        ({"selector": "bmo", "selector_learning_rate": 1.5}, "selector_learning_rate"),
        ({"selector_max_step": -1.0}, "selector_max_step"),
        ({"bmo_tau": float("nan")}, "bmo_tau"),
        ({"keep_fraction": 0.0}, "keep_fraction"),
        ({"rank_refresh_steps": 0}, "rank_refresh_steps"),
        ({"min_effective_sample_size": 2.0}, "min_effective_sample_size"),
    ],
)
def test_wrong_settings_name_their_field(kwargs, message):
    with pytest.raises(ValueError, match=f"`{message}`"):
        Selector(10, **kwargs)


@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_bad_batches_raise_and_change_nothing(kind):
    selector = Selector(10, **kind)
    selector.set_schedule(10, 10)
    before = selector.state_dict()
    for ids, losses, gamma, message in [
        ([0, 10], [1.0, 1.0], 0.1, "row id 10"),
        ([-1], [1.0], 0.1, "row id -1"),
        ([0.5], [1.0], 0.1, "integers"),
        ([0, 1], [1.0], 0.1, "2 rows"),
        ([4, 7], [1.0, float("nan")], 0.1, "row 7 is nan"),
        ([4], [float("inf")], 0.1, "row 4 is inf"),
        ([4], [1.0], float("inf"), "gamma"),
        ([4], [1.0], -0.1, "gamma"),
    ]:
        with pytest.raises(ValueError, match=message):
            selector.update(ids, losses, gamma)
    for name, value in selector.state_dict().items():
        assert torch.equal(value.nan_to_num(7), before[name].nan_to_num(7))
    selector.update([], [], 0.1)
    assert selector.num_updates == 0


def test_a_million_rows_cost_what_a_batch_costs():
    """Loose: catches an update or a refresh that walks over all rows at every step (1 ms and more here)."""
    selector = Selector(1_000_000, selector="bds")
    draw = np.random.default_rng(0)
    batches = [(draw.choice(1_000_000, 32), draw.normal(1.5, 0.3, 32)) for _ in range(300)]
    selector.update(*batches[0], 0.2)
    start = time.process_time()
    for ids, losses in batches:
        selector.update(ids, losses, 0.2)
        selector.weights(ids)
    assert (time.process_time() - start) / len(batches) < 1e-3


def test_defaults_are_the_trainers():
    ours = inspect.signature(Selector).parameters
    theirs = {field.name: field.default for field in fields(BilevelSFTSelfRefineConfig)}
    # A loop of one's own has no model that scores rows before training.
    shared = (ours.keys() & theirs.keys()) - {"num_examples", "selector"}
    assert {"keep_fraction", "bmo_tau", "weight_scale"} <= shared
    assert {name: ours[name].default for name in shared} == {name: theirs[name] for name in shared}


def test_the_pages_own_loop_runs():
    """The code of `docs/selector.md` with a linear model in the place of an LM."""
    text = (Path(__file__).parents[2] / "docs" / "selector.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    _, pool, validation = softmax_regression()
    theta = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    saved = []
    names = {
        "pool": pool[1],
        "model": None,
        "optimizer": torch.optim.SGD([theta], lr=0.5),
        "loader": [(rows, rows, None) for rows in torch.arange(N).split(4)],
        "per_row_mean_losses": lambda model, rows: losses_of(theta, pool)[rows],
        "mean_loss": lambda model, batch: losses_of(theta, validation).mean(),
    }
    code = code.replace('selector.save_pretrained("out")', "saved.append(selector)")
    exec(code, {**names, "saved": saved})
    (selector,) = saved
    assert selector.share_seen() == 1 and selector.num_updates == 3 * len(names["loader"])
    assert selector.weights().mean() == pytest.approx(1, rel=1e-5) and selector.weights().std() > 0.5
