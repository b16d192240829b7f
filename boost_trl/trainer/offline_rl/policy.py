"""The extracted policy of a trainer's parameters, and the reference model that it may need."""

import copy

from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from boost_trl.hub_names import resolve_model_name
from boost_trl.models.policy_with_value_heads import PolicyWithValueHeads
from boost_trl.models.value_policy import ValuePolicy
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.common.engines import without_zero3


def load_reference(args: BilevelOfflineRLConfig) -> PreTrainedModel | None:
    """The unmodified LM that `reference_model_name_or_path` names, on the device; `None` if it names none."""
    if args.reference_model_name_or_path is None:
        return None
    with without_zero3(args):
        model = AutoModelForCausalLM.from_pretrained(resolve_model_name(args.reference_model_name_or_path))
    return model.to(args.device)


def extracted_policy(
    model: PolicyWithValueHeads,
    tokenizer: PreTrainedTokenizerBase,
    generation_config: GenerationConfig,
    *,
    beta: float,
    prior: str,
    reference: PreTrainedModel | None,
) -> ValuePolicy:
    """π of θ as it stands, without dropout until training goes on. It shares the model's parameters.

    Args:
        model (`PolicyWithValueHeads`): as no engine wraps it.
        beta (`float`), prior (`str`): of [`ValuePolicy`].
        reference (`PreTrainedModel`, *optional*): π_ref, where it is not the backbone without its adapter.
    """
    policy = ValuePolicy(
        model.backbone,
        model.primary,
        beta=beta,
        prior=prior,
        reference_model=reference,
        processing_class=tokenizer,
    )
    policy.generation_config = copy.deepcopy(generation_config)
    return policy.eval()
