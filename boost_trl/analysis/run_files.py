"""Files that a finished run has left, of either trainer, alone or as a cell of a comparison."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
from safetensors import SafetensorError
from safetensors.numpy import load_file

from boost_trl.trainer.common.weight_files import EMBEDDINGS_NAME, EXAMPLE_WEIGHTS_NAME, ROW_NUMBER, ROWS_NAME


RESULT_NAME = "result.json"
ROLLOUTS_NAME = "rollouts.parquet"
PLANTED = "planted noise: "


@dataclass
class Run:
    """A run's folder.

    Args:
        folder (`Path`): with `example_weights.parquet`.
        name (`str`): what pages call it: a method with its seed, or the folder's name.
        table (`pd.DataFrame`): `example_weights()`, of the rows that were trained on.
        result (`dict`): of a comparison's cell; empty for other runs.
    """

    folder: Path
    name: str
    table: pd.DataFrame
    result: dict[str, Any]

    @property
    def weights(self) -> np.ndarray:
        """Weights of the rows that were trained on, (N,), mean one."""
        weights = self.table["weight"].to_numpy(dtype=np.float64)
        return weights / weights.mean()

    @cached_property
    def turn_weights(self) -> dict[int, list[float]] | None:
        """Weights of the assistant turns of each row that was trained on, by its number, where turns were weighed; 1 is the
        equal weight."""
        if "turn_weights" not in self.table:
            return None
        return {index: list(of_row) for index, of_row in zip(self.table["index"], self.table["turn_weights"])}

    @property
    def is_learned(self) -> bool:
        """Whether some rows, or turns, weigh more than others."""
        turns = np.concatenate([*(self.turn_weights or {}).values(), [1.0]])
        return len(self.table) > 0 and max(np.ptp(self.weights), np.ptp(turns)) > 1e-6

    @property
    def is_synthetic(self) -> np.ndarray:
        """Mask of the synthetic rows, (N,)."""
        if "source" not in self.table:
            return np.zeros(len(self.table), dtype=bool)
        return (self.table["source"] == "synthetic").to_numpy()

    @cached_property
    def kinds(self) -> np.ndarray | None:
        """The kind of every row, (N,): where noise was planted, its own and the source of the others; else the row's kind,
        source or category, whichever differs between rows first; `None` if none does."""
        if "noise_kind" in self.table and self.table["noise_kind"].fillna("").any():
            source = self.table["source"] if "source" in self.table else pd.Series("offline", self.table.index)
            noise = self.table["noise_kind"].fillna("")
            return source.fillna("unknown").where(noise == "", PLANTED + noise).to_numpy(dtype=object)
        for name in ("kind", "source", "category"):
            if name in self.table and self.table[name].nunique() > 1:
                return self.table[name].fillna("unknown").astype(str).to_numpy(dtype=object)
        return None

    def embeddings(self) -> np.ndarray | None:
        """Of the rows that were trained on, (N, d); `None` if they were not saved."""
        path = self.folder / EMBEDDINGS_NAME
        with _reading(path):
            return load_file(path)["embeddings"] if path.is_file() else None

    def extreme_rows(self) -> list[dict[str, Any]]:
        """Whole rows of largest weight and, after them, of smallest; empty if they were not saved."""
        path = self.folder / ROWS_NAME
        known = set(self.table["index"].tolist())
        with _reading(path):
            rows = pyarrow.parquet.read_table(path).to_pylist() if path.is_file() else []
            return [row for row in rows if row[ROW_NUMBER] in known]

    def heldout_returns(self) -> list[float] | None:
        """Returns of the games of held-out tasks that a comparison has played with the trained policy; `None` without
        games."""
        path = self.folder / ROLLOUTS_NAME
        if not path.is_file():
            return None
        with _reading(path):
            rewards = pyarrow.parquet.read_table(path, columns=["rewards"])["rewards"].to_pylist()
        return [sum(each) for each in rewards] or None

    def weights_over_epochs(self) -> list[np.ndarray]:
        """Weights (N,) of the rows that were trained on after each epoch, where they were kept."""
        with _reading(self.folder / Path(EXAMPLE_WEIGHTS_NAME).stem):
            return [weights[self.table["index"]] for weights in epoch_weights(self.folder)]


def epoch_weights(folder: Path) -> list[np.ndarray]:
    """Weights of all training rows after each epoch, where the SFT trainer has kept them."""
    paths = (folder / Path(EXAMPLE_WEIGHTS_NAME).stem).glob("epoch-*.parquet")
    ordered = sorted(paths, key=lambda path: int(path.stem.removeprefix("epoch-")))
    return [pd.read_parquet(path)["weight"].to_numpy() for path in ordered]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what readers raise for a half-written or foreign file into a `ValueError` that names it."""
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def open_run(folder: str | Path) -> Run:
    """The run in `folder`.

    Raises:
        ValueError: if there is no such folder, nothing has saved weights in it, or they are not such as trainers save.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give the `output_dir` of a run, or a cell of a comparison")
    path = folder / EXAMPLE_WEIGHTS_NAME
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {EXAMPLE_WEIGHTS_NAME}: `trainer.save_model()` writes it when weights are learned"
        )
    with _reading(path):
        table = pd.read_parquet(path)
    result = _comparison_result(folder / RESULT_NAME)
    name = folder.resolve().name
    if result:
        name = ", ".join(filter(None, [result["label"], result.get("setting"), f"seed {result['seed']}"]))
    return Run(folder=folder, name=name, table=_trained_rows(table, path), result=result)


def _trained_rows(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    if missing := [name for name in ("index", "weight") if name not in table]:
        raise ValueError(f"{path} is no table of `example_weights()`: it has no column `{missing[0]}`")
    if "score" in table:
        table = table[~(table["score"].isna() | np.isneginf(table["score"]))]
    if table.empty:
        raise ValueError(f"{path} has no row that was trained on")
    weights = pd.to_numeric(table["weight"], errors="coerce").to_numpy(dtype=np.float64)
    if not ((weights >= 0).all() and 0 < weights.sum() < np.inf):
        raise ValueError(f"{path}, column `weight`: weights must be finite, at least 0 and not all 0")
    return table.reset_index(drop=True)


def _comparison_result(path: Path) -> dict[str, Any]:
    """A cell's result as a comparison has saved it; empty without such a file, or for one of somebody else's."""
    if not path.is_file():
        return {}
    with _reading(path):
        result = json.loads(path.read_text(encoding="utf-8"))
    return result if isinstance(result, dict) and {"label", "seed"} <= result.keys() else {}
