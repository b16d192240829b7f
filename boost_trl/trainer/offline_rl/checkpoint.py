"""What a checkpoint needs beside the model and Trainer's own files, for an exact resume: safetensors and JSON, no pickle."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from boost_trl.models.pretrained_head import PretrainedHead
from boost_trl.models.value_heads import ValueHeads
from boost_trl.trainer.bilevel_offline_rl_config import FREE_ON_RESUME
from boost_trl.trainer.common.checkpoints import check_settings, run_settings
from boost_trl.trainer.offline_rl.validated_reweighting import ValidatedWeights


if TYPE_CHECKING:
    from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer

TENSORS_NAME = "bilevel_state.safetensors"
VALUES_NAME = "bilevel_state.json"
STATE_NAMES = (TENSORS_NAME, VALUES_NAME, ValueHeads.weights_name)

# In the heads' config for those who use them.
_NOT_OF_TRAINING = {"base_model_name_or_path", "boost_trl_version", "beta", "prior"}


def save_checkpoint_state(
    trainer: "BilevelOfflineRLTrainer", folder: Path, state_dict: dict[str, torch.Tensor]
) -> None:
    """Write ψ, the running averages, φ's Adam, weights scored before training and every loader's position.

    Args:
        state_dict (`dict`): of the whole `trainer.model`.
    """
    tensors = {name: value for name, value in state_dict.items() if name.startswith("auxiliary.")}
    tensors.update({f"auxiliary_adapter.{name}": state_dict[name] for name in trainer.model.auxiliary_adapter()})
    if trainer.parameter_average.count:
        tensors.update({f"average.{name}": value for name, value in trainer.parameter_average.means.items()})
    if trainer.reweighter is not None:
        for index, state in trainer.reweighter.optimizer.state_dict()["state"].items():
            tensors.update({f"reweighting_optimizer.{index}.{name}": value for name, value in state.items()})
    if trainer.validated is not None:
        tensors.update(trainer.validated.tensors())
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / TENSORS_NAME)
    (folder / VALUES_NAME).write_text(json.dumps(_values(trainer), indent=2) + "\n")


def _values(trainer: "BilevelOfflineRLTrainer") -> dict[str, Any]:
    return {
        "data_fingerprint": trainer.data_fingerprint,
        "averaged": trainer.parameter_average.count,
        "positions": {name: sampler.position for name, sampler in trainer.samplers.items()},
        "num_tokens": trainer.num_tokens,
    }


def _check_head(head: PretrainedHead, folder: Path, what: str) -> None:
    saved, present = json.loads((folder / head.config_name).read_text()), asdict(head.config)
    for name in present.keys() - _NOT_OF_TRAINING:
        if saved[name] != present[name]:
            raise ValueError(
                f"{folder / head.config_name} has `{name}` {saved[name]!r}, this run has {present[name]!r}: resume with "
                f"the same model, {what}"
            )


def load_checkpoint_state(trainer: "BilevelOfflineRLTrainer", folder: Path) -> None:
    """Continue where `save_checkpoint_state` left off. Under DeepSpeed the parameters are not touched, which it restores.

    Raises:
        ValueError: if the checkpoint belongs to a run with another objective, dataset or shape of heads.
    """
    check_settings(folder, run_settings(trainer.args, FREE_ON_RESUME))
    values, present = json.loads((folder / VALUES_NAME).read_text()), _values(trainer)
    if values["data_fingerprint"] != present["data_fingerprint"]:
        raise ValueError(
            f"{folder} was written with other training or validation data (or another tokenizer, chat template, "
            "`max_length` or discount); resume with the same ones"
        )
    _check_head(trainer.model.primary, folder, "rewards and `value_head_*` settings")
    if trainer.reweighter is not None:
        _check_head(trainer.reweighter.head, folder, "`reweighting_head_*` settings")
    tensors = load_file(folder / TENSORS_NAME)

    def under(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    if trainer.model.auxiliary is not None and not trainer.is_deepspeed_enabled:
        trainer.model.auxiliary.load_state_dict(under("auxiliary."))
        adapter = under("auxiliary_adapter.")
        for name, parameter in trainer.model.auxiliary_adapter().items():
            parameter.data.copy_(adapter[name])
    trainer.parameter_average.count = values["averaged"]
    trainer.parameter_average.means = under("average.")
    if trainer.reweighter is not None:
        optimizer = trainer.reweighter.optimizer
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in under("reweighting_optimizer.").items():
            index, key = name.split(".", 1)
            states.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    if trainer.args.scores_rows:
        trainer.validated = ValidatedWeights.load(folder, tensors)
    for name, position in values["positions"].items():
        trainer.samplers[name].position = position
    trainer.num_tokens = values["num_tokens"]
