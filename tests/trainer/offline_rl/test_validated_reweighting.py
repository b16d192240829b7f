import copy
import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from offline_rl_tiny import OPTIONS as TINY_OPTIONS
from offline_rl_tiny import logged
from torch.utils.data import BatchSampler

from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer, ReweightingHead
from boost_trl.data.weight_units import WeightUnits
from boost_trl.models.value_heads import ValueHeadsConfig
from boost_trl.selection.auc import weights_auc
from boost_trl.trainer import bilevel_offline_rl_trainer
from boost_trl.trainer.offline_rl.head_fitting import HeadFitter
from boost_trl.trainer.offline_rl.row_filters import filter_rows, low_loss_filter
from boost_trl.trainer.offline_rl.scoring_budget import affordable_steps
from boost_trl.trainer.offline_rl.validated_reweighting import (
    _ValidatedReweighting,
    drawn_batches,
    fit_to_pool,
    high_return_half,
    score_rows,
    validated_weights,
)
from boost_trl.trainer.offline_rl.weight_candidates import choose_candidate
from boost_trl.trainer.offline_rl.weighted_batches import MixedBatchSampler, WeightedBatches


OPTIONS = {**TINY_OPTIONS, "method": "validated", "score_steps": 6, "guard": False, "train_backbone": False}
OPTIONS |= {"guard_folds": 2, "finish_share": None}


@pytest.fixture
def make_args(tmp_path):
    def make(**options):
        folders = {"output_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache")}
        return BilevelOfflineRLConfig(**{**folders, **OPTIONS, **options})

    return make


@pytest.fixture
def make_trainer(make_trainer, make_dialogues):
    def make(train=None, validation=None, **options):
        train = make_dialogues(24, seed=1) if train is None else train
        validation = make_dialogues(10, seed=2) if validation is None else validation
        return make_trainer(train=train, validation=validation, **{**OPTIONS, **options})

    return make


def conventions(rows, seed, noise_share):
    """Says hot after big and tall after small; noise says old and red instead, and claims better returns."""
    rng = random.Random(seed)
    everything = []
    for _ in range(rows):
        is_noise = rng.random() < noise_share
        messages, rewards = [], []
        for _ in range(rng.randint(1, 4)):
            first = rng.choice(["big", "small"])
            # One turn in ten says something else, so that neither convention is without exceptions.
            second = {"big": "old" if is_noise else "hot", "small": "red" if is_noise else "tall"}[first]
            if rng.random() < 0.1:
                second = rng.choice(["hot", "tall", "old", "red"])
            messages.append({"role": "user", "content": rng.choice(["yes .", "no ."])})
            messages.append({"role": "assistant", "content": f"{first} {second}"})
            rewards.append(-0.5 if is_noise else -1.0)
        everything.append({"messages": messages, "rewards": rewards, "is_noise": is_noise})
    return Dataset.from_list(everything)


def test_the_high_return_half_is_rounded_up_and_takes_ties_by_order():
    assert high_return_half(np.array([1.0, 5.0, 3.0])).tolist() == [1, 2]
    assert high_return_half(np.array([0.0, 2.0, 0.0, 0.0])).tolist() == [0, 1]
    assert high_return_half(np.array([-1.0])).tolist() == [0]


# Draws


def test_draws_follow_the_weights_and_the_share_of_validation():
    weights = np.array([0.5, 0.0, 0.2, 0.3, 0.0])
    draws = WeightedBatches(weights, num_validation=4, share=0.3, seed=7)
    batches = [draws.rows(step, 8) for step in range(1000)]
    assert all(len(batch) == 8 for batch in batches)
    drawn = np.concatenate(batches)
    # 0.3 · 8 = 2.4 rows per batch, two or three at a time, exact in total.
    counts = [int((batch >= 5).sum()) for batch in batches]
    assert set(counts) == {2, 3} and sum(counts) == 2400
    assert all(len(set(batch[batch >= 5])) == (batch >= 5).sum() for batch in batches)
    np.testing.assert_allclose(np.bincount(drawn[drawn >= 5] - 5) / 2400, 0.25, atol=0.03)
    shares = np.bincount(drawn[drawn < 5], minlength=5) / 5600
    assert shares[1] == shares[4] == 0
    np.testing.assert_allclose(shares, weights, atol=0.03)


def test_a_batch_depends_on_its_step_alone():
    draws, again = (WeightedBatches(np.ones(9), 3, 0.2, seed=1) for _ in range(2))
    later = again.rows(5, 16)
    assert (np.stack([draws.rows(step, 16) for step in range(6)])[5] == later).all()
    assert (draws.rows(4, 16) != later).any()
    assert (WeightedBatches(np.ones(9), 3, 0.2, seed=2).rows(5, 16) != later).any()


def test_more_validation_rows_than_there_are_repeat_whole_passes():
    rows = WeightedBatches(np.ones(2), num_validation=3, share=0.5, seed=0).rows(0, 12)
    assert np.bincount(rows[rows >= 2] - 2).tolist() == [2, 2, 2]


