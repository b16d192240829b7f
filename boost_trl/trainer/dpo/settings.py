"""Fields that [`BilevelDPOConfig`] adds to TRL's `DPOConfig`, checked without any heavy import."""

from dataclasses import dataclass, field

from boost_trl.trainer.common.field_types import check_field_types
from boost_trl.trainer.row_weights.settings import SelectorSettings


@dataclass
class DPOSettings(SelectorSettings):
    """The fields of [`BilevelDPOConfig`] that are its own.

    Raises:
        ValueError: naming the field whose value cannot be used.
    """

    validation_loss: str = field(
        default="dpo",
        metadata={
            "help": "Loss on the validation set: 'dpo', that of the pool's pairs, or 'sft' for rows that show good answers only.",
            "choices": ["dpo", "sft"],
        },
    )

    # What is a choice for rows of tokens: pairs are never packed, and their loss is already relative to a reference.
    packing = False
    selector_baseline = None
    selection_loss = "mean"

    def __post_init__(self):
        SelectorSettings.__post_init__(self)
        check_field_types(self, DPOSettings, infinite=("selector_max_step",))
