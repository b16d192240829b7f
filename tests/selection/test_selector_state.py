"""Saving, loading and resuming a `Selector`: exact, small, and refused for other rows."""

import json

import numpy as np
import pytest
import torch

from boost_trl.selection import Selector


N = 60
KINDS = [
    {"selector": "bds"},
    {"selector": "bds", "selector_optimizer": "sgd", "selector_learning_rate": 0.5},
    {"selector": "bds", "selector_optimizer": "adam", "selector_learning_rate": 1e-2},
    {"selector": "bmo", "bmo_tau": 2.0},
    {"selector": "bmo_exact"},
    {"selector": "rank", "keep_fraction": 0.3},
    {"selector": "uniform", "weight_scale": "simplex"},
]


def make(kind):
    selector = Selector(N, dataset_fingerprint="abc", **kind)
    selector.set_schedule(total_steps=40, steps_per_epoch=60)
    return selector


def train(selector, steps):
    for step in steps:
        draw = np.random.default_rng(step)
        if selector.selector == "bmo_exact" and step % 10 == 0:
            selector.refresh(range(N), draw.normal(2, 0.5, N))
        ids = draw.choice(N, 6, replace=False)
        selector.update(ids, draw.normal(2, 0.5, 6) + ids / N, 0.3)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_resuming_is_bitwise_exact(kind, tmp_path):
    straight, first = make(kind), make(kind)
    train(straight, range(40))
    train(first, range(17))
    first.save_pretrained(tmp_path)

    resumed = make(kind)
    resumed.resume_from(tmp_path)
    loaded = Selector.from_pretrained(tmp_path, num_examples=N, dataset_fingerprint="abc")
    loaded.set_schedule(total_steps=40, steps_per_epoch=60)
    for selector in (resumed, loaded):
        assert selector.share_seen() == first.share_seen() > 0.5
        train(selector, range(17, 40))
        assert torch.equal(selector.weights(), straight.weights())
        for name, value in straight.state_dict().items():
            assert torch.equal(value.nan_to_num(7), selector.state_dict()[name].nan_to_num(7)), name
    assert loaded.config == straight.config
    if straight.is_learned:
        assert straight.weights().std() > 1e-3


def test_state_is_a_copy():
    selector = make(KINDS[0])
    state, logits = selector.state_dict(), selector.logits()
    train(selector, range(3))
    assert state["logits"].isnan().all() and not logits.any()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_at_most_twelve_bytes_a_row(kind):
    large = Selector(100_000, **kind).state_dict()
    assert sum(value.nbytes for value in large.values()) <= 12 * 100_000 + 200
    assert all(value.dtype != torch.float64 for value in large.values() if value.numel() >= 100_000)


def test_files_are_safetensors_and_json(tmp_path):
    make(KINDS[0]).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["selector.safetensors", "selector_config.json"]
    config = json.loads((tmp_path / "selector_config.json").read_text())
    assert config["num_examples"] == N
    assert config["selector"] == "bds"
    assert config["dataset_fingerprint"] == "abc"


def test_another_dataset_is_refused(tmp_path):
    make(KINDS[0]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="60 rows, but this dataset has 61"):
        Selector.from_pretrained(tmp_path, num_examples=61)
    with pytest.raises(ValueError, match="'abc'.*'xyz'"):
        Selector.from_pretrained(tmp_path, dataset_fingerprint="xyz")
    with pytest.raises(ValueError, match="61"):
        Selector(61, selector="bds").resume_from(tmp_path)
    with pytest.raises(ValueError, match="fingerprint"):
        Selector(N, dataset_fingerprint="xyz", selector="bds").resume_from(tmp_path)
    with pytest.raises(ValueError, match='selector="bds", not "bmo"'):
        Selector(N, selector="bmo").resume_from(tmp_path)
    with pytest.raises(ValueError, match='selector_optimizer="sparse", not "adam"'):
        Selector(N, selector_optimizer="adam", selector="bds").resume_from(tmp_path)
    with pytest.raises(FileNotFoundError, match="selector_config.json does not exist"):
        Selector.from_pretrained(tmp_path.parent)


def test_state_of_another_selector_is_refused():
    with pytest.raises(ValueError, match="rows"):
        Selector(5, selector="bds").load_state_dict(Selector(6, selector="bds").state_dict())
    with pytest.raises(ValueError, match="scores"):
        Selector(5, selector="bds").load_state_dict(Selector(5, selector="rank").state_dict())