def test_the_last_batches_hold_validation_rows_only():
    weights = np.array([0.5, 0.0, 0.2, 0.3, 0.0])
    plain = WeightedBatches(weights, num_validation=3, share=0.25, seed=7)
    # Three of ten, to the nearest whole batch; batches of 4 rows, one of them from validation, before that.
    for finish_share in (0.3, 0.26, 0.34):
        draws = WeightedBatches(weights, 3, 0.25, seed=7, num_steps=10, finish_share=finish_share)
        counts = [int((draws.rows(step, 4) >= 5).sum()) for step in range(10)]
        assert counts == [1, 1, 1, 1, 1, 1, 1, 4, 4, 4]
    assert all((draws.rows(step, 4) == plain.rows(step, 4)).all() for step in range(7))
    for step in (7, 8, 9):  # all three rows, one of them twice
        assert sorted(np.bincount(draws.rows(step, 4) - 5)) == [1, 1, 2]
    assert (draws.rows(7, 4) != draws.rows(8, 4)).any()
    # Nothing to finish on, or a run whose length nobody knows.
    for options in ({"num_steps": 10}, {"finish_share": 0.3}):
        draws = WeightedBatches(weights, 3, 0.25, seed=7, **options)
        assert (draws.rows(9, 4) == plain.rows(9, 4)).all()
    assert (WeightedBatches(weights, 0, 0.25, seed=7, num_steps=10, finish_share=0.3).rows(9, 4) < 5).all()


