"""Theorems 1–4 and Lemmas 6 and 9 on the small world of `examples/selection_theory.py`."""

import argparse
import importlib.util
import math
from pathlib import Path

import pytest
import torch

from boost_trl.selection.importance import response_weights


def load_example():
    path = Path(__file__).parents[2] / "examples" / "selection_theory.py"
    spec = importlib.util.spec_from_file_location("selection_theory_example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


theory = load_example()


@pytest.fixture(scope="module")
def world():
    return theory.make_world()


@pytest.fixture(scope="module")
def table(world):
    return {row["method"]: row for row in theory.study(world)}


def test_world_meets_assumption_1(world):
    """Pool and validation can be fitted each, and not together."""
    pool_only, nearly_validation_only = theory.train_mixing(world, rhos=(1.0, 0.0), steps=800)
    assert theory.row_losses(pool_only, world.pool).max() < 1e-2
    assert theory.row_losses(nearly_validation_only, world.validation).max() < 1e-2
    assert theory.row_losses(pool_only, world.validation).mean() > 1
    agree = world.pool[1] == world.validation[1]
    assert torch.equal(agree, world.useful) and 0 < agree.sum() < len(agree)


def test_theorem_1_bds_and_bmo_end_alike(table):
    names = ["BDS", "BMO (τ = 1)", "exact BMO (τ = 1)"]
    losses = [table[name]["validation"] for name in names]
    assert max(losses) < 2e-3
    assert table[names[1]]["validation"] == pytest.approx(table[names[2]]["validation"], rel=0.1)
    assert all(table[name]["useless"] < 0.01 < 0.1 < table[name]["useful"] for name in names)


def test_theorem_2_weights_of_contradicting_rows_go_to_zero(world, table):
    for name, selector in theory.make_selectors(len(world.useful)).items():
        theory.train_selector(world, selector, steps=200)
        weights = selector.weights()
        early = weights[~world.useful].max().item()
        assert early < weights[world.useful].min()
        assert table[name]["useless"] < 0.5 * early


@pytest.mark.parametrize("loss", ["validation", "evaluation"])
def test_theorems_3_and_4_below_every_mixing(table, loss):
    mixed = [row[loss] for method, row in table.items() if method.startswith("mixing")]
    assert len(mixed) == len(theory.RHOS)
    assert sorted(mixed) == mixed  # the more pool, the worse
    for name in ("BDS", "BMO (τ = 1)", "exact BMO (τ = 1)"):
        assert table[name][loss] < min(mixed)


@pytest.mark.parametrize("seed", [0, 1])
def test_lemma_9_by_enumeration(world, seed):
    logits = torch.randn(len(world.useful), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    enumerated, lemma = theory.expected_update(world, logits, gamma=0.4, selector_rate=2.0, seed=seed)
    torch.testing.assert_close(enumerated, lemma, atol=1e-15, rtol=1e-9)
    assert lemma.abs().max() > 1e-4
    # Its direct consequence: the row of the highest loss falls, that of the lowest rises.
    assert lemma.min() < 0 < lemma.max()


def test_lemma_6_is_the_gradient_of_the_merit_function():
    found = theory.answers(num_answers=5, seed=3)
    losses = found["losses"]
    by_hand = torch.tensor([math.exp(-loss) for loss in losses.tolist()], dtype=torch.float64)
    by_hand /= by_hand.sum()
    torch.testing.assert_close(theory.implicit_weights(losses), by_hand)
    torch.testing.assert_close(theory.implicit_weights(losses, tau=2.5), by_hand**2.5 / (by_hand**2.5).sum())
    torch.testing.assert_close(found["lambda"], by_hand)
    # What the trainer multiplies the answers' losses by is G times that.
    factors = response_weights(-losses[:, None], -losses[:, None], torch.ones(5, 1), torch.zeros(5), "softmax")
    torch.testing.assert_close(factors.double() / 5, by_hand, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found["equally_likely"], by_hand)
    assert (found["same"] - by_hand).abs().max() > 0.05


def test_figures_are_drawn_from_these_numbers(world, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(theory.__file__).parent))
    figures = importlib.import_module("selection_theory_figures")
    at, weights = figures.weights_over_training(world, steps=60)
    assert at == [0, 25, 50] and weights.shape == (3, len(world.useful))
    losses = figures.evaluation_by_shift(lambda shift: theory.make_world(shift=shift), steps=300, shifts=(0.0, 0.05))
    assert losses["BDS"][0] < losses["BDS"][1] < losses["mixing ρ = 0.1"][1]
    figures.main(argparse.Namespace(folder=tmp_path, steps=20))
    assert {path.name for path in tmp_path.iterdir()} == {f"theory_{name}.png" for name in figures.FIGURES}


def test_bmo_keeps_useless_rows_once_gamma_passes_the_share_of_useful_ones(world):
    """The fixed point that `docs/selection_theory.md` works out: with half of the rows useful, γ = ½ is the limit."""
    weights, gammas = {}, {0.25: 1 / 3, 0.4: 2 / 3}
    for rho in gammas:
        selector = theory.make_selectors(len(world.useful))["exact BMO (τ = 1)"]
        theory.train_selector(world, selector, rho_init=rho, rho_increment=0.0)
        weights[rho] = selector.weights()
    assert weights[0.25][~world.useful].max() < 0.01
    useful = weights[0.4][world.useful].mean().item()
    assert weights[0.4][~world.useful].max().item() == pytest.approx(useful - 1 / gammas[0.4], abs=0.02)
    assert useful - 1 / gammas[0.4] > 0.2
