"""Supervised fine-tuning with example weights learned from a validation set: the script behind
`boost-trl sft-self-refine`, shaped like TRL's `trl sft`.

```
python -m boost_trl.scripts.sft_self_refine \
    --model_name_or_path Qwen/Qwen2-0.5B \
    --dataset_name trl-lib/Capybara \
    --validation_dataset_name trusted.jsonl \
    --learning_rate 2.0e-5 --num_train_epochs 3 \
    --output_dir Qwen2-0.5B-selected
```
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from boost_trl.scripts.command_parser import CommandParser, without_bf16_on_cpu
from boost_trl.scripts.data_arguments import ValidationScriptArguments


# Dataclasses of options that take seconds to import, by their source.
OTHER_OPTIONS = {
    "transformers/training_args.py": "TrainingArguments",
    "trl/trainer/base_config.py": "_BaseConfig",
    "trl/trainer/sft_config.py": "SFTConfig",
}
NO_TRUSTED_ROWS = (
    "warning: this is plain training, in which no row is weighed: weights are learned from trusted rows, given as "
    "`--validation_dataset_name`"
)


@dataclass
class SFTSelfRefineScriptArguments(ValidationScriptArguments):
    """Script arguments of `boost-trl sft-self-refine`. Files are JSON, CSV or Parquet.

    Without `validation_dataset_name` and without `dataset_validation_split` this is plain supervised fine-tuning.
    """


def load_named_dataset(name: str, config: str | None = None, streaming: bool = False):
    """`datasets.load_dataset`, which also takes the path of one JSON, CSV or Parquet file."""
    from datasets import load_dataset

    from boost_trl.data.row_files import load_file, type_of_file
    from boost_trl.hub_names import check_dataset_name

    file_type = type_of_file(name)
    if file_type is not None:
        return load_file(file_type, name, streaming)
    check_dataset_name(name)
    return load_dataset(name, name=config, streaming=streaming)


def load_validation_dataset(script_args: SFTSelfRefineScriptArguments, dataset):
    """The validation set that `script_args` names, or `None`."""
    if script_args.validation_dataset_name is not None:
        splits = load_named_dataset(script_args.validation_dataset_name, script_args.validation_dataset_config)
        return _split(splits, script_args.dataset_validation_split or "train", script_args.validation_dataset_name)
    if script_args.dataset_validation_split is not None:
        return _split(dataset, script_args.dataset_validation_split, script_args.dataset_name)
    return None


def _split(dataset, name: str, where: str | None, option: str = "dataset_validation_split"):
    if name not in dataset:
        raise ValueError(f"{where or 'datasets'} has no split '{name}'; it has {sorted(dataset)}; set `--{option}`")
    return dataset[name]


def main(script_args, training_args, model_args, dataset_args):
    prepare(script_args, training_args, model_args, dataset_args)()


def prepare(
    script_args, training_args, model_args, dataset_args, trainer_name: str = "BilevelSFTSelfRefineTrainer"
) -> Callable[[], None]:
    """Check and load everything; what is returned trains and saves, by the trainer of this name."""
    from trl import get_dataset, get_peft_config, get_quantization_config

    import boost_trl
    from boost_trl.scripts.resume_argument import parse_resume

    training_args.resume_from_checkpoint = parse_resume(training_args.resume_from_checkpoint, training_args.output_dir)
    model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    }
    training_args.model_init_kwargs = {**model_init_kwargs, **(training_args.model_init_kwargs or {})}

    check_dataset_is_named(script_args, dataset_args)
    if dataset_args.datasets:
        dataset = get_dataset(dataset_args)
    else:
        dataset = load_named_dataset(
            script_args.dataset_name, script_args.dataset_config, script_args.dataset_streaming
        )

    where, eval_dataset = script_args.dataset_name, None
    train_dataset = _split(dataset, script_args.dataset_train_split, where, "dataset_train_split")
    if training_args.eval_strategy != "no":
        eval_dataset = _split(dataset, script_args.dataset_test_split, where, "dataset_test_split")

    validation_dataset = load_validation_dataset(script_args, dataset)
    trainer = getattr(boost_trl, trainer_name)(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
        validation_dataset=validation_dataset,
    )
    if validation_dataset is None and training_args.weight_column is None:
        trainer.accelerator.print(NO_TRUSTED_ROWS, file=sys.stderr)
    return partial(_train, trainer, training_args, script_args.dataset_name)


def _train(trainer, training_args, dataset_name: str | None) -> None:
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model(training_args.output_dir)
    trainer.accelerator.print(f"Model saved to {training_args.output_dir}.")
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=dataset_name)
        trainer.accelerator.print(f"Model pushed to the Hub in https://huggingface.co/{trainer.hub_model_id}.")
    trainer.end()


def own_options() -> dict[str, type]:
    """Options that `--help` shows, by title; none of them is slow to import."""
    from trl import ModelConfig

    from boost_trl.trainer.sft.settings import SFTSelfRefineSettings

    return {"rows": SFTSelfRefineScriptArguments, "method": SFTSelfRefineSettings, "model": ModelConfig}


def make_parser(prog: str | None = None) -> CommandParser:
    """The command's parser."""
    from trl import DatasetMixtureConfig, ModelConfig

    from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig

    dataclass_types = (SFTSelfRefineScriptArguments, BilevelSFTSelfRefineConfig, ModelConfig, DatasetMixtureConfig)
    return without_bf16_on_cpu(CommandParser(dataclass_types, prog))


