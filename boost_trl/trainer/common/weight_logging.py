"""The weights of training rows in experiment trackers: the rows at both ends as a table, and all weights as a picture."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from boost_trl.pictures import figure
from boost_trl.selection.tempering import effective_sample_size
from boost_trl.trainer.common.trackers import log_picture, log_table
from boost_trl.trainer.common.weight_files import KIND_COLUMNS, extreme_rows, trained_rows


NAME = "example_weights"


class WeightLogging(TrainerCallback):
    """Sends the weights of a trainer to its trackers at each evaluation and after the last update.

    Args:
        trainer (`Trainer`): with `example_weights`.
    """

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self._last_step: int | None = None

    def on_evaluate(self, args, state, control, **kwargs):
        self._log(state.global_step)

    def on_epoch_end(self, args, state, control, **kwargs):
        # Trackers take nothing any more when training has ended.
        if control.should_training_stop:
            self._log(state.global_step)

    def _log(self, step: int) -> None:
        if step == self._last_step or not self._trainer.is_world_process_zero():
            return
        self._last_step = step
        weights = self._trainer.example_weights()
        table = rows_at_both_ends(weights, step)
        if not len(table):  # all weights are equal
            return
        log_table(self._trainer, NAME, table)
        with TemporaryDirectory() as folder:
            path = Path(folder, f"{NAME}.png")
            draw_weights(weights, path)
            log_picture(self._trainer, f"{NAME}_picture", path)


def rows_at_both_ends(weights: Dataset, step: int) -> pd.DataFrame:
    """The 12 rows of largest and of smallest weight; none if all weights are equal.

    Args:
        weights ([`~datasets.Dataset`]): `example_weights()` of a trainer.
        step (`int`): optimizer steps so far, in the first column.
    """
    table = weights.to_pandas()
    table = table.iloc[extreme_rows(table["weight"].to_numpy(), trained_rows(weights))].reset_index(drop=True)
    table.insert(0, "step", step)
    return table


def draw_weights(weights: Dataset, path: Path) -> None:
    """Draw how many rows have which weight, by kind of row where it is known.

    Args:
        weights ([`~datasets.Dataset`]): `example_weights()` of a trainer.
        path (`Path`): of the picture.
    """
    values = np.asarray(weights["weight"][:], dtype=np.float64)
    values = values / values.mean()
    column = next((name for name in KIND_COLUMNS if name in weights.column_names), None)
    kinds = np.array(["rows"] * len(values) if column is None else [str(kind) for kind in weights[column]])
    names = sorted(set(kinds))
    with figure(path, figsize=(6.4, 3.6)) as (_, axes):
        bins = np.linspace(0, values.max(), 31)
        labels = [f"{name} ({(kinds == name).sum():,})" for name in names]
        axes.hist([values[kinds == name] for name in names], bins=bins, stacked=True, label=labels)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel("weight, 1: the equal weight   ← counts less · counts more →")
        axes.set_ylabel("training rows")
        axes.set_title(f"Effective sample size: {effective_sample_size(values):,.0f} of {len(values):,} rows")
        axes.legend(fontsize=8)
