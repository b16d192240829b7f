"""The model's own answers as a table in experiment trackers, as TRL's online trainers log theirs."""

import numpy as np
import pandas as pd
from accelerate.utils import is_comet_ml_available, is_trackio_available, is_wandb_available
from datasets import Dataset
from transformers.utils import is_rich_available
from trl.trainer.utils import print_prompt_completions_sample


def completions_table(generations: Dataset, step: int, max_rows: int | None = None) -> pd.DataFrame:
    """
    One row per answer, with the names that TRL uses for questions and answers.

    Args:
        generations ([`~datasets.Dataset`]): rows of `generations/step-N.parquet`.
        step (`int`): optimizer steps before the refresh.
        max_rows (`int`, *optional*): keep at most so many answers, evenly spaced.
    """
    table = generations.to_pandas().rename(columns={"question": "prompt", "answers": "completion"})
    lists = ["completion", "status", "log_probs", "num_tokens", "visits", "ratio_mean", "ratio_max"]
    table = table.explode(lists, ignore_index=True)
    if max_rows is not None and len(table) > max_rows:
        table = table.iloc[np.linspace(0, len(table) - 1, max_rows).astype(int)].reset_index(drop=True)
    table.insert(0, "step", step)
    return table


def print_completions(table: pd.DataFrame) -> None:
    """Show a table on the console if `rich` is installed."""
    if is_rich_available():
        print_prompt_completions_sample(
            table["prompt"].tolist(),
            table["completion"].tolist(),
            rewards={"weight": table["weight"].tolist()},
            advantages=None,
            step=int(table["step"].iloc[0]),
            extra={"status": table["status"].tolist()},
        )


def log_completions(table: pd.DataFrame, report_to: list[str]) -> None:
    """Send a table to those of wandb, trackio and comet that `report_to` names, and that run."""
    if "wandb" in report_to and is_wandb_available():
        import wandb

        if wandb.run is not None:
            wandb.log({"completions": wandb.Table(dataframe=table)})
    if "trackio" in report_to and is_trackio_available():
        import trackio

        trackio.log({"completions": trackio.Table(dataframe=table)})
    if "comet_ml" in report_to and is_comet_ml_available():
        import comet_ml

        experiment = comet_ml.get_running_experiment()
        if experiment is not None:
            experiment.log_table(filename="completions.csv", tabular_data=table)
