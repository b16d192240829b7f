"""Files of a policy, and of a checkpoint beside it and Trainer's own for an exact resume: safetensors and JSON, no
pickle."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE

from boost_trl.models.hidden_states import base_causal_lm
from boost_trl.models.policy_files import save_backbone
from boost_trl.models.policy_with_value_heads import PolicyWithValueHeads
from boost_trl.models.pretrained_head import PretrainedHead
from boost_trl.models.reweighting_head import ReweightingHead
from boost_trl.models.value_heads import ValueHeads
from boost_trl.trainer.bilevel_offline_rl_config import FREE_ON_RESUME, BilevelOfflineRLConfig
from boost_trl.trainer.common.base_model import check_base_model
from boost_trl.trainer.common.checkpoint_error import CheckpointError
from boost_trl.trainer.common.checkpoints import check_settings, run_settings
from boost_trl.trainer.common.endless_sampler import EndlessSampler
from boost_trl.trainer.offline_rl.parameter_average import ParameterAverage
from boost_trl.trainer.offline_rl.reweighter import Reweighter
from boost_trl.trainer.offline_rl.validated_reweighting import REPORT_NAME, ValidatedWeights


TENSORS_NAME = "bilevel_state.safetensors"
VALUES_NAME = "bilevel_state.json"

# In the heads' config for those who use them.
_NOT_OF_TRAINING = {"base_model_name_or_path", "boost_trl_version", "beta", "prior"}


@dataclass
class TrainingState:
    """State of training, beside what Trainer keeps.

    Args:
        model (`PolicyWithValueHeads`): θ, ψ and the backbone.
        average (`ParameterAverage`): of the last updates.
        samplers (`dict[str, EndlessSampler]`): with their positions.
        data_fingerprint (`str`): of training and validation rows.
        num_tokens (`int`): that training has seen.
        base_model (`dict[str, str]`, *optional*): the model before training, where more than the checkpoint holds is read.
        reweighter (`Reweighter`, *optional*): φ and its Adam.
        validated (`ValidatedWeights`, *optional*): scored before training, with ...
        fitted_head (`ReweightingHead`, *optional*): ... the head fitted to them.
    """

    model: PolicyWithValueHeads
    average: ParameterAverage
    samplers: dict[str, EndlessSampler]
    data_fingerprint: str
    num_tokens: int
    base_model: dict[str, str] | None = None
    reweighter: Reweighter | None = None
    validated: ValidatedWeights | None = None
    fitted_head: ReweightingHead | None = None

    @property
    def reweighting_head(self) -> ReweightingHead | None:
        """w_φ, or what stands for it."""
        return self.fitted_head if self.reweighter is None else self.reweighter.head


def state_names(args: BilevelOfflineRLConfig) -> list[str]:
    """The files that `load_state` reads or a policy needs, beside the backbone's."""
    names = [TENSORS_NAME, VALUES_NAME, ValueHeads.weights_name, ValueHeads.config_name, TOKENIZER_CONFIG_FILE]
    if args.learns_weights or args.scores_rows:
        names += [ReweightingHead.weights_name, ReweightingHead.config_name]
    return [*names, REPORT_NAME] if args.scores_rows else names


