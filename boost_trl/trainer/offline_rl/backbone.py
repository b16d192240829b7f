"""The language model under [`BilevelOfflineRLTrainer`]: loading it, refusing what cannot be trained, and giving it value
heads."""

import copy
from typing import Any

import numpy as np
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.trainer_utils import set_seed

from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.hub_names import resolve_model_name
from boost_trl.models.hidden_states import base_causal_lm
from boost_trl.models.policy_with_value_heads import PolicyWithValueHeads
from boost_trl.models.value_heads import ValueHeads, ValueHeadsConfig
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.common.engines import gathered
from boost_trl.trainer.offline_rl.value_head_initialization import output_matrix


def load_model(model, args, processing_class, quantization_config, peft_config):
    """The causal LM (with its adapter) and its tokenizer.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`), processing_class, quantization_config, peft_config: as of
            [`BilevelOfflineRLTrainer`].
        args (`BilevelOfflineRLConfig`): of the training.

    Raises:
        ValueError: for what cannot be trained so, and a reference model that is not there.
    """
    options = dict(args.model_init_kwargs or {})
    if isinstance(model, str):
        model = resolve_model_name(model, **options)
        # As TRL's trainers: float32 unless asked otherwise, not the type of the file.
        model = AutoModelForCausalLM.from_pretrained(
            model, **{"dtype": "float32", **options}, quantization_config=quantization_config
        )
    elif quantization_config is not None or options:
        raise ValueError("`quantization_config` and `model_init_kwargs` apply to a model given by name")
    is_quantized = getattr(base_causal_lm(model), "is_quantized", False)
    for module in model.modules():
        # On a CPU bitsandbytes repacks 4-bit weights at the first evaluation, and the repacked ones have no backward.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if peft_config is not None:
        from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training

        if isinstance(model, PeftModel):
            raise ValueError("the model has an adapter already: leave `peft_config` out, or merge the adapter first")
        if is_quantized:
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        # An adapter starts at random. PEFT writes into the configuration, which may be another model's as well.
        set_seed(args.seed)
        model = get_peft_model(model, copy.deepcopy(peft_config))
    _check_adapter(model, args, is_quantized)
    if processing_class is None:
        name = base_causal_lm(model).config._name_or_path
        if not name:
            raise ValueError("`processing_class` is required: this model has no name to load a tokenizer by")
        known = {
            key: options[key] for key in ("revision", "trust_remote_code", "token", "cache_dir") if key in options
        }
        processing_class = AutoTokenizer.from_pretrained(name, **known)
    _check_reference(model, args)
    _pad_alike(base_causal_lm(model), processing_class)
    return model, processing_class


