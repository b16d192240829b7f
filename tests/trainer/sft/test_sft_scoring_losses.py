"""Losses that validated selection asks for, outside of training's loop."""

from types import SimpleNamespace

import numpy as np
from datasets import Dataset

from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID
from boost_trl.trainer.row_weights.scoring_losses import TrustedLosses


def test_trusted_rows_are_scored_in_the_order_asked_for_and_never_written_anew(monkeypatch):
    """Rewriting shows a progress bar of its own, "Flattening the indices", under the selection's."""
    rows = Dataset.from_dict({"input_ids": [[number] for number in range(9)]})
    written = []
    flatten = Dataset.flatten_indices
    monkeypatch.setattr(Dataset, "flatten_indices", lambda self, *_, **__: written.append(len(self)) or flatten(self))

    def mean_losses(dataset, advance):
        numbers, losses = (np.asarray(dataset[name]) for name in (EXAMPLE_ID, "input_ids"))
        order = np.argsort(numbers)
        return numbers[order], losses[order, 0] / 10

    trusted = TrustedLosses(SimpleNamespace(dataset=rows, batch_size=4), loss_sum=None, mean_losses=mean_losses)
    for chosen in ([5, 0, 7], [1, 2], [8]):
        np.testing.assert_allclose(trusted.means(np.array(chosen)), np.array(chosen) / 10)
    assert not written
