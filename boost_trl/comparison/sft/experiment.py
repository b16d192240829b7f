"""Model and data that all methods of a comparison of supervised fine-tuning share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class SFTExperiment:
    """A pool of mixed quality whose good rows are known to the comparison, though not to the methods.

    All datasets have `prompt` and `completion`.

    Args:
        make_model (`Callable[[], PreTrainedModel]`): a fresh copy of what every method starts from.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        pool (`Dataset`): training rows, with `is_good` (bool) and `kind` (str): what a row is, for pictures.
        validation (`Dataset`): the small trusted set.
        evaluation (`Dataset`): trusted rows that nothing trains on.
        clean_evaluation (`Dataset`): rows like the pool's good ones that nothing trains on.
        holdout (`Dataset`): trusted rows that nothing trains on either, to choose between methods.
        make_peft_config (`Callable`, *optional*): a fresh adapter's settings.
        model_name (`str`, *optional*): what `make_model` and `make_peft_config` make; results of another are not reused.
    """

    make_model: Callable[[], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    pool: Dataset
    validation: Dataset
    evaluation: Dataset
    clean_evaluation: Dataset
    holdout: Dataset
    make_peft_config: Callable[[], Any] | None = None
    model_name: str = ""
