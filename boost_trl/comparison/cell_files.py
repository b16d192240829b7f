"""Files of a cell beside its result and the trainer's: what was asked for, the training log and the games."""

import json
from pathlib import Path

import pandas as pd
from datasets import Dataset
from transformers import TrainingArguments

from boost_trl.analysis.run_files import ROLLOUTS_NAME
from boost_trl.files import whole_file, write_whole


CONFIG_NAME = "training_config.json"
METRICS_NAME = "metrics.parquet"


def save_cell_files(
    folder: Path, args: TrainingArguments, log: list[dict[str, float]], games: Dataset | None = None
) -> None:
    """Write `training_config.json`, `metrics.parquet` and, where games were played, `rollouts.parquet`.

    Args:
        folder (`Path`): of the cell.
        args (`TrainingArguments`): of its training; secrets stay out of the file.
        log (`list[dict[str, float]]`): `trainer.state.log_history`, one row per entry.
        games (`Dataset`, *optional*): the reported games, one row each, in the trajectory format.
    """
    write_whole(folder / CONFIG_NAME, json.dumps(args.to_dict(), indent=2, default=str) + "\n")
    tables = {METRICS_NAME: Dataset.from_pandas(pd.DataFrame(log), preserve_index=False), ROLLOUTS_NAME: games}
    for name, table in tables.items():
        if table is None:
            continue
        with whole_file(folder / name) as draft:
            table.to_parquet(str(draft))
