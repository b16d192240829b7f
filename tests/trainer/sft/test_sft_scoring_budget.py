"""Updates and rows that validated selection's budget announces, against those that it really takes."""

import numpy as np
import pytest
import torch
from torch import nn

from boost_trl import BilevelSFTSelfRefineConfig
from boost_trl.trainer.row_weights.scoring_budget import ScoringBudget
from boost_trl.trainer.row_weights.validated_selection import ValidatedSelection


class Rows:
    """Losses of rows that fall with every update; they count what is asked of them."""

    batch_size = 8

    def __init__(self, model, count):
        self.model, self.count = model, count
        self.trained = self.read = 0

    def __len__(self):
        return self.count

    def _losses(self):
        return self.model.weight[0].expand(self.count)

    def batch(self, places):
        return places

    def num_terms(self, places):
        return len(places)

    def loss(self, places, *rest):
        self.trained += len(places)
        return self._losses()[list(places)].mean()


class Pool(Rows):
    def sample(self, most, seed):
        self.sampled = Pool(self.model, min(most, self.count))
        return self.sampled

    def numbers(self):
        return np.arange(self.count)

    def means(self, advance):
        self.read += self.count
        spread = np.linspace(0, 1, self.count)
        return np.arange(self.count), self._losses().detach().double().numpy() * spread

    def draws(self, numbers, weights, seed):
        while True:
            yield 0


class Trusted(Rows):
    def equal_rows(self):
        return np.arange(self.count)

    def mean(self, rows):
        self.read += len(rows)
        return self.model.weight.item()

    def means(self, rows):
        self.read += len(rows)
        return self._losses().detach()[rows].double().numpy()


@pytest.mark.parametrize("has_guard", [True, False])
@pytest.mark.parametrize("updates, num_pool, num_trusted", [(12, 50, 10), (300, 700, 100)])
def test_the_budget_is_what_scoring_takes(updates, num_pool, num_trusted, has_guard, tmp_path):
    args = BilevelSFTSelfRefineConfig(
        str(tmp_path), selector="validated", selection_guard=has_guard, use_cpu=True, bf16=False, max_grad_norm=0.0
    )
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor([100.0]))
    pool, trusted = Pool(model, num_pool), Trusted(model, num_trusted)
    selection = ValidatedSelection(model, args, pool, trusted, updates, 16)
    selection.run()
    trained, read = ScoringBudget.of(updates, has_guard, 16).num_rows(num_pool, num_trusted)
    assert pool.trained + pool.sampled.trained + trusted.trained == trained
    assert pool.read + pool.sampled.read + trusted.read == read
