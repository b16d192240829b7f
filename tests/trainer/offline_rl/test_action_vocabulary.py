"""Heads over the words that occur, against plain formulas over the whole vocabulary."""

import copy

import numpy as np
import pytest
import torch

from boost_trl.models.value_heads import ValueHeads
from boost_trl.trainer.offline_rl import action_vocabulary
from boost_trl.trainer.offline_rl.action_vocabulary import ActionVocabulary
from boost_trl.trainer.offline_rl.head_fitting import HeadFitter
from boost_trl.trainer.offline_rl.value_head_initialization import reference_head


OPTIONS = {"method": "validated", "guard": False, "train_backbone": False, "score_steps": 12}


@pytest.fixture(autouse=True)
def no_vocabulary_is_small(monkeypatch):
    monkeypatch.setattr(action_vocabulary, "SMALL_VOCABULARY", 0)


@pytest.fixture
def make_fitter(make_trainer):
    def make(**options):
        trainer = make_trainer(**{**OPTIONS, **options})
        return HeadFitter(trainer.model.primary, trainer.data.store, trainer.args), trainer.model.primary

    return make


def full_logits(heads, batch):
    """Q(s, ·) over the whole vocabulary, (K, N, V)."""
    weight = heads.q_weight if heads.config.rank is None else heads.q_factor_out @ heads.q_factor_in
    return batch.states[batch.action_index] @ weight.mT + heads.q_bias[:, None, :]


@pytest.mark.parametrize("options", [{}, {"value_head_bias": "token"}, {"value_head_rank": 4}])
@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
def test_at_the_start_losses_are_those_of_the_whole_vocabulary(make_fitter, monkeypatch, algorithm, options):
    # Small pieces, so that there are several of words and of rows.
    monkeypatch.setattr(action_vocabulary, "_WORDS_PER_BLOCK", 5)
    monkeypatch.setattr(action_vocabulary, "_TOKENS_PER_BATCH", 50)
    fitter, heads = make_fitter(algorithm=algorithm, **options)
    assert fitter.num_words == len(np.unique(fitter.store.action_tokens)) + 1 < heads.config.vocab_size
    rows = np.array([5, 0, 30, 11, 7, 2])
    expected = []
    for row in rows:
        batch = fitter.store.collate([row])
        log_probabilities = full_logits(heads, batch).log_softmax(dim=-1)
        expected.append(-log_probabilities[:, torch.arange(len(batch.actions)), batch.actions].mean().item())
    np.testing.assert_allclose(fitter.policy_losses(fitter.initial, rows), expected, rtol=1e-5)


