"""Trusted rows that show good answers only, beside a pool of preference pairs."""

from types import SimpleNamespace
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig, SFTTrainer

from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID
from boost_trl.trainer.row_weights.failed_preparation import prepare_or_name_row
from boost_trl.trainer.row_weights.losses import token_losses
from boost_trl.trainer.row_weights.validation import VALIDATION_ROWS, ValidationLoss, learns_completions_only


class AnswerValidationLoss(ValidationLoss):
    """L_0 as the mean loss of the tokens of trusted answers."""

    def loss_sum(self, model, inputs):
        inputs = {name: value for name, value in inputs.items() if name != VALIDATION_ROWS}
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        return token_losses(outputs.log_probs, "nll").sum(), outputs.label_mask.sum()


def answer_settings(args: DPOConfig) -> SimpleNamespace:
    """The arguments that `SFTTrainer` reads to prepare rows."""
    return SimpleNamespace(
        dataset_num_proc=args.dataset_num_proc,
        dataset_text_field="text",
        dataset_kwargs=None,
        assistant_only_loss=False,
        completion_only_loss=None,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
        shuffle_dataset=False,
    )


def prepare_answers(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: DPOConfig) -> Dataset:
    """Rows as `SFTTrainer` prepares them, with the columns that its collator reads and their numbers."""
    settings = answer_settings(args)
    # Of its trainer, that preparation reads these only.
    completions = learns_completions_only(dataset, settings)
    unbound = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=completions)

    def prepare(rows: Dataset) -> Any:
        return SFTTrainer._prepare_dataset(unbound, rows, tokenizer, settings, False, None, "validation")

    def name_of(place: int) -> str:
        return f"`validation_dataset`, row {dataset[place].get(EXAMPLE_ID, place)}"

    prepared = prepare_or_name_row(prepare, dataset, name_of)
    return prepared.select_columns(["input_ids", "labels", EXAMPLE_ID])
