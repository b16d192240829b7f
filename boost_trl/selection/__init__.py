"""Maths of data selection: no trainer and no dataset."""

from boost_trl.selection.row_losses import row_means
from boost_trl.selection.selector import Selector


__all__ = ["Selector", "row_means"]