def _pad_alike(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """One padding token for tokenizer and model from the start, as TRL's trainers have it; else `Trainer` sets the model's at
    its first step and warns."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is not None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def _check_adapter(model: nn.Module, args: BilevelOfflineRLConfig, is_quantized: bool) -> None:
    if base_causal_lm(model) is model:
        if args.auxiliary_policy == "adapter":
            raise ValueError("`auxiliary_policy='adapter'` needs an adapter: pass `peft_config=LoraConfig(...)`")
        if is_quantized and args.train_backbone:
            raise ValueError(
                "quantised weights cannot be trained: pass `peft_config` to train an adapter on them, or set "
                "`train_backbone=False`"
            )
        return
    adapter = model.active_peft_config
    if not args.train_backbone:
        raise ValueError(
            "the model has an adapter, but `train_backbone` is false, which trains heads on an unmodified LM: leave "
            "`peft_config` out, or merge the adapter first (`model.merge_and_unload()`)"
        )
    if adapter.is_prompt_learning:
        raise ValueError(
            f"adapters of type {adapter.peft_type.value} put learned prompts before the input, which value heads do not "
            "support: use LoRA or another adapter of the weights"
        )
    if model.active_adapter != "default":
        raise ValueError(
            f"the active adapter is called {model.active_adapter!r}, and PEFT would save it in a subfolder: load it with "
            "`adapter_name='default'`"
        )
    if args.auxiliary_policy == "adapter" and adapter.peft_type.value != "LORA":
        raise ValueError(f"`auxiliary_policy='adapter'` needs a LoRA adapter, not {adapter.peft_type.value}")


def _check_reference(model: nn.Module, args: BilevelOfflineRLConfig) -> None:
    """π_ref must be there before hours of training, not after."""
    name = args.reference_model_name_or_path
    lm = base_causal_lm(model)
    if name is None:
        if args.policy_prior == "lm" and args.train_backbone and lm is model:
            raise ValueError(
                "`policy_prior='lm'` needs the LM as it was before training, and this backbone is trained as a whole: "
                "name the LM in `reference_model_name_or_path`, train an adapter (`peft_config`), or set "
                "`train_backbone=False`"
            )
        return
    try:
        config = AutoConfig.from_pretrained(resolve_model_name(name)).get_text_config()
    except (OSError, ValueError) as error:
        raise ValueError(f"`reference_model_name_or_path` is {name!r}, which does not open: {error}") from error
    if config.vocab_size != lm.config.get_text_config().vocab_size:
        raise ValueError(
            f"`reference_model_name_or_path` is {name!r} with {config.vocab_size} tokens, but the model has "
            f"{lm.config.get_text_config().vocab_size}: it must be the LM that training starts from"
        )


def with_value_heads(
    model: nn.Module, args: BilevelOfflineRLConfig, training: TrajectoryStore
) -> PolicyWithValueHeads:
    """The model with θ and, for the bilevel methods, ψ; what is not trained requires no gradient.

    Args:
        training (`TrajectoryStore`): training rows, for the normalisation of returns.

    Raises:
        ValueError: if the backbone is to be trained and has nothing that requires a gradient.
    """
    if not args.train_backbone:
        model.requires_grad_(False)
    elif not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "no parameter of the model requires a gradient although `train_backbone` is true: pass `peft_config`, "
            "set `train_backbone=False`, or unfreeze the model with `model.requires_grad_(True)`"
        )
    lm = base_causal_lm(model)
    if lm.get_output_embeddings().weight is not lm.get_input_embeddings().weight:
        # Vocabulary logits are never computed: an output head of its own gets no gradient, for which DDP would wait.
        lm.get_output_embeddings().requires_grad_(False)
    with gathered(model.parameters()):
        config = value_heads_config(model, args, training)
    return PolicyWithValueHeads(
        model,
        ValueHeads(config),
        ValueHeads(config) if args.is_bilevel else None,
        separate_adapters=args.auxiliary_policy == "adapter",
    )


def tokenize_options(model: nn.Module, args: BilevelOfflineRLConfig) -> dict[str, Any]:
    """Arguments of `tokenize_trajectories` from the configuration; no row may be longer than the model's context."""
    positions = getattr(base_causal_lm(model).config.get_text_config(), "max_position_embeddings", None)
    return {
        "max_length": args.max_length if positions is None else min(args.max_length, positions),
        "discount": args.discount,
        "discount_level": args.discount_level,
    }


def fit_return_normalization(store: TrajectoryStore, algorithm: str) -> tuple[float, float]:
    """(shift, scale) of the returns of all action tokens: their mean and standard deviation."""
    returns = store.action_returns.astype(np.float64)
    spread = float(returns.std())
    # V(s') = 0 after the end ties ILQL's zero to the environment's, so only MC may shift.
    return float(returns.mean()) if algorithm == "mc" else 0.0, spread if spread > 1e-8 else 1.0


def value_heads_config(model: nn.Module, args: BilevelOfflineRLConfig, store: TrajectoryStore) -> ValueHeadsConfig:
    """Shapes from the model, normalisation constants from the configuration or from the training set's returns."""
    vocab_size, hidden_size = output_matrix(model).shape
    output_head = base_causal_lm(model).get_output_embeddings()
    shift, scale = fit_return_normalization(store, args.algorithm) if args.normalize_returns else (0.0, 1.0)
    return ValueHeadsConfig(
        algorithm=args.algorithm,
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        num_q_heads=1 if args.algorithm == "mc" else 2,
        # A head without a place for the LM's token biases could not start as the LM.
        bias=args.value_head_bias or ("scalar" if output_head.bias is None else "token"),
        rank=args.value_head_rank,
        with_targets=args.algorithm == "ilql" and args.target_update_rate is not None,
        return_shift=shift if args.return_shift is None else args.return_shift,
        return_scale=scale if args.return_scale is None else args.return_scale,
        train_backbone=args.train_backbone,
        beta=args.beta,
        prior=args.policy_prior,
        reference_model_name_or_path=args.reference_model_name_or_path,
        base_model_name_or_path=base_causal_lm(model).config._name_or_path or None,
    )
