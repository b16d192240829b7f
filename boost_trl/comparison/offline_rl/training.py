"""Training one method of an offline RL comparison, on one process or several."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PrinterCallback

from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.methods import OfflineRLMethod
from boost_trl.selection.auc import weights_auc
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.common.checkpoints import last_whole_checkpoint


def train_method(
    method: OfflineRLMethod, experiment: OfflineRLExperiment, args: BilevelOfflineRLConfig, folder: Path
) -> BilevelOfflineRLTrainer:
    """A trained trainer; a run that was killed goes on from its last checkpoint.

    Args:
        method (`OfflineRLMethod`): which.
        experiment (`OfflineRLExperiment`): model and data.
        args (`BilevelOfflineRLConfig`): what all methods share; `model_init_kwargs` are `experiment.make_model`'s.
        folder (`Path`): output folder.
    """
    # A copy, because training changes what requires a gradient, and with a trained backbone everything.
    model = experiment.make_model()
    options: dict[str, Any] = {"output_dir": str(folder), "model_init_kwargs": None, **method.options}
    args = replace(args, **options)
    shift, args.return_scale = experiment.return_normalization(model, args)
    args.return_shift = shift or None
    trainer = method.trainer_class(
        model,
        args,
        train_dataset=method.rows(experiment, args),
        eval_dataset=experiment.evaluation,
        processing_class=experiment.tokenizer,
        peft_config=experiment.make_peft_config(),
        validation_dataset=experiment.validation if method.uses_validation else None,
    )
    if args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
    checkpoint = last_whole_checkpoint(args.output_dir, trainer.why_incomplete)
    trainer.train(resume_from_checkpoint=checkpoint)  # no update more, where it was killed while it played
    if args.push_to_hub or args.save_strategy != "no":
        # Before games are played: an environment that fails must not cost the training.
        trainer.save_model()
    return trainer


def auc_of_planted_truth(rows: Dataset, weights: np.ndarray) -> float | None:
    """AUC of the weights (N,) of training rows as a test for good offline rows against planted noise; `None` for constant
    weights or without noise.

    Synthetic rows are left out: nobody knows which of them are good.
    """
    offline = np.asarray(rows["source"]) == "offline"
    return weights_auc(weights[offline], ~np.asarray(rows["is_noise"])[offline])


def turns_auc_of_planted_truth(rows: Dataset, weights: Dataset) -> float | None:
    """As `auc_of_planted_truth`, of the weights of turns as a test for good ones; a row's weight is that of all its turns
    where these have none of their own.

    Args:
        rows (`Dataset`): training rows with `noise_turns`.
        weights (`Dataset`): their `example_weights`.
    """
    columns = weights.to_dict()
    by_turn = columns.get("turn_weights") or [
        [weight] * len(turns) for weight, turns in zip(columns["weight"], rows["noise_turns"])
    ]
    pairs = [
        (weight, not is_noise)
        for source, of_row, noise_turns in zip(rows["source"], by_turn, rows["noise_turns"])
        if source == "offline"
        for weight, is_noise in zip(of_row, noise_turns)
    ]
    values, labels = zip(*pairs)
    # Equal weights of turns differ in their last digits, which rank nothing.
    return weights_auc(np.round(values, 9), labels)
