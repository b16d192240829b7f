"""The rows that [`BilevelOfflineRLTrainer`] trains on, tokenised: one store, training rows first, then validation rows."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedTokenizerBase

from boost_trl.data.first_words import first_words_of
from boost_trl.data.state_cache import action_states
from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


class TrainingData:
    """Training and validation rows under one numbering: rows 0..N-1 are the training rows that are used, those from N on
    the validation rows. A micro-batch may mix the two.

    Args:
        train_dataset (`Dataset`): in the trajectory format.
        validation_dataset (`Dataset`, *optional*): likewise.
        tokenizer (`PreTrainedTokenizerBase`): with action marks.
        options (`dict`): of `tokenize_trajectories`.
        weight_level (`str`, *optional*, defaults to `"trajectory"`): what has a weight of its own, `"trajectory"` or `"turn"`.

    Raises:
        ValueError: naming the first row that is not in the format.
    """

    def __init__(
        self,
        train_dataset: Dataset,
        validation_dataset: Dataset | None,
        tokenizer: PreTrainedTokenizerBase,
        options: dict[str, Any],
        weight_level: str = "trajectory",
    ):
        self.train_dataset = train_dataset
        training = tokenize_trajectories(train_dataset, tokenizer, name="train_dataset", **options)
        validation = []
        if validation_dataset is not None:
            validation = tokenize_trajectories(validation_dataset, tokenizer, name="validation_dataset", **options)
        self.num_training = sum(row is not None for row in training)
        self.store = TrajectoryStore([*training, *validation], tokenizer.pad_token_id, weight_level)
        self.fingerprint = self.store.fingerprint(with_rewards=True)

    @property
    def num_validation(self) -> int:
        return len(self.store) - self.num_training

    @property
    def training(self) -> TrajectoryStore:
        """The store's training rows, in its memory."""
        return self.store.first(self.num_training)

    @cached_property
    def first_words(self) -> list[str]:
        """By which a reader knows a row of `train_dataset`."""
        return first_words_of(self.train_dataset)

    @property
    def sources(self) -> np.ndarray | None:
        """`source` of the training rows that are used, (N,); `None` where the dataset does not say."""
        if "source" not in self.train_dataset.column_names:
            return None
        return np.asarray(self.train_dataset["source"])[self.training.original_row]

    def name_of_row(self, row: int) -> str:
        """The user's name for row `row`."""
        original = int(self.store.original_row[row])
        if original < len(self.train_dataset):
            return f"train_dataset, row {original}"
        return f"validation_dataset, row {original - len(self.train_dataset)}"


class RowNumbers(TorchDataset):
    """Dataset of row numbers for the data loader: an item is only its row's number, because the trainer collates whole
    optimizer batches itself. A sampler may draw rows beyond the first `num_rows`, which make an epoch: validation rows."""

    def __init__(self, num_rows: int):
        self.num_rows = num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"index": index}


def collate_row_numbers(items: list[dict[str, int]]) -> dict[str, torch.Tensor]:
    """Items of [`RowNumbers`] as one tensor `index`, (B,)."""
    return {"index": torch.tensor([item["index"] for item in items])}


def cache_folder_of(args: BilevelOfflineRLConfig) -> Path | None:
    """Folder in which hidden states are cached; `None`: where all are."""
    return Path(args.cache_dir) if args.cache_dir else None


def cache_states(backbone: nn.Module, store: TrajectoryStore, args: BilevelOfflineRLConfig) -> None:
    """Give `store` the hidden states of its action tokens under the unmodified `backbone`."""
    store.states = action_states(backbone, store, getattr(torch, args.states_dtype), cache_folder_of(args))