@pytest.mark.parametrize("bias", ["scalar", "token"])
def test_a_fit_moves_words_and_the_rest_as_autograd_over_the_whole_vocabulary_does(make_fitter, bias):
    fitter, heads = make_fitter(value_head_bias=bias)
    rows, args = np.array([3, 8, 3, 20]), fitter.args
    batches = [fitter.store.collate([row]) for row in rows]
    words = torch.from_numpy(np.unique(fitter.store.action_tokens)).long()
    is_word = torch.zeros(heads.config.vocab_size, dtype=torch.bool)
    is_word[words] = True
    weight, q_bias = heads.q_weight[0].detach().clone(), heads.q_bias[0].detach().clone()
    moved, delta = weight[words].clone().requires_grad_(True), torch.zeros(weight.shape[1], requires_grad=True)
    if bias == "token":
        moved_bias = torch.cat([q_bias[words], torch.zeros(1)]).requires_grad_(True)
    else:
        moved_bias = q_bias.clone().requires_grad_(True)
    rate = 0.5 / fitter.store.states.abs().sum(dim=1).mean().item()
    parameters = [moved, delta, moved_bias]
    optimizer = torch.optim.Adam(parameters, lr=rate, foreach=False, fused=False)
    kept = []
    for step in range(12):
        optimizer.param_groups[0]["lr"] = rate * (12 - step) / 12
        optimizer.zero_grad()
        losses = []
        for batch in batches:
            whole = torch.where(is_word[:, None], torch.zeros_like(weight).index_add(0, words, moved), weight + delta)
            if bias == "token":
                whole_bias = torch.where(
                    is_word, torch.zeros_like(q_bias).index_add(0, words, moved_bias[:-1]), q_bias + moved_bias[-1]
                )
            else:
                whole_bias = moved_bias
            q = batch.states[batch.action_index] @ whole.T + whole_bias
            returns = (batch.returns - heads.config.return_shift) / heads.config.return_scale
            squared = (q.gather(1, batch.actions[:, None])[:, 0] - returns) ** 2
            cross_entropy = torch.nn.functional.cross_entropy(q, batch.actions, reduction="none")
            losses.append((squared + args.cql_weight * cross_entropy).mean())
        torch.stack(losses).mean().backward()
        optimizer.step()
        kept.append([parameter.detach().clone() for parameter in parameters])
    expected = [torch.stack(values).mean(dim=0) for values in zip(*kept[-3:])]
    fitted = fitter.fit(lambda step: rows)
    width = weight.shape[1]
    assert (expected[1] != 0).all()
    torch.testing.assert_close(fitted.q_weight[0, :-1, :width], expected[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fitted.q_weight[0, -1, :width], expected[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fitted.q_bias[0], expected[2], rtol=1e-3, atol=1e-4)
    # What carries the log-sum-exp of the rest is no parameter.
    assert (fitted.q_weight[0, :-1, width:] == 0).all() and (fitted.q_weight[0, -1, width:] == 1).all()


@pytest.mark.parametrize("few_words", [True, False])
@pytest.mark.parametrize("bias", ["scalar", "token"])
def test_a_policy_is_judged_over_the_whole_vocabulary(make_trainer, monkeypatch, bias, few_words):
    monkeypatch.setattr(action_vocabulary, "_WORDS_PER_BLOCK", 5)
    monkeypatch.setattr(action_vocabulary, "SMALL_VOCABULARY", 0 if few_words else 4096)
    trainer = make_trainer(**OPTIONS, value_head_bias=bias)
    heads, store, rows, betas = trainer.model.primary, trainer.data.store, np.array([5, 0, 30, 11]), (0.25, 1.0, 4.0)
    head = trainer.model.backbone.get_output_embeddings()
    weight, of_word = head.weight.detach().clone(), torch.randn(heads.config.vocab_size)
    words = torch.from_numpy(np.unique(store.action_tokens)).long()
    others = np.setdiff1d(np.arange(heads.config.vocab_size), words)
    for prior in (None, (weight, None), (weight, of_word)):
        fitter = HeadFitter(heads, store, trainer.args, prior=prior)
        fitted = fitter.fit(lambda step: rows[:2])
        whole, whole_bias = heads.q_weight[0].detach().clone(), heads.q_bias[0].detach().clone()
        if few_words:  # words that never occur have moved together
            whole[others] += fitted.q_weight[0, -1, : whole.shape[1]]
            whole[words] = fitted.q_weight[0, :-1, : whole.shape[1]]
            moved = fitted.q_bias[0]
            if bias == "token":
                whole_bias[others] += moved[-1]
                whole_bias[words] = moved[:-1]
            else:
                whole_bias = moved
        else:
            whole, whole_bias = fitted.q_weight[0], fitted.q_bias[0]
        losses = [[] for _ in betas]
        for row in rows:
            batch = store.collate([row])
            hidden = batch.states[batch.action_index]
            reference = 0.0 if prior is None else hidden @ prior[0].T + (0.0 if prior[1] is None else prior[1])
            for found, beta in zip(losses, betas):
                policy = (reference + beta * (hidden @ whole.T + whole_bias)).log_softmax(dim=-1)
                found += (-policy[torch.arange(len(batch.actions)), batch.actions]).tolist()
        expected = [np.mean(found) for found in losses]
        assert np.ptp(expected) > 0.05
        for _ in range(2):
            np.testing.assert_allclose(fitter.cross_entropies(fitted, rows, betas), expected, rtol=1e-5)


def test_the_prior_is_the_language_model(make_trainer):
    trainer = make_trainer(**OPTIONS)
    store = trainer.data.store
    fitter = HeadFitter(
        trainer.model.primary, store, trainer.args, prior=reference_head(trainer.model.backbone, store)
    )
    losses = []
    for row in (4, 9):
        batch = store.collate([row], tokens=True)
        logits = trainer.model.backbone(batch.input_ids).logits[0, batch.state_index[batch.action_index]]
        losses += torch.nn.functional.cross_entropy(logits, batch.actions, reduction="none").tolist()
    # With β near 0, Q says nothing.
    found = fitter.cross_entropies(fitter.initial, np.array([4, 9]), [1e-6])
    assert found[0] == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_value_head_does_not_see_the_additional_entries(make_fitter):
    fitter, heads = make_fitter(algorithm="ilql")
    fitted = fitter.fit(lambda step: np.arange(8))
    width = heads.config.hidden_size
    assert (fitted.v_weight[width:] == 0).all() and (fitted.v_weight[:width] != heads.v_weight).any()
    assert (fitter.policy_losses(fitted, np.arange(8)) < fitter.policy_losses(fitter.initial, np.arange(8))).all()
    # Each head reads the log-sum-exp of its own Q.
    assert torch.equal(fitted.q_weight[:, -1, width:], torch.eye(2))
    assert (fitted.target_q_weight[:, -1, :width] != 0).any()


def test_accuracy_lets_the_rest_win_as_one_word(make_fitter):
    fitter, _ = make_fitter()
    heads = copy.deepcopy(fitter.initial).requires_grad_(False)
    assert fitter.accuracy(heads, np.arange(32)) == pytest.approx(_accuracy(fitter, heads), abs=1e-12)
    heads.q_weight[0, -1, :-1] = 0
    heads.q_weight[0, -1, -1] = 100.0
    assert fitter.accuracy(heads, np.arange(32)) == 0


def _accuracy(fitter, heads):
    hits = []
    for row in range(32):
        batch = fitter.vocabulary.reduce(
            fitter.store.collate([row]), fitter.vocabulary.initial_others(np.array([row]))
        )
        q = batch.states[batch.action_index] @ heads.q_weight[0].T
        hits += (q.argmax(dim=-1) == batch.actions).tolist()
    return float(np.mean(hits))


def test_small_vocabularies_and_those_that_occur_stay_as_they_are(make_trainer, monkeypatch):
    trainer = make_trainer(**OPTIONS)
    heads: ValueHeads = trainer.model.primary
    assert ActionVocabulary.of(heads, trainer.data.store) is not None
    monkeypatch.setattr(action_vocabulary, "SMALL_VOCABULARY", heads.config.vocab_size)
    assert ActionVocabulary.of(heads, trainer.data.store) is None
    monkeypatch.setattr(action_vocabulary, "SMALL_VOCABULARY", 0)
    training = trainer.data.training
    trainer.data.store._actions = np.arange(heads.config.vocab_size)
    assert ActionVocabulary.of(heads, trainer.data.store) is None
    fitter = HeadFitter(heads, training, trainer.args)
    assert fitter.num_words < heads.config.vocab_size
