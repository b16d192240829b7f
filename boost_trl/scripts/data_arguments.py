"""Data arguments of both training commands: TRL's script arguments and a validation set."""

from dataclasses import dataclass, field

from trl import ScriptArguments


@dataclass
class ValidationScriptArguments(ScriptArguments):
    """Those of [`~trl.ScriptArguments`] and the validation set's.

    Args:
        validation_dataset_name (`str`, *optional*): Trusted data: a dataset of the Hub, a folder, or a file of rows.
        validation_dataset_config (`str`, *optional*): Configuration of `validation_dataset_name`.
        dataset_validation_split (`str`, *optional*): Split to use: of `validation_dataset_name` (by default `"train"`)
            or else of the training dataset.
    """

    validation_dataset_name: str | None = field(
        default=None, metadata={"help": "Trusted data: a dataset of the Hub, a folder, or a file of rows."}
    )
    validation_dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of `validation_dataset_name`."}
    )
    dataset_validation_split: str | None = field(
        default=None,
        metadata={
            "help": "Split of `validation_dataset_name` (by default 'train') or else of the training dataset to learn "
            "the weights from."
        },
    )
