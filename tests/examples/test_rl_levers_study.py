"""`examples/rl_levers_study.py`: each lever's weights by its equation, tables by hand, and that the page shows the committed
data."""

import copy
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from boost_trl import BilevelOfflineRLConfig
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.training import train_method
from boost_trl.selection.tempering import temper
from boost_trl.trainer.offline_rl import validated_reweighting
from boost_trl.trainer.offline_rl.validated_reweighting import fit_to_pool


ROOT = Path(__file__).parents[2]
NUM_OFFLINE, NUM_SYNTHETIC = 24, 8


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("rl_levers_study", ROOT / "examples" / "rl_levers_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def train(study, make_tiny_model, make_dialogues, tiny_tokenizer, tmp_path):
    """A function that trains the method of that name on one small pool."""
    sizes = (NUM_OFFLINE, NUM_SYNTHETIC, 6, 5)
    parts = [make_dialogues(size, seed=number, cut_share=0.0) for number, size in enumerate(sizes)]
    experiment = OfflineRLExperiment(make_tiny_model, tiny_tokenizer, None, *parts, [], [])

    def run(name):
        args = BilevelOfflineRLConfig(
            str(tmp_path),
            max_steps=4,
            auxiliary_steps=1,
            primary_steps=1,
            learning_rate=1e-2,
            reweighting_learning_rate=1e-3,
            per_device_train_batch_size=16,
            train_backbone=False,
            states_dtype="float32",
            score_steps=16,
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
            cache_dir=str(tmp_path / "cache"),
        )
        return train_method(study.LeversStudy.methods[name], experiment, args, tmp_path / name)

    return run


@pytest.fixture
def pool_fits(study, monkeypatch):
    """All ψ that are fitted, by the library and again by a lever."""
    fits = []

    def recorded(*args):
        fits.append(fit_to_pool(*args))
        return fits[-1]

    for module in (study, validated_reweighting):
        monkeypatch.setattr(module, "fit_to_pool", recorded)
    return fits


def cross_entropies(logits_of, trainer, with_states):
    """Mean cross-entropy of the action tokens of each pool row's turns, [(N, turns of the row)]."""
    store, found = copy.copy(trainer.data.store), []
    if not with_states:
        store.states = None
    for row in range(trainer.data.num_training):
        batch = store.collate(np.array([row]))
        with torch.no_grad():
            losses = torch.nn.functional.cross_entropy(logits_of(batch), batch.actions, reduction="none")
        found.append([losses[batch.unit == unit].mean().item() for unit in range(len(batch.unit_lengths))])
    return found


def losses_under(heads, trainer):
    return cross_entropies(lambda batch: heads.q_logits(batch.states[batch.action_index]), trainer, True)


def test_rewards_join_the_scores(train):
    validated, changed = train("all@0.4").validated, train("reward_aware")
    returns = np.array([sum(row["rewards"]) for row in changed.data.train_dataset])
    parts = [(values - values.mean()) / values.std() for values in (validated.scores, returns)]
    assert np.allclose(changed.validated.scores, sum(parts), atol=1e-5)
    assert 1 / (changed.validated.weights**2).sum() == pytest.approx(0.4 * len(returns))


def test_scores_against_the_initial_heads(train, pool_fits, make_tiny_model):
    validated, changed = train("all@0.4").validated, train("against_initial")
    assert len(pool_fits) == 3
    for name, value in pool_fits[2].named_parameters():
        assert torch.equal(value, dict(pool_fits[0].named_parameters())[name])
    model = make_tiny_model().eval()
    of_lm = cross_entropies(
        lambda batch: model(batch.input_ids).logits[0][batch.state_index[batch.action_index]], changed, False
    )
    of_pool = losses_under(pool_fits[0], changed)
    # ½ ℓ(initial) in place of ½ ℓ(ψ); the initial heads are the language model's.
    wanted = validated.scores + (np.ravel(of_lm) - np.ravel(of_pool)) / 2
    assert np.allclose(changed.validated.scores, wanted, atol=1e-4) and np.ptp(wanted - validated.scores) > 0.01


def test_turns_of_positive_advantage_make_a_rows_score(study, train):
    trainer = train("positive_turns")
    store, count = trainer.data.store, trainer.data.num_training
    states, returns = [], []
    for row, rewards in enumerate(trainer.data.train_dataset["rewards"]):
        batch = store.collate(np.array([row]))
        for turn in range(len(rewards)):
            first = int((batch.unit == turn).nonzero()[0])
            states.append([*batch.states[batch.action_index[first]].tolist(), 1.0])
            returns.append(sum(rewards[turn:]))
    found, states = study.advantages(store, count), np.array(states)
    # The residual of least squares is orthogonal to what explains it, and the rest is linear in that.
    assert np.allclose(found @ states, 0, atol=1e-6)
    rest = np.array(returns) - found
    assert np.allclose(states @ np.linalg.pinv(states) @ rest, rest, atol=1e-6)
    units, scores = store.units.first(count), trainer.validated.scores
    turns = train("softer").validated.scores  # f of every turn
    assert 0 < (found > 0).sum() < len(found)
    for row in range(count):
        mine = units.of_rows([row])
        wanted = sum(turns[unit] - turns.mean() for unit in mine if found[unit] > 0)
        assert np.allclose(scores[mine], wanted, atol=1e-5)
        weights = trainer.validated.weights[mine]
        assert np.allclose(weights / weights.sum(), units.shares[mine])


def test_only_what_differs_is_weighed(train, pool_fits):
    row_weights, changed = train("all@0.4").validated.weights, train("softer")
    units, weights = changed.data.training.units, changed.validated.weights
    of_pool = np.concatenate(losses_under(pool_fits[-1], changed))
    differences = np.abs(of_pool - (0.5 * of_pool - changed.validated.scores))
    wanted = []
    for unit, row in enumerate(units.rows):
        rank = np.mean(differences < differences[unit])  # but for ties
        wanted.append(units.shares[unit] * (1 + rank * (len(row_weights) * row_weights[row] - 1)))
    assert np.allclose(weights, np.array(wanted) / sum(wanted), rtol=0.05)
    assert 0.4 < (1 / (weights**2 / units.shares).sum()) / len(row_weights) < 1


def test_the_head_starts_from_the_scores(train):
    scored, fixed, learned = train("all@0.4"), train("boost_fixed_scores"), train("boost_from_scores")
    with torch.no_grad():
        wanted = scored.reweighting_head(scored.embeddings)
    assert wanted.std() > 0.1 and torch.equal(fixed.reweighter.scores(), wanted)
    moved = (learned.reweighter.scores() - wanted).abs().max()
    assert 0 < moved < wanted.std()


def test_the_bound_chooses_by_hand(study):
    rng = np.random.default_rng(0)
    returns = -rng.integers(0, 13, 300).astype(float)
    scores = returns + rng.normal(size=300)

    def bound(fraction):
        weights = temper(scores, fraction)[0]
        best = min(
            (1 + c) / (2 * math.sqrt(2)) * math.sqrt(math.log(40) + math.log(2) / (2 * math.log(c)))
            for c in np.linspace(1.001, math.e, 4000)
        )
        return weights @ (returns.max() - returns) + 12 * best * math.sqrt((weights**2).sum())

    chosen = study.fraction_by_bound(scores, returns, 0.0)
    assert chosen == min(study.FRACTIONS, key=bound) and 0.05 < chosen < 1
    assert study.fraction_by_bound(scores, returns, 1e6) == 1


def test_tables_by_hand(study):
    def row(method, seed, score, effective=40.0, auc=None):
        return {
            "method": method,
            "setting": "webshop-natural",
            "seed": seed,
            "score_mean": score,
            "effective_sample_size": effective,
            "num_rows": 100,
            "weights_auc": auc,
        }

    rows = [row("all@0.4", 1, 2.0, auc=0.7), row("all@0.4", 2, 4.0, auc=0.8), row("two_stage", 1, 1.0)]
    rows += [row("bound", 1, 5.0, 10.0, 0.6), row("bound", 2, 5.0, 30.0, 0.7)]
    rows += [row("boost", 3, 9.0), row("uniform", 3, 8.0), row("uniform", 4, 8.0)]
    found = {
        line[1].strip(): line[2:-1]
        for line in (line.split("|") for line in study.table(rows, "webshop-natural").split("\n"))
    }
    found = {name: [cell.strip() for cell in cells] for name, cells in found.items()}
    assert found["all@0.4"] == ["2", "3.00 ± 1.00", "–", "0.40", "0.75"]
    assert found["(d) n_eff by the bound"] == ["2", "5.00 ± 0.00", "+2.00 ± 1.00", "0.20", "0.65"]
    assert found["Two-stage"] == ["1", "1.00 ± 0.00", "-1.00 ± 0.00", "–", "–"]
    assert "| BOOST − Uniform | +1.00 ± 0.00 |" in study.schedule_table(rows)
    assert "BOOST" not in found and study.table(rows, "twenty_questions-natural").count("\n") == 1


@pytest.mark.parametrize("name", ["rl_levers_study", "rl_levers_fresh_seeds"])
def test_the_page_has_the_tables_of_the_data(study, name):
    rows = json.loads((ROOT / "docs" / "data" / f"{name}.json").read_text())
    page = (ROOT / "docs" / "reproductions.md").read_text()
    assert len({row["seed"] for row in rows}) == 3
    for pool in {row["setting"] for row in rows}:
        assert study.table(rows, pool) in page
    assert study.schedule_table(rows) in page