def save_policy(
    folder: Path,
    state: TrainingState,
    generation_config: GenerationConfig,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write backbone (or adapter) and heads, all but the tokenizer, the rows' weights and the card.

    Args:
        state_dict (`dict`, *optional*): of the whole `state.model`, where its own is in pieces.
    """
    model = state.model
    is_plain = base_causal_lm(model.backbone) is model.backbone
    save_backbone(
        folder,
        model.backbone,
        generation_config,
        state_dict=None if state_dict is None else _under("backbone.", state_dict),
        **({} if is_plain else {"selected_adapters": ["default"]}),
    )
    model.primary.save_pretrained(
        folder, state_dict=_under("primary.", model.state_dict() if state_dict is None else state_dict)
    )
    if state.reweighting_head is not None:
        state.reweighting_head.save_pretrained(folder)
    if state.validated is not None:
        state.validated.save_report(folder)


def save_state(folder: Path, state: TrainingState, state_dict: dict[str, torch.Tensor]) -> None:
    """Write ψ, the running averages, φ's Adam, weights scored before training and every sampler's position.

    Args:
        state_dict (`dict`): of the whole `state.model`.
    """
    tensors = {name: value for name, value in state_dict.items() if name.startswith("auxiliary.")}
    tensors.update({f"auxiliary_adapter.{name}": state_dict[name] for name in state.model.auxiliary_adapter()})
    if state.average.count:
        tensors.update({f"average.{name}": value for name, value in state.average.means.items()})
    if state.reweighter is not None:
        for index, values in state.reweighter.optimizer.state_dict()["state"].items():
            tensors.update({f"reweighting_optimizer.{index}.{name}": value for name, value in values.items()})
    if state.validated is not None:
        tensors.update(state.validated.tensors())
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / TENSORS_NAME)
    values = {
        "data_fingerprint": state.data_fingerprint,
        "averaged": state.average.count,
        "positions": {name: sampler.position for name, sampler in state.samplers.items()},
        "num_tokens": state.num_tokens,
    }
    (folder / VALUES_NAME).write_text(json.dumps(values, indent=2) + "\n")


def load_state(folder: Path, state: TrainingState, args: BilevelOfflineRLConfig, *, parameters: bool) -> None:
    """Put what `save_policy` and `save_state` have written into `state`, but for the backbone.

    Args:
        args (`BilevelOfflineRLConfig`): of this run.
        parameters (`bool`): load θ and ψ too; DeepSpeed restores them by itself.

    Raises:
        CheckpointError: if the checkpoint belongs to a run with another objective, dataset, shape of heads or base model.
    """
    check_settings(folder, run_settings(args, FREE_ON_RESUME))
    values = json.loads((folder / VALUES_NAME).read_text())
    if values["data_fingerprint"] != state.data_fingerprint:
        raise CheckpointError(
            f"{folder} was written with other training or validation data (or another tokenizer, chat template, "
            "`max_length` or discount); resume with the same ones"
        )
    _check_head(state.model.primary, folder, "rewards and `value_head_*` settings")
    if state.reweighter is not None:
        _check_head(state.reweighter.head, folder, "`reweighting_head_*` settings")
    check_base_model(folder, state.base_model)
    tensors = load_file(folder / TENSORS_NAME)
    if parameters:
        state.model.primary.load_state_dict(ValueHeads.from_pretrained(folder).state_dict())
        _load_auxiliary(state.model, tensors)
    state.average.count = values["averaged"]
    state.average.means = _under("average.", tensors)
    if state.reweighter is not None:
        state.reweighter.head.load_state_dict(ReweightingHead.from_pretrained(folder).state_dict())
        _load_optimizer(state.reweighter.optimizer, _under("reweighting_optimizer.", tensors))
    if args.scores_rows:
        state.validated = ValidatedWeights.load(folder, tensors)
        state.fitted_head = ReweightingHead.from_pretrained(folder)
    for name, position in values["positions"].items():
        state.samplers[name].position = position
    state.num_tokens = values["num_tokens"]


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_auxiliary(model: PolicyWithValueHeads, tensors: dict[str, torch.Tensor]) -> None:
    if model.auxiliary is not None:
        model.auxiliary.load_state_dict(_under("auxiliary.", tensors))
        adapter = _under("auxiliary_adapter.", tensors)
        for name, parameter in model.auxiliary_adapter().items():
            parameter.data.copy_(adapter[name])


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    states: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_head(head: PretrainedHead, folder: Path, what: str) -> None:
    saved, present = json.loads((folder / head.config_name).read_text()), asdict(head.config)
    for name in present.keys() - _NOT_OF_TRAINING:
        if saved[name] != present[name]:
            raise CheckpointError(
                f"{folder / head.config_name} has `{name}` {saved[name]!r}, this run has {present[name]!r}: resume with "
                f"the same model, {what}"
            )
