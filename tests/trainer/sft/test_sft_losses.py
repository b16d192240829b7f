"""Losses of rows, gathered over micro-batches."""

import pytest
import torch
from accelerate import Accelerator

from boost_trl.selection import TokenBaseline
from boost_trl.trainer.row_weights.losses import RowLossAccumulator, weighting
from boost_trl.trainer.row_weights.optimizer_batch import OptimizerBatch


class WithoutFloat64(torch.Tensor):
    """A tensor on a device like Apple's, which has no float64."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")


def test_devices_without_float64():
    losses = torch.tensor([1.0, 3.0, 2.0]).as_subclass(WithoutFloat64)
    ids, tokens, ones = torch.tensor([4, 4, 1]), torch.tensor([0, 1, 1]), torch.ones(3).as_subclass(WithoutFloat64)
    row_losses = RowLossAccumulator(Accelerator(cpu=True), TokenBaseline(3))
    row_losses.add(ids, losses, tokens, shares=ones, is_offline=torch.tensor([True, True, True]))
    rows, values = row_losses.collect()
    assert rows.tolist() == [1, 4] and values.tolist() == pytest.approx([0.0, 0.0])
    plan = OptimizerBatch([], 0.1, 0.1, 1.0, 1.0)
    plan.add_pool(losses, 2 * ones, ones)
    assert plan.sums[:3].tolist() == [6.0, 12.0, 3.0]


def test_rows_that_share_a_number_are_averaged():
    """Source 0: three rows of summed losses 6, 2 and 1; source 3: one row of 5; source 5: a row without tokens."""
    row_losses = RowLossAccumulator(Accelerator(cpu=True), reduction="sum")
    row_losses.add_rows(torch.tensor([0, 3, 0, 5]))
    row_losses.add(torch.tensor([0, 0, 3, 0]), torch.tensor([4.0, 2.0, 5.0, 2.0]), torch.zeros(4, dtype=torch.int64))
    row_losses.add_rows(torch.tensor([0]))
    row_losses.add(torch.tensor([0]), torch.tensor([1.0]), torch.zeros(1, dtype=torch.int64))
    rows, losses = row_losses.collect()
    assert rows.tolist() == [0, 3] and losses.tolist() == pytest.approx([3.0, 5.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_keep_their_digits_whatever_the_dtype_of_losses(dtype):
    losses = torch.tensor([[1.0, 0.0, 2.0]], dtype=dtype)
    weights = torch.tensor([1.001, 0.5])
    term = weighting(losses, losses > 0, weights, num_items=2)
    assert term == pytest.approx((0.001 * 1.0 - 0.5 * 2.0) / 2, rel=1e-6)
