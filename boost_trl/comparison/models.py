"""Language models by name, as TRL's [`~trl.ModelConfig`] describes them: GPT-2, or a large one with QLoRA."""

from pathlib import Path

import torch
import xxhash
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)
from trl import ModelConfig, get_quantization_config

from boost_trl.hub_names import resolve_model_name


def load_tokenizer(model_args: ModelConfig) -> PreTrainedTokenizerBase:
    name = resolve_model_name(model_args.model_name_or_path)
    return AutoTokenizer.from_pretrained(name, revision=model_args.model_revision)


def files_fingerprint(model_args: ModelConfig) -> str | None:
    """A hash of the files of a model that is a folder here, so that results of what it held before are not taken for its own;
    `None` for a model of the Hub, whose name and revision say what it holds."""
    folder = Path(resolve_model_name(model_args.model_name_or_path))
    if not folder.is_dir():
        return None
    digest = xxhash.xxh3_128()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while piece := file.read(2**24):
                digest.update(piece)
    return digest.hexdigest()


def load_model(model_args: ModelConfig, training_args: TrainingArguments) -> PreTrainedModel:
    """The model on the training device, in 4 or 8 bits if asked for; an adapter comes later, from the trainer.

    Quantised weights compute in bfloat16 under `bf16=True`, as the rest does.
    """
    quantization = get_quantization_config(model_args)
    if quantization is not None and training_args.bf16:
        quantization.bnb_4bit_compute_dtype = torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(
        resolve_model_name(model_args.model_name_or_path),
        **{
            "revision": model_args.model_revision,
            "dtype": model_args.dtype,
            "attn_implementation": model_args.attn_implementation,
            "quantization_config": quantization,
            # bitsandbytes cannot move a model to another device once it is loaded.
            "device_map": None if quantization is None else {"": training_args.device},
            **(training_args.model_init_kwargs or {}),
        },
    )
    return model.eval() if quantization is not None else model.to(training_args.device).eval()
