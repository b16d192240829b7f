"""The policy that value heads define, as a model whose `generate` samples it."""

import copy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Cache,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import cached_file

from boost_trl.hub_names import resolve_model_name

from .fold_output_head import fold_output_head
from .hidden_states import adapters_disabled, base_causal_lm, output_with_hidden_states
from .policy_card import PolicyCard, value_policy_card
from .policy_files import ValuePolicyConfig, load_backbone, save_backbone
from .turn_end import turn_end
from .value_heads import ValueHeads, ValueHeadsConfig


class ValuePolicy(PreTrainedModel, GenerationMixin):
    r"""A causal LM whose logits are read off value heads, so that ordinary `generate` (KV cache, left-padded batches,
    temperature, top-k, beams, …) samples the extracted policy:

    - `prior="none"`: \\( \pi(a \mid s) \propto \exp(\beta Q(s,a)) \\), the rule of the paper;
    - `prior="lm"`: \\( \pi(a \mid s) \propto \pi_\mathrm{ref}(a \mid s) \exp(\beta (Q(s,a) - V(s))) \\), that of ILQL, with
      π_ref the *unmodified* language model.

    V(s) is one number per state and changes no probability. β acts on the normalised Q that the heads were trained on.

    Args:
        causal_lm (`PreTrainedModel` or `PeftModel`): The language model that the heads sit on.
        value_heads ([`ValueHeads`]): Heads on its final hidden state.
        beta (`float`, *optional*, defaults to `1.0`): \\( \beta \\).
        prior (`str`, *optional*, defaults to `"none"`): `"none"` or `"lm"`.
        heads (`str`, *optional*, defaults to `"min"`): Which Q acts when there are several heads: their `"min"`, their
            `"mean"`, or the `"first"`.
        reference_model (`PreTrainedModel`, *optional*): π_ref, run beside the policy with a KV cache of its own.
            Without one, `prior="lm"` uses the adapters' base model (adapters off, again with its own cache), or the
            same forward pass where the heads' configuration says that the backbone was not trained.
        processing_class (`PreTrainedTokenizerBase`, *optional*): The tokenizer, saved and uploaded along.

    Raises:
        ValueError: if an option is none of its choices, the heads have another width or vocabulary than the model, the
            adapter is a learned prompt, or `prior="lm"` has no reference.

    Example:

    ```python
    >>> policy = ValuePolicy.from_pretrained("outputs/twenty-questions", beta=2.0)
    >>> policy.generate(**tokenizer("Is it", return_tensors="pt"), do_sample=True, max_new_tokens=8)
    ```
    """

    config_class = ValuePolicyConfig
    base_model_prefix = "causal_lm"
    # Whatever attention the language model was built with; it checked that itself.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(
        self,
        causal_lm: nn.Module,
        value_heads: ValueHeads,
        beta: float = 1.0,
        prior: str = "none",
        heads: str = "min",
        reference_model: PreTrainedModel | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
    ):
        _check_options(prior, heads)
        lm = base_causal_lm(causal_lm)
        if lm is not causal_lm and causal_lm.active_peft_config.is_prompt_learning:
            raise ValueError(
                f"adapters of type {causal_lm.active_peft_config.peft_type.value} put learned prompts before the input, "
                "which value heads do not support; use LoRA or another adapter of the weights"
            )
        config, head_shape = value_heads.config, tuple(lm.get_output_embeddings().weight.shape)
        if (config.vocab_size, config.hidden_size) != head_shape:
            raise ValueError(
                f"the value heads are for (vocab_size, hidden_size) {config.vocab_size, config.hidden_size}, the "
                f"language model has {head_shape}; they belong to {config.base_model_name_or_path or 'another model'}"
            )
        if prior == "lm" and reference_model is None and lm is causal_lm and config.train_backbone:
            raise ValueError(
                "prior='lm' needs the language model as it was before training, and this backbone was trained: name it "
                "with reference_model_name_or_path (or pass reference_model), or use prior='none'"
            )
        super().__init__(lm.config)
        self.generation_config = lm.generation_config
        self.causal_lm = causal_lm
        self.value_heads = value_heads
        self.beta = beta
        self.prior = prior
        self.heads = heads
        self.reference_model = reference_model
        self.processing_class = processing_class

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        beta: float | None = None,
        prior: str | None = None,
        heads: str | None = None,
        reference_model_name_or_path: str | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        config: ValuePolicyConfig | None = None,
        adapter_kwargs: dict | None = None,
        **model_kwargs,
    ) -> "ValuePolicy":
        """Load a trainer's `output_dir` or checkpoint, or what [`~ValuePolicy.save_pretrained`] wrote.

        Args:
            pretrained_model_name_or_path (`str` or `Path`): Local folder or Hub id.
            beta (`float`, *optional*), prior (`str`, *optional*), heads (`str`, *optional*): See [`ValuePolicy`]; by
                default those that were saved with the heads.
            reference_model_name_or_path (`str`, *optional*): π_ref for `prior="lm"`, needed when the whole backbone
                was trained; by default the one that was saved.
            revision, token, cache_dir, local_files_only (*optional*): As everywhere on the Hub.
            config, adapter_kwargs (*optional*): Not used: `AutoModelForCausalLM` passes them.
            **model_kwargs:
                For `AutoModelForCausalLM.from_pretrained`, e.g. `dtype`, `device_map`, `attn_implementation`.

        Returns:
            [`ValuePolicy`] in evaluation mode.

        Raises:
            FileNotFoundError: if the folder has no value heads; the message names the missing file.
            ValueError: as [`ValuePolicy`].
        """
        _check_options(prior or "none", heads or "min")
        path = str(pretrained_model_name_or_path)
        shared: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        hub = shared | {"revision": revision}
        value_heads = ValueHeads.from_pretrained(path, **hub)
        saved = value_heads.config
        prior = saved.prior if prior is None else prior
        causal_lm = load_backbone(path, **hub, **model_kwargs)
        reference_model = None
        reference = reference_model_name_or_path or saved.reference_model_name_or_path
        if reference is not None and (prior == "lm" or reference_model_name_or_path is not None):
            reference_model = AutoModelForCausalLM.from_pretrained(
                resolve_model_name(reference, **shared), **shared, **model_kwargs
            )
        value_heads.to(base_causal_lm(causal_lm).get_output_embeddings().weight.device)
        policy = cls(
            causal_lm,
            value_heads,
            saved.beta if beta is None else beta,
            prior,
            saved.heads if heads is None else heads,
            reference_model,
        )
        policy.generation_config = GenerationConfig.from_pretrained(path, **hub)
        if cached_file(path, "tokenizer_config.json", **hub, _raise_exceptions_for_missing_entries=False):
            policy.processing_class = AutoTokenizer.from_pretrained(path, **hub)
        return policy.eval()

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> None:
        """Write the policy with its β, prior and choice of heads; [`~ValuePolicy.from_pretrained`] reads it. Where it folds
        (see [`~ValuePolicy.to_causal_lm`]), `AutoModelForCausalLM` opens the folder as well.

        Args:
            save_directory (`str` or `Path`): Folder.
            **kwargs:
                For the `save_pretrained` of the language models, e.g. `max_shard_size`.
        """
        self._save(Path(save_directory), **kwargs)

    def _save(self, folder: Path, **kwargs) -> str | None:
        """Save the policy; returns the reason why it did not fold, `None` if it did."""
        save_backbone(folder, self.causal_lm, self.generation_config, **kwargs)
        value_heads = copy.copy(self.value_heads)
        value_heads.config = self._heads_config()
        value_heads.save_pretrained(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        return save_plain_model(folder, self, **kwargs)

    def _heads_config(self) -> ValueHeadsConfig:
        """The heads' configuration with this policy's options."""
        config = self.value_heads.config
        reference = config.reference_model_name_or_path
        if self.reference_model is not None:
            reference = self.reference_model.config._name_or_path or reference
        return replace(
            config, beta=self.beta, prior=self.prior, heads=self.heads, reference_model_name_or_path=reference
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        tags: list[str] | None = None,
        max_shard_size: int | str = "50GB",
        **commit_kwargs,
    ):
        """Upload what [`~ValuePolicy.save_pretrained`] writes, with a model card, to a repository that is created if needed.

        Args:
            repo_id (`str`): `"namespace/name"`.
            private (`bool`, *optional*): Visibility of a repository that is created.
            token (`str` or `bool`, *optional*): Hub token; by default the stored login.
            tags (`list[str]`, *optional*): For the card.
            max_shard_size (`int` or `str`, *optional*, defaults to `"50GB"`): Of a file of weights.
            **commit_kwargs:
                `commit_message`, `commit_description`, `revision`, `create_pr` of [`~huggingface_hub.HfApi.upload_folder`].

        Returns:
            [`~huggingface_hub.CommitInfo`]
        """
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            card = PolicyCard(
                place=repo_id,
                heads=self._heads_config(),
                is_adapter=self._has_adapter,
                why_not_plain=self._save(Path(folder), max_shard_size=max_shard_size),
                stop_text=None if self.processing_class is None else turn_end(self.processing_class).text,
            )
            value_policy_card(card, tags).save(Path(folder, "README.md"))
            commit_kwargs.setdefault("commit_message", f"Upload {type(self).__name__}")
            return api.upload_folder(repo_id=repo_id, folder_path=folder, **commit_kwargs)

    def get_input_embeddings(self) -> nn.Module:
        return base_causal_lm(self.causal_lm).get_input_embeddings()

    def prepare_inputs_for_generation(self, *args, **kwargs):
        return base_causal_lm(self.causal_lm).prepare_inputs_for_generation(*args, **kwargs)

    def _reorder_cache(self, past_key_values: Cache, beam_idx: torch.Tensor) -> Cache:
        past_key_values.reorder_cache(beam_idx)
        if self._has_own_reference:
            past_key_values.reference_cache.reorder_cache(beam_idx)
        return past_key_values

    @property
    def _has_own_reference(self) -> bool:
        """Whether π_ref needs a forward pass of its own."""
        return self.prior == "lm" and (self.reference_model is not None or self._has_adapter)

    @property
    def _has_adapter(self) -> bool:
        return base_causal_lm(self.causal_lm) is not self.causal_lm

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Logits of the policy, up to a constant per position.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`), attention_mask, position_ids, past_key_values, use_cache:
                As the language model's. With `prior="lm"` and a reference of its own, the reference's keys and values
                travel with `past_key_values`.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to `0`): How many of the last positions, or
                which positions, are projected; 0 for all.
            **kwargs:
                Passed on to the language model.

        Returns:
            [`~transformers.modeling_outputs.CausalLMOutputWithPast`]: `logits` (B, kept, V) in float32.

        Raises:
            ValueError: if the reference has not seen what `past_key_values` holds.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        inputs |= {"use_cache": use_cache, **kwargs}
        reference_cache = self._reference_cache(past_key_values) if self._has_own_reference else None
        lm = base_causal_lm(self.causal_lm)
        if self.prior == "lm" and not self._has_own_reference:
            output, hidden = output_with_hidden_states(
                lm, **inputs, past_key_values=past_key_values, logits_to_keep=logits_to_keep
            )
            reference_logits = output.logits
        else:
            output = lm.base_model(**inputs, past_key_values=past_key_values)
            hidden = output.last_hidden_state
        if self._has_own_reference:
            reference = self._run_reference(inputs | {"past_key_values": reference_cache}, logits_to_keep)
            reference_logits = reference.logits
            if output.past_key_values is not None:
                output.past_key_values.reference_cache = reference.past_key_values

        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else logits_to_keep
        hidden = hidden if isinstance(kept, int) else hidden[:, kept]
        q = self.value_heads.q_logits(hidden, self.heads)
        if self.prior == "none":
            logits = self.beta * q
        else:
            if self.value_heads.config.algorithm == "ilql":
                q = q - self.value_heads.values(hidden).unsqueeze(-1)
            logits = reference_logits.to(q.device, torch.float32).log_softmax(dim=-1) + self.beta * q
        return CausalLMOutputWithPast(
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def _run_reference(self, inputs: dict, logits_to_keep: int | torch.Tensor) -> CausalLMOutputWithPast:
        if self.reference_model is not None:
            return self.reference_model(**inputs, logits_to_keep=logits_to_keep)
        with adapters_disabled(self.causal_lm):
            return base_causal_lm(self.causal_lm)(**inputs, logits_to_keep=logits_to_keep)

    def _reference_cache(self, past_key_values: Cache | None) -> Cache | None:
        if past_key_values is None:
            return None
        if hasattr(past_key_values, "reference_cache"):
            return past_key_values.reference_cache
        if past_key_values.get_seq_length():
            raise ValueError(
                "past_key_values was not filled by this policy: with prior='lm' the reference model has to read the "
                "prefix as well; pass an empty cache"
            )
        return DynamicCache(config=(self.reference_model or base_causal_lm(self.causal_lm)).config)

    def to_causal_lm(self) -> PreTrainedModel:
        r"""The same policy as a plain causal LM: β Q becomes its (untied) output head, adapters are merged.

        Its log-probabilities are the policy's, in the language model's dtype: load the policy in float32 where the
        rounding of a half-precision head matters. The policy itself does not change.

        Returns:
            `PreTrainedModel`: of the language model's class, in evaluation mode; saved, `AutoModelForCausalLM` opens it.

        Raises:
            ValueError: if the policy is not one linear map of the hidden state: the minimum of several heads, a reference
                other than the same forward pass, a token bias without a place in the architecture, bent logits, or a
                quantised model.
        """
        several = self.value_heads.config.num_q_heads > 1
        if several and self.heads == "min":
            raise ValueError(
                "the minimum of several Q heads is not linear and cannot fold; a policy of one head or of their mean "
                "can: ValuePolicy(…, heads='mean') or heads='first'"
            )
        if self._has_own_reference:
            raise ValueError(
                "prior='lm' folds only where the reference is the same forward pass, that is with a frozen, unmodified "
                "backbone (train_backbone=False) and no reference model; prior='none' folds"
            )
        if any(parameter.element_size() == 1 for parameter in self.causal_lm.parameters()):
            raise ValueError(
                "a quantised model cannot fold: an adapter does not merge into it exactly, and a copy may not reload as "
                "it was; load the policy without quantisation"
            )
        model = copy.deepcopy(self.causal_lm)
        if self._has_adapter:
            model = model.merge_and_unload()
        weight, bias = self.value_heads.folded(self.heads if several else "first")
        device = model.get_output_embeddings().weight.device
        weight, bias = self.beta * weight.to(device), self.beta * bias.to(device)
        model.eval()
        fold_output_head(model, weight, bias, add=self.prior == "lm")
        model.generation_config = copy.deepcopy(self.generation_config)
        return model


AutoModelForCausalLM.register(ValuePolicyConfig, ValuePolicy)


def save_plain_model(folder: Path, policy: ValuePolicy, **kwargs) -> str | None:
    """Write the policy as a plain causal LM, in the place of the configuration that names [`ValuePolicy`].

    Returns:
        `str`: why the policy does not fold into one, in which case nothing is written; `None` if it was written.
    """
    try:
        model = policy.to_causal_lm()
    except ValueError as error:
        return str(error)
    model.save_pretrained(folder, **kwargs)
    return None


def _check_options(prior: str, heads: str) -> None:
    if prior not in ("none", "lm"):
        raise ValueError(f"`prior` must be 'none' or 'lm', got {prior!r}")
    if heads not in ("min", "mean", "first"):
        raise ValueError(f"`heads` must be 'min', 'mean' or 'first', got {heads!r}")
