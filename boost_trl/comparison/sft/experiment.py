"""Model and data that all methods of a comparison of supervised fine-tuning share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class SFTExperiment:
    """A pool of mixed quality, and trusted rows. Methods see pool and validation only.

    All datasets have the same columns that SFT reads, such as `prompt` and `completion`.

    Args:
        make_model (`Callable[[], PreTrainedModel]`): a fresh copy of what every method starts from.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        pool (`Dataset`): training rows; where it is known with `is_good` (bool) and `kind` (str): what a row is, for pictures.
        validation (`Dataset`): the small trusted set.
        evaluation (`Dataset`, *optional*): trusted rows that nothing trains on.
        clean_evaluation (`Dataset`, *optional*): rows like the pool's good ones that nothing trains on.
        holdout (`Dataset`, *optional*): trusted rows that nothing trains on either, to choose between methods.
        make_peft_config (`Callable`, *optional*): a fresh adapter's settings.
        answer_tokens (`int`, *optional*): let trained models answer the questions of `evaluation` too, with at most so many tokens,
            where prompts are plain text.
        about_kinds (`dict[str, str]`, *optional*): what rows of each `kind` do, for readers of reports.
        model_name (`str`, *optional*): what `make_model` and `make_peft_config` make; results of another are not reused.
    """

    make_model: Callable[[], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    pool: Dataset
    validation: Dataset
    evaluation: Dataset | None = None
    clean_evaluation: Dataset | None = None
    holdout: Dataset | None = None
    make_peft_config: Callable[[], Any] | None = None
    answer_tokens: int | None = None
    about_kinds: Mapping[str, str] = field(default_factory=dict)
    model_name: str = ""

    def held_out(self) -> dict[str, Dataset]:
        """The sets that nothing trains on, by the name that their losses have."""
        sets = {"trusted": self.evaluation, "clean": self.clean_evaluation, "holdout": self.holdout}
        return {name: rows for name, rows in sets.items() if rows is not None}
