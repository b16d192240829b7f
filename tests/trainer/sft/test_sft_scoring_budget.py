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
    def __init__(self, model, numbers):
        super().__init__(model, len(numbers))
        self._numbers, self.parts = numbers, []

    def part(self, places):
        self.parts.append(Pool(self.model, self._numbers[places]))
        return self.parts[-1]

    def equal_places(self):
        return np.arange(self.count)

    def numbers(self):
        return self._numbers

    def means(self, advance):
        self.read += self.count
        spread = np.linspace(0, 1, self.count)
        return self._numbers, self._losses().detach().double().numpy() * spread

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


@pytest.mark.parametrize(("has_guard", "reference"), [(True, "model"), (False, "model"), (True, "pool")])
@pytest.mark.parametrize("updates, num_pool, num_trusted", [(12, 50, 10), (300, 700, 100)])
def test_the_budget_is_what_scoring_takes(updates, num_pool, num_trusted, has_guard, reference, tmp_path):
    args = BilevelSFTSelfRefineConfig(
        str(tmp_path),
        selector="validated",
        selection_guard=has_guard,
        score_reference=reference,
        use_cpu=True,
        bf16=False,
        max_grad_norm=0.0,
    )
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor([100.0]))
    pool, trusted = Pool(model, np.arange(num_pool)), Trusted(model, num_trusted)
    selection = ValidatedSelection(model, args, pool, trusted, updates, 16)
    selection.run()
    trained, read = ScoringBudget.of(updates, args, 16).num_rows(num_pool, num_trusted)
    everything = (pool, *pool.parts, trusted)
    assert (sum(rows.trained for rows in everything), sum(rows.read for rows in everything)) == (trained, read)
