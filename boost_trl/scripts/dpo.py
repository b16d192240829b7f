"""Preference optimisation with weights of pairs learned from a validation set: the script behind `boost-trl dpo`, shaped like
TRL's `trl dpo`.

```
python -m boost_trl.scripts.dpo \
    --model_name_or_path Qwen/Qwen2-0.5B-Instruct \
    --dataset_name trl-lib/ultrafeedback_binarized \
    --validation_dataset_name trusted_pairs.jsonl \
    --output_dir Qwen2-0.5B-preferred
```
"""

from dataclasses import dataclass
from functools import partial

from boost_trl.scripts import sft_self_refine
from boost_trl.scripts.command_parser import CommandParser, without_bf16_on_cpu
from boost_trl.scripts.data_arguments import ValidationScriptArguments


OTHER_OPTIONS = {**sft_self_refine.OTHER_OPTIONS, "trl/trainer/dpo_config.py": "DPOConfig"}
del OTHER_OPTIONS["trl/trainer/sft_config.py"]


@dataclass
class DPOScriptArguments(ValidationScriptArguments):
    """Script arguments of `boost-trl dpo`. Files are JSON, CSV or Parquet.

    Without `validation_dataset_name` and without `dataset_validation_split` this is plain DPO.
    """


prepare = partial(sft_self_refine.prepare, trainer_name="BilevelDPOTrainer")


def own_options() -> dict[str, type]:
    """Options that `--help` shows, by title; none of them is slow to import."""
    from trl import ModelConfig

    from boost_trl.trainer.dpo.settings import DPOSettings

    return {"rows": DPOScriptArguments, "method": DPOSettings, "model": ModelConfig}


def make_parser(prog: str | None = None) -> CommandParser:
    """The command's parser."""
    from trl import DatasetMixtureConfig, ModelConfig

    from boost_trl.trainer.bilevel_dpo_config import BilevelDPOConfig

    dataclass_types = (DPOScriptArguments, BilevelDPOConfig, ModelConfig, DatasetMixtureConfig)
    return without_bf16_on_cpu(CommandParser(dataclass_types, prog))


def check_early(arguments: list[str], prog: str) -> None:
    """Refuse at once what `make_parser` and `prepare` would refuse only after seconds of imports."""
    from boost_trl.trainer.dpo.settings import DPOSettings

    sft_self_refine.check_options(arguments, prog, DPOScriptArguments, DPOSettings, OTHER_OPTIONS)


if __name__ == "__main__":
    prepare(*make_parser().parse_args_and_config())()
