"""Files of a cell beside its result and the trainer's: what was asked for, the training log and the games."""

import json
from pathlib import Path

import pandas as pd
from datasets import Dataset

from boost_trl.analysis.run_files import ROLLOUTS_NAME
from boost_trl.files import whole_file, write_whole
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


CONFIG_NAME = "training_config.json"
METRICS_NAME = "metrics.parquet"


def save_cell_files(folder: Path, args: BilevelOfflineRLConfig, log: list[dict[str, float]], games: Dataset) -> None:
    """Write `training_config.json`, `metrics.parquet` and `rollouts.parquet`.

    Args:
        folder (`Path`): of the cell.
        args (`BilevelOfflineRLConfig`): of its training, without secrets on disk.
        log (`list[dict[str, float]]`): `trainer.state.log_history`, one row per entry.
        games (`Dataset`): the reported games, one row each, in the trajectory format.
    """
    write_whole(folder / CONFIG_NAME, json.dumps(args.to_dict(), indent=2, default=str) + "\n")
    for name, table in (
        (METRICS_NAME, Dataset.from_pandas(pd.DataFrame(log), preserve_index=False)),
        (ROLLOUTS_NAME, games),
    ):
        with whole_file(folder / name) as draft:
            table.to_parquet(str(draft))