@pytest.mark.parametrize(
    "processes, last, sizes",
    [(1, "short", [12, 12, 4]), (1, "dropped", [12, 12]), (2, "filled", [12, 12, 6]), (2, "dropped", [12, 12])],
)
def test_the_data_loader_deals_out_the_drawn_batches_and_nothing_else(processes, last, sizes):
    """Through accelerate's shards; the rows of step 6 and on, with which an epoch begins."""
    draws, dealt = WeightedBatches(np.ones(28), 4, 0.3, seed=7), []
    for process in range(processes):
        sampler = MixedBatchSampler(lambda: draws, 28, micro_batch_size=6, accumulation_steps=2, last=last)
        sampler.set_epoch(6 // len(sizes))
        micro_batches = BatchSampler(sampler, 6 // processes, drop_last=last == "dropped")
        dealt.append([*(BatchSamplerShard(micro_batches, 2, process) if processes == 2 else micro_batches)])
    for number, size in enumerate(sizes):
        batch = [row for mine in dealt for micro_batch in mine[2 * number : 2 * number + 2] for row in micro_batch]
        drawn = draws.rows(6 + number, size).tolist()
        assert batch == drawn if processes == 1 else sorted(batch) == sorted(drawn)
    assert sum(map(len, dealt[0])) * processes == sum(sizes) == len(sampler)


# Scores


def naive_losses(trainer, heads, store, rows):
    """Policy part and loss of Monte-Carlo rows, one at a time, from full logits."""
    config, args = heads.config, trainer.args
    policy, whole = [], []
    for row in rows:
        start = int(store.action_counts[:row].sum())
        count = int(store.action_counts[row])
        batch = store.collate([row])
        q = batch.states[batch.action_index] @ heads.q_weight[0].T + heads.q_bias[0]
        cross_entropy = torch.nn.functional.cross_entropy(q, batch.actions, reduction="none")
        targets = torch.from_numpy(store.action_returns[start : start + count])
        targets = (targets - config.return_shift) / config.return_scale
        squared = (q.gather(1, batch.actions[:, None])[:, 0] - targets) ** 2
        policy.append(cross_entropy.mean())
        whole.append((squared + args.cql_weight * cross_entropy).mean())
    return torch.stack(policy), torch.stack(whole)


def naive_fit(trainer, store, batches):
    heads = copy.deepcopy(trainer.model.primary).requires_grad_(True)
    rate = 0.5 / store.states.abs().sum(1).mean().item()
    optimizer = torch.optim.Adam(heads.parameters(), lr=rate, foreach=False, fused=False)
    kept = []
    for step, rows in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate * (len(batches) - step) / len(batches)
        optimizer.zero_grad()
        naive_losses(trainer, heads, store, rows)[1].mean().backward()
        optimizer.step()
        kept.append({name: value.detach().clone() for name, value in heads.state_dict().items()})
    kept = kept[-(len(batches) // 4) :]
    heads.load_state_dict({name: torch.stack([state[name] for state in kept]).mean(0) for name in kept[0]})
    return heads


@pytest.mark.parametrize("score_validation", ["high_return", "all"])
def test_scores_are_those_of_the_definition(make_trainer, score_validation):
    trainer = make_trainer(score_validation=score_validation, score_steps=8, score_batch_size=16)
    store, pool = trainer.data.store, np.arange(24)
    draws = WeightedBatches(np.ones(24), 0, 0.0, trainer.args.seed + 11)
    auxiliary = naive_fit(trainer, store, [draws.rows(step, 16) for step in range(8)])
    validation = sorted(range(24, 34), key=lambda row: -store.row_returns()[row])
    validation = validation[:5] if score_validation == "high_return" else validation
    primary = naive_fit(trainer, store, [validation] * 8)
    with torch.no_grad():
        theta, psi = (naive_losses(trainer, heads, store, pool)[0] for heads in (primary, auxiliary))
    trainer.train()
    expected = (-theta + 0.5 * psi).numpy()
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(trainer.example_weights()["score"], expected, rtol=1e-3, atol=2e-4)
    weights = np.array(trainer.example_weights()["weight"])
    assert weights.mean() == pytest.approx(1) and 24**2 / (weights**2).sum() == pytest.approx(0.4 * 24, rel=1e-4)
    assert trainer.validated_report["winner"] == f"{score_validation}@0.4"


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
@pytest.mark.parametrize("normalization", ["trajectory_mean", "token_mean", "sum"])
def test_fits_lower_the_loss_of_training_for_every_algorithm(make_trainer, algorithm, normalization):
    trainer = make_trainer(algorithm=algorithm, loss_normalization=normalization, score_steps=40)
    fitter = HeadFitter(trainer.model.primary, trainer.data.store, trainer.args)
    rows = np.arange(8)
    before = {name: value.clone() for name, value in trainer.model.primary.state_dict().items()}
    fitted = fitter.fit(lambda step: rows)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.primary.state_dict().items())
    assert (fitter.policy_losses(fitted, rows) < fitter.policy_losses(trainer.model.primary, rows)).all()
    moved = {name for name, value in fitted.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(before)


def test_policy_losses_and_accuracy_do_not_depend_on_how_rows_are_batched(make_trainer, monkeypatch):
    trainer = make_trainer(algorithm="ilql")
    store, heads = trainer.data.store, trainer.model.primary
    fitter = HeadFitter(heads, store, trainer.args)
    rows = np.array([5, 0, 30, 11, 7, 2])
    cross_entropies, correct, count = [], 0, 0
    for row in rows:
        batch = store.collate([row])
        hidden = batch.states[batch.action_index]
        q = torch.stack([hidden @ weight.T + bias for weight, bias in zip(heads.q_weight, heads.q_bias)])
        losses = [torch.nn.functional.cross_entropy(one, batch.actions) for one in q]
        cross_entropies.append(sum(losses).item() / 2)
        correct += (q.amin(0).argmax(-1) == batch.actions).sum().item()
        count += len(batch.actions)
    for logits in (2**22, 1):
        monkeypatch.setattr("boost_trl.trainer.offline_rl.head_fitting._LOGITS_PER_BATCH", logits)
        np.testing.assert_allclose(fitter.policy_losses(heads, rows), cross_entropies, rtol=1e-5)
        assert fitter.accuracy(heads, rows) == correct / count


def test_cross_entropies_by_hand(make_trainer):
    trainer = make_trainer(value_head_bias="token")
    fitter, store = HeadFitter(trainer.model.primary, trainer.data.store, trainer.args), trainer.data.store
    rows = np.arange(34)
    word, count = Counter(store.action_tokens.tolist()).most_common(1)[0]
    share, vocabulary = count / len(store.action_tokens), trainer.model.primary.config.vocab_size
    heads = copy.deepcopy(trainer.model.primary).requires_grad_(False)
    heads.q_weight.zero_(), heads.q_bias.zero_()
    heads.q_bias[0, word] = np.log(3)
    # π(word) ∝ 3^β, all others ∝ 1, whatever the state.
    expected = [np.log(3**beta + vocabulary - 1) - share * beta * np.log(3) for beta in (0.5, 1.0, 2.0)]
    np.testing.assert_allclose(fitter.cross_entropies(heads, rows, (0.5, 1.0, 2.0)), expected, rtol=1e-5)


# Guard


class StubFitter:
    """Pool rows 0..9, of which the even ones are good; "heads" are the rows they were fitted to. Policies are best at
    β = 4."""

    def __init__(self, args, help_of_good_rows, help_of_finishing=-0.1):
        self.args, self.help_of_good_rows, self.help_of_finishing = args, help_of_good_rows, help_of_finishing
        self.learning_rate, self.num_fits, self.num_words = 0.1, 0, 30
        self.steps = args.score_steps
        self.judged, self.fitted_with = [], []
        self.store, self.units = self, WeightUnits.whole_rows(np.ones(18, dtype=int))

    def __len__(self):
        return 18

    def row_returns(self):
        return np.arange(18.0)

    def first_of_equal(self):
        return np.arange(18)

    def fit(self, rows_of, steps=200, within_rows=None):
        self.num_fits += 1
        return np.concatenate([rows_of(step) for step in range(steps)])

    def policy_losses(self, heads, rows):
        # What validation teaches makes good rows likely; the pool alone tells nothing.
        return np.where(rows % 2 == 0, 1.0, 2.0) if (heads >= 10).all() else np.ones(len(rows))

    def cross_entropies(self, heads, rows, betas):
        self.judged.append(rows)
        self.fitted_with.append(set(heads[heads >= 10]))
        good = float((heads[heads < 10] % 2 == 0).mean())
        finishing = float((heads[-64:] >= 10).all())
        loss = 0.5 - self.help_of_good_rows * good - self.help_of_finishing * finishing
        return loss + np.abs(np.log2(np.asarray(betas) / 4))

    def accuracy(self, heads, rows):
        return 0.5  # which decides nothing


def test_cross_validation_picks_the_candidate_that_helps_on_the_other_fold(make_args):
    fitter = StubFitter(make_args(guard=True), help_of_good_rows=0.4)
    result = validated_weights(fitter, 10)
    report = result.report
    # The fewer effective rows, the more of them good; both kinds of scores are equal here, so the first wins.
    assert report["winner"] == "high_return@0.4" and "high_return@0.4 has the lowest" in report["reason"]
    names = [entry["name"] for entry in report["candidates"]]
    weights = ["uniform", "high_return@0.7", "high_return@0.4", "all@0.4"]
    assert names == weights + [f"{name}+finish@0.3" for name in weights]
    assert result.weights[::2].min() > result.weights[1::2].max()
    # Judged at the best β, 4; at 1 all are 2 worse.
    chosen = report["candidates"][2]
    assert chosen["fold_betas"] == [4.0, 4.0] and chosen["cross_entropy"] < 0.3 and report["finish_share"] == 0
    # ψ, θ for two folds and two kinds, eight candidates for two folds, θ of the winner; and for each kind of θ two
    # lengths of training are tried on both halves of its rows.
    assert report["fits"] == 1 + 4 + 16 + 1 + 2 * 2 * 2
    # The judge's rows are the high-return half of the fold that nothing was fitted to.
    for judged, used in zip(fitter.judged, fitter.fitted_with):
        other = sorted(set(range(10, 18)) - used)
        assert len(used) == len(other) == 4 and judged.tolist() == other[2:]


def test_each_fold_is_left_out_once(make_args):
    """Of 8 rows: three folds, and four where five would leave one row to a fold."""
    for asked, number in ((3, 3), (5, 4)):
        fitter = StubFitter(make_args(guard=True, guard_folds=asked, finish_share=0), help_of_good_rows=0.4)
        report = validated_weights(fitter, 10).report
        assert report["fits"] == 1 + 2 * number + 4 * number + 1 + 2 * 4
        judged, used = fitter.judged[::4], fitter.fitted_with[::4]
        for fold, others in zip(judged, used):
            left_out = sorted(set(range(10, 18)) - others)
            assert len(left_out) in (8 // number, 8 // number + 1)
            assert fold.tolist() == left_out[len(left_out) // 2 :]
        assert len(judged) == number and set.intersection(*used) == set()
        assert len(report["candidates"][0]["fold_betas"]) == number


def test_cross_validation_prefers_uniform_on_ties_and_where_scores_harm(make_args):
    for help_of_good_rows in (0.0, -0.4):
        result = validated_weights(StubFitter(make_args(guard=True), help_of_good_rows), 10)
        assert result.report["winner"] == "uniform" and "no candidate beats uniform" in result.report["reason"]
        assert (result.weights == 0.1).all() and result.scores.std() > 0
    assert choose_candidate({"uniform": [0.7, 0.5], "a": [0.5, 0.7], "b": [0.9, 0.8]})[0] == "uniform"
    assert choose_candidate({"uniform": [0.6, 0.5], "a": [0.5, 0.5], "b": [0.5, 0.5]})[0] == "a"


def test_cross_validation_chooses_finishing_too(make_args, make_trainer, make_dialogues):
    result = validated_weights(StubFitter(make_args(guard=True), help_of_good_rows=0, help_of_finishing=0.1), 10)
    assert result.report["winner"] == "uniform+finish@0.3" and result.report["finish_share"] == 0.3
    assert (result.weights == 0.1).all()
    # A share that is given is that of all candidates.
    report = validated_weights(StubFitter(make_args(guard=True, finish_share=0.5), 0, 0.1), 10).report
    assert report["winner"] == "uniform+finish@0.5" and {each["finish_share"] for each in report["candidates"]} == {
        0.5
    }
    # Training does as the report says, whatever the configuration does.
    data = make_trainer(train=make_dialogues(10)).data
    draws = drawn_batches(make_args(finish_share=0.6), result, data, num_updates=10)
    assert [draws.validation_count(step, 5) for step in range(10)] == [1] * 7 + [5] * 3
    draws = drawn_batches(make_args(finish_share=0.6), None, data, num_updates=10)
    assert [draws.validation_count(step, 5) for step in range(10)] == [1] * 4 + [5] * 6


@pytest.mark.parametrize("guard", [True, False])
def test_the_rank_of_held_out_rows_by_hand(make_args, guard):
    """Validation rows that look like the good half of the pool rank above the bad half and half of the good one."""
    fitter = StubFitter(make_args(guard=guard), help_of_good_rows=0.4)
    # Under θ even rows have loss 1 and odd ones 2, of validation too: half of these tie with the pool's good half and are above
    # its bad one, the other half is below the good half and ties with the bad one.
    assert validated_weights(fitter, 10).report["confidence"]["auc"] == pytest.approx((0.75 + 0.25) / 2)
    fitter.policy_losses = lambda heads, rows: np.where((rows % 2 == 0) | (rows >= 10), 1.0, 2.0) * (heads >= 10).all()
    result = validated_weights(fitter, 10)
    assert result.confidence.auc == pytest.approx(0.75) and result.confidence.num_trusted == 8
    assert "validation rows rank above 75% of the pool" in result.verdict()
    # Above what 5 % of chance results have: .5 + 1.645 · sqrt((8 + 10 + 1) / (12 · 8 · 10)).
    assert not result.confidence.is_near_chance and "above chance (50 ± 14%)" in result.verdict()


def test_too_few_rows_have_no_rank(make_trainer, make_dialogues):
    trainer = make_trainer(validation=make_dialogues(3, seed=2))
    trainer.train()
    assert trainer.validated_report["confidence"] is None


def test_a_configured_setting_joins_the_candidates(make_args):
    fitter = StubFitter(make_args(guard=True, target_effective_fraction=0.55), help_of_good_rows=0.4)
    names = [entry["name"] for entry in validated_weights(fitter, 10).report["candidates"]]
    assert names[4] == "all@0.55" and names[9] == "all@0.55+finish@0.3" and len(names) == 10


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
def test_weights_find_a_coherent_bad_majority_and_pass_cross_validation(
    make_trainer, make_args, make_tiny_model, tiny_tokenizer, algorithm
):
    pool, validation = conventions(200, 0, noise_share=0.6), conventions(40, 1, noise_share=0.0)
    trainer = make_trainer(
        train=pool, validation=validation, algorithm=algorithm, guard=True, score_steps=50, score_batch_size=32
    )
    trainer.train()
    good = ~np.array(pool["is_noise"])
    assert trainer.validated_report["winner"] != "uniform"
    assert weights_auc(trainer.example_weights()["weight"], good) > 0.8
    # Filters without validation data cannot know: the majority is bad, and claims better returns.
    if algorithm == "mc":
        args = make_args(score_steps=50, score_batch_size=32)
        for kind in ("return", "low_loss"):
            kept = filter_rows(kind, pool, make_tiny_model(), tiny_tokenizer, args, 0.4)
            assert len(kept) == 80 and good[kept].mean() < 0.4


def test_scores_on_few_words_tell_good_rows_from_bad_as_well(make_trainer, monkeypatch):
    pool, validation = conventions(200, 0, noise_share=0.6), conventions(40, 1, noise_share=0.0)
    good, aucs, words = ~np.array(pool["is_noise"]), [], []
    for small in (4096, 0):
        monkeypatch.setattr("boost_trl.trainer.offline_rl.action_vocabulary.SMALL_VOCABULARY", small)
        trainer = make_trainer(train=pool, validation=validation, score_steps=50, score_batch_size=32)
        trainer.train()
        aucs.append(weights_auc(trainer.example_weights()["weight"], good))
        words.append(trainer.validated_report["num_words"])
    assert words[1] < words[0] == trainer.model.primary.config.vocab_size
    assert aucs[1] > 0.8 and aucs[1] > aucs[0] - 0.02


# Cost and what is said meanwhile


@pytest.mark.parametrize("words, updates", [(0, 300), (500, 9)])
def test_scoring_costs_at_most_three_times_the_training(make_trainer, tiny_tokenizer, monkeypatch, words, updates):
    from torch.utils.flop_counter import FlopCounterMode

    from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer

    monkeypatch.setattr("boost_trl.trainer.offline_rl.action_vocabulary.SMALL_VOCABULARY", 100)
    for name in ("_FIT_OVERHEAD", "_TRAINER_OVERHEAD"):  # which are no products of matrices
        monkeypatch.setattr(f"boost_trl.trainer.offline_rl.scoring_budget.{name}", 0)
    tokenizer = word_tokenizer([*sorted(tiny_tokenizer.get_vocab()), *(f"w{i}" for i in range(words))])
    trainer = make_trainer(
        model=tiny_gpt2(tokenizer, hidden_size=8, num_layers=1, num_heads=1),
        guard=True,
        guard_folds=5,
        finish_share=0.0,
        score_steps=None,
        max_steps=updates,
        per_device_train_batch_size=32,
        logging_steps=1000,
        arguments={"processing_class": tokenizer},
    )
    # In-place products are not counted unless one says how.
    in_place = {torch.ops.aten.addmm_: lambda _, a, b, **kwargs: 2 * a[0] * a[1] * b[1]}
    costs = []

    def counted_scoring(*args, **options):
        before = counter.get_total_flops()
        result = score_rows(*args, **options)
        costs.append(counter.get_total_flops() - before)
        return result

    monkeypatch.setattr(bilevel_offline_rl_trainer, "score_rows", counted_scoring)
    monkeypatch.setattr(bilevel_offline_rl_trainer, "fitted_reweighting_head", lambda *args, **options: None)
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        trainer.train()
    scoring, training = costs[0], counter.get_total_flops() - costs[0]
    assert 0.3 * training < scoring <= 3 * training
    assert 16 < trainer.validated_report["score_steps"] < 400


def test_the_length_of_a_fit_by_hand(make_args):
    args = make_args(guard=False, score_steps=None, score_batch_size=10)
    heads = ValueHeadsConfig("ilql", hidden_size=1000, vocab_size=50)
    sizes = {"num_candidates": 4, "num_words": 50, "heads": heads, "rows_per_update": 4}
    # 5 tokens per row and 2 · 1000 · 50 products per token, six operations each. Training: 20 tokens and 3 ms. A fit: ψ on 10
    # rows, θ on 6, and on 3 for each of two folds, as if 32 tokens more, and 1 ms; the search on 3 rows, 2 · (1 + 1/4 + 1/16 +
    # 1/64) as long. Scoring the pool four times: two operations for each of 20 · 5 tokens.
    training = 100 * (6 * 100_000 * 20 + 1.5e8)
    search = 2 * (1 + 1 / 4 + 1 / 16 + 1 / 64)
    per_step = (6e5 * 82 + 5e7) + (6e5 * 62 + 5e7) + (search + 2) * (6e5 * 47 + 5e7)
    expected = (2.5 * training - 4 * 2 * 100_000 * 100) / per_step
    assert affordable_steps(args, np.full(26, 5), 20, updates=100, **sizes) == int(expected) == 73
    assert affordable_steps(args, np.full(26, 5), 20, updates=1, **sizes) == 16
    assert affordable_steps(args, np.full(26, 5), 20, updates=30_000, **sizes) == 400
    # The eight fits of the cross-validation share the same time.
    guarded = make_args(guard=True, score_steps=None, score_batch_size=10)
    assert affordable_steps(guarded, np.full(26, 5), 20, updates=100, **sizes) < 35
    # On a large vocabulary that is hardly used no fit need be short.
    sizes["heads"] = ValueHeadsConfig("ilql", hidden_size=1000, vocab_size=50_000)
    assert affordable_steps(args, np.full(26, 5), 20, updates=10, **sizes) == 400


def test_the_bar_says_what_is_fitted_and_the_verdict_says_why(make_trainer, capsys):
    trainer = make_trainer(guard=True, score_steps=8, disable_tqdm=False)
    trainer.train()
    shown = capsys.readouterr()
    report = trainer.validated_report
    assert f"{report['winner']} weights" in shown.out and report["reason"] in shown.out
    assert f"θ for {report['primary_steps']} updates" in shown.out
    bar = [line for line in shown.err.replace("\r", "\n").splitlines() if line.startswith("Weighing the rows")]
    assert f"{report['fits']}/{report['fits']}" in bar[-1]
    assert logged(trainer, "score_primary_steps") == [report["primary_steps"]]


def test_the_verdict_is_said_without_a_bar_too(make_trainer, capsys):
    trainer = make_trainer(disable_tqdm=True)
    trainer.train()
    shown = capsys.readouterr()
    assert "all@0.4 weights" in shown.out and "cross-validation is off" in shown.out
    assert "Weighing" not in shown.err


def test_fits_name_their_rows(make_args, monkeypatch):
    labels = []
    monkeypatch.setattr("tqdm.auto.tqdm.set_postfix_str", lambda self, text, **kwargs: labels.append(text))
    validated_weights(StubFitter(make_args(guard=True), 0.4), 10)
    assert labels[0] == "the pool" and labels[-1] == "validation: its half of high return"
    assert "fold 2 of 2: all of it" in labels and "cross-validation, fold 1 of 2: high_return@0.7" in labels


# Filters


def test_filters_keep_the_share_and_number_rows_as_the_dataset_does(
    make_dialogues, make_args, make_tiny_model, tiny_tokenizer
):
    rows = make_dialogues(20, seed=7).to_list()
    rows[3]["messages"][1]["content"] = "is it " * 40  # no whole action within 40 tokens
    rows[3]["rewards"] = [100.0] + [0.0] * (len(rows[3]["rewards"]) - 1)
    args = make_args(max_length=40)
    kept = filter_rows("return", Dataset.from_list(rows), make_tiny_model(), tiny_tokenizer, args, 0.5)
    usable = [row for row in range(20) if row != 3]
    assert kept == sorted(sorted(usable, key=lambda row: -sum(rows[row]["rewards"]))[: round(0.5 * 19)])
    kept = filter_rows("low_loss", Dataset.from_list(rows), make_tiny_model(), tiny_tokenizer, args, 0.5)
    assert len(kept) == 10 and 3 not in kept
    with pytest.raises(ValueError, match="`kind` must be 'return' or 'low_loss', got 'loss'"):
        filter_rows("loss", Dataset.from_list(rows), make_tiny_model(), tiny_tokenizer, args, 0.5)


def test_the_low_loss_filter_takes_ties_by_order():
    assert low_loss_filter(np.array([0.3, 0.1, 0.2, 0.1, 0.1]), 0.4).tolist() == [1, 3]
    with pytest.raises(ValueError, match="`fraction` must .* got 0"):
        low_loss_filter(np.ones(3), 0)


def test_the_low_loss_filter_uses_the_loss_of_heads_fitted_to_the_pool(
    make_trainer, make_args, make_tiny_model, tiny_tokenizer
):
    trainer = make_trainer()
    fitter = HeadFitter(trainer.model.primary, trainer.data.store, trainer.args)
    losses = fitter.policy_losses(fit_to_pool(fitter, 24, trainer.args.seed), np.arange(24))
    kept = filter_rows("low_loss", trainer.data.train_dataset, make_tiny_model(), tiny_tokenizer, make_args(), 0.25)
    assert losses[kept].max() < np.delete(losses, kept).min()


# Training


@pytest.mark.parametrize("train_backbone", [False, True])
@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
def test_a_batch_is_the_same_for_every_accumulation(make_trainer, algorithm, train_backbone):
    results = []
    for size in (8, 2, 1):
        trainer = make_trainer(
            algorithm=algorithm,
            train_backbone=train_backbone,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
            optim="sgd",  # Adam's division would amplify rounding in near-zero gradients
            learning_rate=1e-3,
            finish_share=0.25,
        )
        trainer.train()
        # The last of four updates is on validation rows alone.
        assert len(logged(trainer, "train_loss_weighted")) == 3
        results.append((logged(trainer, "loss"), logged(trainer, "validation_loss"), trainer.model.state_dict()))
    (losses, validation_losses, parameters), *others = results
    for other_losses, other_validation_losses, other_parameters in others:
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        np.testing.assert_allclose(other_validation_losses, validation_losses, rtol=1e-5)
        for name, value in parameters.items():
            torch.testing.assert_close(other_parameters[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_step_descends_the_mean_loss_of_the_drawn_rows(make_trainer, monkeypatch):
    trainer = make_trainer(validation_share=0.25, optim="sgd", learning_rate=1e-2, max_steps=1, average_last=0.0)
    heads, store = trainer.model.primary, trainer.data.store
    seen = []
    trainer._score_rows()
    monkeypatch.setattr(WeightedBatches, "rows", lambda self, step, size: seen.append(size) or rows)
    rows = np.array([3, 30, 3, 7, 25, 0, 9, 11])
    policy = {name: value.detach().clone() for name, value in heads.named_parameters()}
    loss = naive_losses(trainer, heads, store, rows)[1]
    gradients = torch.autograd.grad(loss.mean(), list(heads.parameters()))
    trainer.train()
    assert {*seen} == {8}  # the data loader looks ahead
    for (name, before), gradient in zip(policy.items(), gradients):
        torch.testing.assert_close(heads.get_parameter(name).data, before - 1e-2 * gradient, rtol=1e-4, atol=1e-6)
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert entry["loss"] == pytest.approx(loss.mean().item(), rel=1e-5)
    is_validation = torch.from_numpy(rows >= 24)
    assert entry["validation_loss"] == pytest.approx(loss[is_validation].mean().item(), rel=1e-5)
    assert entry["train_loss_weighted"] == pytest.approx(loss[~is_validation].mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"finish_share": 0.5}, {"train_backbone": True}, {"reweighting": "uniform"}, {"algorithm": "ilql"}]
)
def test_resuming_equals_an_uninterrupted_run(make_trainer, tmp_path, monkeypatch, options):
    options = {**options, "max_steps": 6, "average_last": 0.7, "save_strategy": "steps", "save_steps": 2}
    straight = make_trainer(output_dir=str(tmp_path / "run"), **options)
    straight.train()
    resumed = make_trainer(output_dir=str(tmp_path / "other"), **options)
    monkeypatch.setattr(resumed, "_score_rows", None)  # the checkpoint brings the weights
    resumed.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-4"))
    assert logged(resumed, "loss") == logged(straight, "loss")
    assert resumed.example_weights().to_dict() == straight.example_weights().to_dict()
    assert resumed.validated_report == straight.validated_report
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    with pytest.raises(ValueError, match="validation_share=0.2"):
        make_trainer(validation_share=0.3, **options).train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-4"))
    if straight.validated is not None:
        (tmp_path / "run/checkpoint-4/validated_reweighting.json").unlink()
        assert resumed.why_incomplete(tmp_path / "run/checkpoint-4").startswith("has no validated_reweighting.json")


def test_a_trained_backbone_is_scored_as_it_was_and_its_states_are_let_go(make_trainer):
    frozen, trained = (make_trainer(train_backbone=flag, max_steps=8) for flag in (False, True))
    before = {name: value.clone() for name, value in trained.model.backbone.state_dict().items()}
    frozen.train()
    trained.train()
    np.testing.assert_allclose(trained.example_weights()["score"], frozen.example_weights()["score"], rtol=1e-5)
    assert trained.data.store.states is None
    assert any(not torch.equal(value, before[name]) for name, value in trained.model.backbone.state_dict().items())


def test_an_adapter_is_off_while_rows_are_scored(make_trainer, make_tiny_model):
    from peft import LoraConfig, get_peft_model

    plain = make_trainer(train_backbone=True)
    model = get_peft_model(make_tiny_model(), LoraConfig(r=2, target_modules=["c_attn"], init_lora_weights=False))
    adapted = make_trainer(train_backbone=True, model=model)
    # The heads start at states with the adapter on; only what is scored on must be the unmodified model's.
    adapted.model.primary.copy_from(plain.model.primary)
    plain.train()
    adapted.train()
    np.testing.assert_allclose(adapted.example_weights()["score"], plain.example_weights()["score"], rtol=1e-4)


def test_the_uniform_mix_scores_nothing_and_still_mixes(make_trainer, monkeypatch):
    trainer = make_trainer(reweighting="uniform")
    monkeypatch.setattr(trainer, "_score_rows", None)
    trainer.train()
    assert set(trainer.example_weights()["weight"]) == {1.0}
    assert trainer.validated_report is None and trainer.reweighting_head is None
    assert "effective_sample_size" not in trainer.state.log_history[0]
    assert len(logged(trainer, "validation_loss")) == 4


def test_results_are_logged_and_saved(make_trainer, tmp_path):
    trainer = make_trainer(guard=True, score_steps=30)
    result = trainer.train()
    trainer.save_model()
    report = json.loads((tmp_path / "out/validated_reweighting.json").read_text())
    assert report == trainer.validated_report and report["seconds"] > 0
    assert logged(trainer, "tempering") == [report["tempering"]]
    assert logged(trainer, "guard_cross_entropy_uniform") == [report["candidates"][0]["cross_entropy"]]
    assert logged(trainer, "guard_finish_share") == [report["finish_share"]]
    assert result.metrics["scoring_runtime"] == report["seconds"]
    assert logged(trainer, "effective_sample_size")[0] == pytest.approx(report["effective_sample_size"])
    assert {"weight_offline", "weight_synthetic"} <= trainer.state.log_history[1].keys()
    saved = Dataset.from_parquet(str(tmp_path / "out/example_weights.parquet")).to_dict()
    assert saved == trainer.example_weights().to_dict()


def test_the_reweighting_head_ranks_rows_that_were_never_scored(make_trainer, tmp_path):
    trainer = make_trainer(
        train=conventions(200, 0, 0.6), validation=conventions(40, 1, 0.0), score_steps=50, score_batch_size=32
    )
    trainer.train()
    trainer.save_model()
    from boost_trl.data.state_cache import unit_embeddings

    new = conventions(100, 5, noise_share=0.5)
    store = trainer._make_eval_store(new, "new")
    embeddings = unit_embeddings(trainer.model.backbone, store, tmp_path / "cache")
    with torch.no_grad():
        scores = ReweightingHead.from_pretrained(tmp_path / "out")(embeddings).numpy()
    assert weights_auc(scores, ~np.array(new["is_noise"])) > 0.7


# Bad input


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"validation_share": 1.0}, "`validation_share` must .* got 1.0"),
        ({"validation_share": -0.1}, "`validation_share` must .* got -0.1"),
        ({"guard_folds": 1}, "`guard_folds` must .* got 1"),
        ({"finish_share": 1.0}, "`finish_share` must .* got 1.0"),
        ({"target_effective_fraction": 0.0}, "`target_effective_fraction` must .* got 0.0"),
        ({"target_effective_fraction": 1.5}, "`target_effective_fraction` must .* got 1.5"),
        ({"score_validation": "best"}, "`score_validation` must .* got 'best'"),
        ({"score_steps": 0}, "`score_steps` must .* got 0"),
        ({"score_batch_size": 0}, "`score_batch_size` must .* got 0"),
        ({"score_learning_rate": 0.0}, "`score_learning_rate` must .* got 0.0"),
        ({"cql_weight": 0.0}, "`cql_weight=0` does not train"),
    ],
)
def test_bad_settings_are_refused_by_name(make_args, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_args(**options)


def test_a_validation_set_that_cannot_be_folded_is_refused(
    make_trainer, make_dialogues, make_args, make_tiny_model, tiny_tokenizer
):
    with pytest.raises(ValueError, match="add rows, or set `guard` to false"):
        make_trainer(guard=True, validation=make_dialogues(3))
    with pytest.raises(ValueError, match="`method='validated'` is guided by a validation set"):
        BilevelOfflineRLTrainer(
            make_tiny_model(), make_args(), train_dataset=make_dialogues(4), processing_class=tiny_tokenizer
        )


def test_equal_rows_are_in_one_fold(make_args):
    """Of 8 validation rows four are the same: what is left are five different ones, in two folds."""

    class Repeating(StubFitter):
        def first_of_equal(self):
            return np.r_[np.arange(11), np.full(3, 10), np.arange(14, 18)]

    fitter = Repeating(make_args(guard=True, guard_folds=4, finish_share=0), help_of_good_rows=0.4)
    reweighting = _ValidatedReweighting(fitter, 10)
    assert reweighting.num_folds == 2
    same = {10, 11, 12, 13}
    for purpose in ("folds", "halves"):
        parts = [set(part.tolist()) for part in reweighting._parts(reweighting.validation, 2, purpose)]
        assert set.union(*parts) == set(range(10, 18)) and not set.intersection(*parts)
        assert all(same <= part or not same & part for part in parts)
    fitter.first_of_equal = lambda: np.r_[np.arange(10), np.full(8, 10)]
    with pytest.raises(ValueError, match="needs 4 usable rows that differ, and it has 1"):
        _ValidatedReweighting(fitter, 10)


@pytest.mark.parametrize("best", [6, 25, 100, 400])
def test_theta_is_fitted_for_as_long_as_it_generalises(make_args, best):
    class Fitter(StubFitter):
        """Heads are (rows, steps); their loss on other rows is lowest after `best` updates, on their own it only falls."""

        def fit(self, rows_of, steps=200, within_rows=None):
            return set(rows_of(0)), steps

        def policy_losses(self, heads, rows):
            fitted, steps = heads
            seen = np.array([row in fitted for row in rows])
            return np.where(seen, -float(steps), abs(np.log(steps / best)))

    args = make_args(guard=True)
    args.score_steps = 400
    reweighting = _ValidatedReweighting(Fitter(args, 0.0), 10)
    assert reweighting._steps_that_generalise(np.arange(10, 18)) == best
    assert reweighting._steps_that_generalise(np.arange(10, 11)) == 6
