"""The language model that a run started from, where its checkpoints do not hold all of it."""

import json
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn

from boost_trl.models.hidden_states import base_causal_lm
from boost_trl.models.model_fingerprint import model_fingerprint
from boost_trl.trainer.common.checkpoint_error import CheckpointError
from boost_trl.trainer.common.checkpoints import SETTINGS_NAME
from boost_trl.trainer.common.engines import gathered, is_partitioned


def base_model_record(model: nn.Module, *, without_trained_modules: bool = False) -> dict[str, str]:
    """Record of the model as it is before training, for its checkpoints; made in seconds for 8 billion parameters.

    All processes have to ask for it together, and get the same. The main one reads the weights, which under FSDP
    the others may not have; of a partitioned model all have pieces.

    Args:
        model (`nn.Module`): a causal LM or a `PeftModel` around one, whole or partitioned by ZeRO-3.
        without_trained_modules (`bool`): as of [`model_fingerprint`].

    Returns:
        `dict`: `name` and `fingerprint`.
    """
    fingerprint = None
    if PartialState().is_main_process or is_partitioned(model):
        fingerprint = model_fingerprint(model, without_trained_modules=without_trained_modules, gathered=gathered)
    record = {"name": base_causal_lm(model).config._name_or_path, "fingerprint": fingerprint}
    return broadcast_object_list([record])[0]


def record_under_adapter(model: nn.Module) -> dict[str, str] | None:
    """Record of the model under an adapter, of which checkpoints hold only the modules that the adapter copies; `None`
    without an adapter."""
    return None if base_causal_lm(model) is model else base_model_record(model, without_trained_modules=True)


def check_base_model(folder: Path, present: dict[str, str] | None) -> None:
    """Compare the base model that a checkpoint records, if it does, with that of this run, if the run depends on it.

    Raises:
        CheckpointError: if they differ.
    """
    saved = json.loads((folder / SETTINGS_NAME).read_text()).get("base_model")
    if saved is not None and present is not None and saved["fingerprint"] != present["fingerprint"]:
        raise CheckpointError(
            f"{folder} was written with the base model {saved['name']!r}, from which this run's {present['name']!r} "
            "differs in weights, type or configuration; resume with the model that the run started from, or start "
            "without `resume_from_checkpoint`"
        )
