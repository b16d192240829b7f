"""Share of distinct answer tokens kept by high-weight rows, against brute-force counts."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from sft_tiny import make_args, make_model, make_pairs, make_rows, make_tokenizer

from boost_trl.selection import Selector
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID
from boost_trl.trainer.row_weights.results import AnswerTokens


def make_selector(logits):
    selector = Selector(len(logits), selector="bmo_exact")
    selector.refresh(np.arange(len(logits)), -np.asarray(logits, dtype=float))  # ω = −L
    return selector


def brute_force(labels, selector):
    """Distinct tokens of the ⌈n_eff⌉ heaviest rows over those of all rows, in plain Python."""
    logits = selector.logits().double()
    weights = logits.softmax(0).tolist()
    count = math.ceil(1 / sum(w * w for w in weights) - 1e-6)
    top = sorted(range(len(labels)), key=lambda row: (-weights[row], row))[:count]
    tokens = [{token for token in labels[row] if token != -100} for row in range(len(labels))]
    return len(set().union(*(tokens[row] for row in top))) / len(set().union(*tokens))


def make_pool(count, seed=0, length=6, vocabulary=60):
    rng = np.random.default_rng(seed)
    labels = [[-100, -100, *rng.integers(vocabulary, size=rng.integers(1, length)).tolist()] for _ in range(count)]
    return labels, Dataset.from_dict({"labels": labels, EXAMPLE_ID: np.arange(count, dtype=np.int32)})


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 300.0])
def test_coverage_is_the_brute_force_count(spread):
    labels, dataset = make_pool(40)
    selector = make_selector(spread * np.random.default_rng(1).normal(size=40))
    coverage = AnswerTokens(dataset).coverage(selector)
    assert coverage == brute_force(labels, selector)
    assert coverage == 1 if spread == 0 else coverage < 1
    if spread == 300:  # one row is left
        best = labels[int(selector.logits().argmax())][2:]
        assert coverage == len(set(best)) / len({t for row in labels for t in row if t != -100})


def test_a_large_pool_is_sampled_and_the_sample_stays_the_same():
    labels, dataset = make_pool(3000, vocabulary=4000)
    selector = make_selector(2 * np.random.default_rng(1).normal(size=3000))
    tokens = AnswerTokens(dataset, max_rows=500)
    assert len(tokens.rows) == 500
    assert tokens.coverage(selector) == AnswerTokens(dataset, max_rows=500).coverage(selector)
    assert tokens.rows.tolist() != AnswerTokens(dataset, max_rows=500, seed=1).rows.tolist()
    # The same share of the sampled rows as n_eff is of all.
    rows = tokens.rows.tolist()
    count = math.ceil(500 * selector.effective_sample_size() / 3000)
    top = sorted(rows, key=lambda row: -float(selector.logits()[row]))[:count]
    kept, everything = ({t for row in some for t in labels[row][2:]} for some in (top, rows))
    assert tokens.coverage(selector) == len(kept) / len(everything)


def test_packed_places_are_read_until_there_are_enough_rows():
    """Places of several rows, of which one goes on in the next place, beside padding and places that are empty."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 9, size=1500)
    ids = [np.sort(rng.integers(-1, 900, size=length)).tolist() for length in lengths]
    labels = [rng.choice([-100, *range(30)], size=length).tolist() for length in lengths]
    dataset = Dataset.from_dict({"labels": labels, EXAMPLE_ID: ids})
    for max_rows in (1, 40, 1000, 10_000):
        tokens = AnswerTokens(dataset, max_rows=max_rows)
        pairs, num_rows = set(), 0
        for place in np.random.default_rng(0).choice(1500, min(1500, max_rows), replace=False):
            if num_rows < max_rows:
                pairs |= {pair for pair in zip(ids[place], labels[place]) if -1 != pair[0] and pair[1] != -100}
                num_rows += len({*ids[place]})
        assert {*zip(tokens.rows[tokens._row].tolist(), tokens._token.tolist())} == pairs


def test_a_pool_without_labels_has_no_coverage():
    dataset = Dataset.from_dict({"labels": [[-100], [-100, -100]], EXAMPLE_ID: [0, 1]})
    assert AnswerTokens(dataset).coverage(Selector(2)) is None


@pytest.mark.parametrize("layout", ["pairs", "packed"])
def test_it_is_logged_for_prepared_rows(layout, tmp_path):
    packed = {"packing": True, "packing_strategy": "wrapped", "max_length": 10} if layout == "packed" else {}
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(tmp_path, max_steps=4, selector="rank", keep_fraction=0.3, rank_refresh_steps=1, **packed),
        train_dataset=make_rows(12) if packed else make_pairs(),
        processing_class=make_tokenizer(),
        validation_dataset=make_pairs(5),
    )
    trainer.train()
    trainer.args.max_length = None  # wrapped rows are cut, not truncated
    rows = trainer.prepare_like_evaluation(make_rows(12) if packed else make_pairs(), "again")
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    assert last["selector/coverage"] == brute_force(rows["labels"][:], trainer.selector) < 1


def test_it_is_absent_where_rows_are_not_at_hand(tmp_path):
    rows = Dataset.from_list([{**row, "number": i} for i, row in enumerate(make_rows(12).to_list())])
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(tmp_path, max_steps=1, example_id_column="number", num_examples=12),
        train_dataset=rows.to_iterable_dataset(),
        processing_class=make_tokenizer(),
        validation_dataset=make_pairs(5),
    )
    trainer.train()
    logs = trainer.state.log_history[0]
    assert "selector/n_eff" in logs and "selector/coverage" not in logs
    assert torch.isfinite(torch.tensor(logs["loss"]))
