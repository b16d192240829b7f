"""Tables and pictures in experiment trackers, beside the metrics that Trainer sends there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate.utils import is_comet_ml_available, is_trackio_available, is_wandb_available
from transformers import Trainer
from transformers.integrations import TensorBoardCallback

from boost_trl.tables import markdown_table


def log_table(trainer: Trainer, name: str, table: pd.DataFrame) -> None:
    """Send a table to those of tensorboard, wandb, trackio and comet that `args.report_to` names, and that run."""
    for kind, tracker in _running(trainer):
        if kind == "tensorboard":
            cells = [[str(value).replace("\n", "<br>") for value in row] for row in table.itertuples(index=False)]
            tracker.add_text(
                name, markdown_table([[*table.columns], *cells], "l" * len(table.columns)), trainer.state.global_step
            )
        elif kind == "comet_ml":
            tracker.log_table(filename=f"{name}.csv", tabular_data=table)
        else:
            tracker.log({name: tracker.Table(dataframe=table)})


def log_picture(trainer: Trainer, name: str, path: Path) -> None:
    """Send a PNG file to those of tensorboard, wandb, trackio and comet that `args.report_to` names, and that run."""
    for kind, tracker in _running(trainer):
        if kind == "tensorboard":
            from matplotlib.image import imread

            tracker.add_image(name, imread(path), trainer.state.global_step, dataformats="HWC")
        elif kind == "comet_ml":
            tracker.log_image(str(path), name=name, step=trainer.state.global_step)
        else:
            tracker.log({name: tracker.Image(str(path))})


def _running(trainer: Trainer) -> Iterator[tuple[str, Any]]:
    """Each tracker's name, and the module, experiment or writer that takes what is sent. Only the first process has any."""
    names = trainer.args.report_to
    if not trainer.is_world_process_zero():
        return
    if "wandb" in names and is_wandb_available():
        import wandb

        if wandb.run is not None:
            yield "wandb", wandb
    if "trackio" in names and is_trackio_available():
        import trackio

        if trackio.context_vars.current_run.get() is not None:
            yield "trackio", trackio
    if "comet_ml" in names and is_comet_ml_available():
        import comet_ml

        experiment = comet_ml.get_running_experiment()
        if experiment is not None:
            yield "comet_ml", experiment
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            yield "tensorboard", callback.tb_writer