def check_early(arguments: list[str], prog: str) -> None:
    """Refuse at once what `make_parser` and `prepare` would refuse only after seconds of imports."""
    from boost_trl.trainer.sft.settings import SFTSelfRefineSettings

    check_options(arguments, prog, SFTSelfRefineScriptArguments, SFTSelfRefineSettings, OTHER_OPTIONS)


def check_options(
    arguments: list[str], prog: str, script_arguments: type, settings: type, others: dict[str, str]
) -> None:
    """The same for any trainer of rows: `settings` are the options of ours, `others` the slow ones."""
    from trl import DatasetMixtureConfig, ModelConfig

    from boost_trl.scripts.early_checks import EvaluationOptions, check_names, parse_own_options

    types = (script_arguments, ModelConfig, DatasetMixtureConfig, EvaluationOptions, settings)
    script_args, model_args, dataset_args, evaluation, _ = parse_own_options(types, others, arguments, prog)
    check_dataset_is_named(script_args, dataset_args)
    check_evaluation_data(script_args, dataset_args, evaluation.eval_strategy)
    datasets = () if dataset_args.datasets else (script_args.dataset_name,)
    check_names((model_args.model_name_or_path,), (*datasets, script_args.validation_dataset_name))


def check_dataset_is_named(script_args, dataset_args) -> None:
    """Check that there is something to train on.

    Raises:
        ValueError: if there is nothing to train on.
    """
    if not dataset_args.datasets and not script_args.dataset_name:
        raise ValueError("either `datasets` or `dataset_name` must be provided")


def check_evaluation_data(script_args, dataset_args, eval_strategy: str) -> None:
    """Check that there can be rows to evaluate on, as far as that shows before any are read.

    Raises:
        ValueError: for a file or a mixture, which have no split for it.
    """
    from boost_trl.data.row_files import type_of_file

    split = script_args.dataset_test_split
    if eval_strategy not in ("steps", "epoch") or split == "train":
        return
    if dataset_args.datasets and dataset_args.test_split_size is None:
        where, remedy = f"`datasets` have no split {split!r}", "set `test_split_size`"
    elif not dataset_args.datasets and type_of_file(script_args.dataset_name) is not None:
        where = f"{script_args.dataset_name} is a file, which has no split {split!r}"
        remedy = "name a folder or dataset that has one"
    else:
        return
    raise ValueError(f"`eval_strategy` is {eval_strategy!r}, but {where}: {remedy}, or leave `eval_strategy` out")


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
