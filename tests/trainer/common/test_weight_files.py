import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from safetensors.torch import load_file

from boost_trl.trainer.common.weight_files import (
    EMBEDDINGS_NAME,
    EXAMPLE_WEIGHTS_NAME,
    NUM_ROWS,
    ROW_NUMBER,
    ROWS_NAME,
    extreme_rows,
    save_weight_files,
)


def table_of(weights, scores=None, source=None):
    columns = {"index": list(range(len(weights))), "weight": weights, "score": scores or weights}
    return Dataset.from_dict(columns | ({} if source is None else {"source": source}))


def test_extreme_rows_are_those_of_a_sort_with_ties_in_order():
    weights = np.array([1.0, 3.0, 0.5, 3.0, 0.5, 9.0])
    np.testing.assert_array_equal(extreme_rows(weights, np.arange(6)), [5, 1, 3, 0, 2, 4])
    np.testing.assert_array_equal(extreme_rows(weights, np.array([0, 2, 3])), [3, 0, 2])
    many = np.random.default_rng(0).permutation(100).astype(float)
    found = extreme_rows(many, np.arange(100))
    assert many[found].tolist() == [*range(99, 99 - NUM_ROWS, -1), *range(NUM_ROWS - 1, -1, -1)]
    assert not len(extreme_rows(np.ones(5), np.arange(5))) and not len(extreme_rows(weights, np.array([], dtype=int)))


def test_rows_are_whole_and_those_left_out_are_not_among_them(tmp_path):
    rows = Dataset.from_dict(
        {"text": list("abcd"), "n": [[1], [2, 3], [], [4]], ROW_NUMBER: [7, 7, 7, 7]}
    ).with_format("torch")
    save_weight_files(tmp_path / "run", table_of([2.0, 0.0, 1.0, 0.0], [0.3, None, 0.1, float("-inf")]), rows)
    saved = pq.read_table(tmp_path / "run" / ROWS_NAME).to_pylist()
    assert saved == [{"text": "a", "n": [1], ROW_NUMBER: 0}, {"text": "c", "n": [], ROW_NUMBER: 2}]
    # Equal weights have no ends, and an older file must not speak for them.
    save_weight_files(tmp_path / "run", table_of([1.0, 1.0, 1.0, 1.0]), rows)
    assert not (tmp_path / "run" / ROWS_NAME).exists()


def test_embeddings_are_kept_for_synthetic_rows_and_not_in_checkpoints(tmp_path):
    weights, embeddings = [2.0, 0.5], torch.randn(4, 2).T
    rows = Dataset.from_dict({"text": ["a", "b"]})
    for folder, source, kept in (
        ("both", ["offline", "synthetic"], True),
        ("offline", ["offline", "offline"], False),
        ("unknown", None, False),
        ("checkpoint-3", ["offline", "synthetic"], False),
    ):
        save_weight_files(tmp_path / folder, table_of(weights, source=source), rows, embeddings)
        names = {path.name for path in (tmp_path / folder).iterdir()}
        assert EXAMPLE_WEIGHTS_NAME in names and (EMBEDDINGS_NAME in names) == kept
        assert (ROWS_NAME in names) == (folder != "checkpoint-3")
    assert torch.equal(load_file(tmp_path / "both" / EMBEDDINGS_NAME)["embeddings"], embeddings)
    # Uploads leave out what begins with `_`.
    assert ROWS_NAME.startswith("_") and EMBEDDINGS_NAME.startswith("_")
