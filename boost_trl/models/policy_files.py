"""The files of a value policy.

What opens first is the folder itself, so it is the policy: as a plain causal LM where the policy folds into one, else as a
[`ValuePolicy`], which transformers does not know and therefore refuses by name unless boost_trl is imported. The language
model under the heads, whose own output head is no policy, lies in a folder of its own.
"""

from pathlib import Path

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig
from transformers.utils import ADAPTER_CONFIG_NAME, find_adapter_config_file


BACKBONE_FOLDER = "backbone"


class ValuePolicyConfig(PreTrainedConfig):
    """Says that a folder is a [`ValuePolicy`]; what it is made of is in `value_heads_config.json` and `backbone/`."""

    model_type = "boost_trl_value_policy"


AutoConfig.register(ValuePolicyConfig.model_type, ValuePolicyConfig)


def save_backbone(folder: Path, backbone: nn.Module, generation_config: GenerationConfig, **kwargs) -> None:
    """Write the language model (or adapter) under the heads, and a configuration that names [`ValuePolicy`].

    Args:
        folder (`Path`): of the policy.
        backbone (`PreTrainedModel` or `PeftModel`): goes to `folder / BACKBONE_FOLDER`.
        generation_config (`GenerationConfig`): of the policy.
        **kwargs: for the `save_pretrained` of `backbone`.
    """
    backbone.save_pretrained(folder / BACKBONE_FOLDER, **kwargs)
    # PEFT's, with blanks to fill in.
    (folder / BACKBONE_FOLDER / "README.md").unlink(missing_ok=True)
    ValuePolicyConfig(architectures=["ValuePolicy"]).save_pretrained(folder)
    generation_config.save_pretrained(folder)


def load_backbone(
    name_or_path: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    **model_kwargs,
) -> nn.Module:
    """The language model under the heads of a policy, with its adapter if it has one.

    Args:
        name_or_path (`str`): the policy's folder or Hub id.
        revision, token, cache_dir, local_files_only (*optional*): as everywhere on the Hub.
        **model_kwargs: for `AutoModelForCausalLM.from_pretrained`.
    """
    shared = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    within = shared | {"revision": revision, "subfolder": BACKBONE_FOLDER}
    # Transformers before 5.23 finds no adapter in a subfolder of a local folder.
    here = Path(name_or_path, BACKBONE_FOLDER, ADAPTER_CONFIG_NAME)
    if not here.is_file() and find_adapter_config_file(name_or_path, **within) is None:
        return AutoModelForCausalLM.from_pretrained(name_or_path, **within, **model_kwargs)
    # Here, because it takes seconds to import and only adapters need it.
    from peft import PeftConfig, PeftModel

    # Not AutoPeftModelForCausalLM: it cuts a padded vocabulary down to the tokenizer's.
    adapter = PeftConfig.from_pretrained(name_or_path, **within)
    base = AutoModelForCausalLM.from_pretrained(
        adapter.base_model_name_or_path, revision=adapter.revision, **shared, **model_kwargs
    )
    return PeftModel.from_pretrained(base, name_or_path, **within)
