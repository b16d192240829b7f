"""The weights of the training rows as a file, and those beside it from which `boost-trl analyze` shows more: the rows at both
ends, and the embeddings.

The names of the latter begin with `_`, which Trainer's uploads leave out: whole rows are not published with a model.
"""

from pathlib import Path

import numpy as np
import pyarrow
import torch
from datasets import Dataset
from pyarrow.parquet import write_table
from safetensors.torch import save_file
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


EXAMPLE_WEIGHTS_NAME = "example_weights.parquet"
ROWS_NAME = "_extreme_rows.parquet"
ROW_NUMBER = "example_index"
EMBEDDINGS_NAME = "_embeddings.safetensors"
# At each end.
NUM_ROWS = 12
# What says which kind of row it is, where a dataset has them.
KIND_COLUMNS = ("source", "category", "kind", "noise_kind")


def trained_rows(table: Dataset) -> np.ndarray:
    """Numbers of the rows of `example_weights()` that were trained on, (M,)."""
    return np.flatnonzero([score is not None and score > -np.inf for score in table["score"]])


def extreme_rows(weights: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Numbers of the 12 rows of largest weight, largest first, and of the 12 of smallest, smallest last; the earlier row of
    equals first. Empty if all weights are equal.

    Args:
        weights (`np.ndarray` of shape `(N,)`): of all rows.
        used (`np.ndarray` of shape `(M,)`): numbers of the rows that were trained on.
    """
    weights = np.asarray(weights, dtype=np.float64)[used]
    if not len(weights) or np.ptp(weights) == 0:
        return np.empty(0, dtype=np.int64)
    order = used[np.argsort(-weights, kind="stable")]
    return order if len(order) <= 2 * NUM_ROWS else np.concatenate([order[:NUM_ROWS], order[-NUM_ROWS:]])


def save_weight_files(
    folder: Path, table: Dataset, dataset: Dataset | None, embeddings: torch.Tensor | None = None
) -> None:
    """Write the weights and, unless `folder` is a checkpoint, rows and embeddings.

    Args:
        folder (`Path`): of the run; made if there is none.
        table (`Dataset`): `example_weights()`.
        dataset (`Dataset`, *optional*): the training rows as given. Those at both ends are kept whole, with their numbers in the
            column `example_index`; none if all weights are equal.
        embeddings (`torch.Tensor` of shape `(M, d)`, *optional*): of the rows that were trained on, float32. They are kept only if
            some of these are synthetic, for the distance to the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_table(table.data.table, folder / EXAMPLE_WEIGHTS_NAME)
    if folder.name.startswith(PREFIX_CHECKPOINT_DIR):
        return
    rows = extreme_rows(np.asarray(table["weight"][:]), trained_rows(table))
    (folder / ROWS_NAME).unlink(missing_ok=True)
    if dataset is not None and len(rows):
        shown = dataset.with_format("arrow").select(rows)[:].drop_columns({ROW_NUMBER} & {*dataset.column_names})
        write_table(shown.append_column(ROW_NUMBER, pyarrow.array(rows)), folder / ROWS_NAME)
    if embeddings is not None and "source" in table.column_names and "synthetic" in table["source"][:]:
        save_file({"embeddings": embeddings.contiguous()}, folder / EMBEDDINGS_NAME)
