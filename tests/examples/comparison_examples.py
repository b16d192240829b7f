"""Running the comparison examples in tests: loading a script, and tiny models of the architectures that YAML files name."""

import importlib.util
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, PreTrainedTokenizerFast


EXAMPLES = Path(__file__).parents[2] / "examples"
# Of the embedded run; the model is made ignorant by the tests themselves.
QUICK = "--dialogues 120 --validation_rows 10 --max_steps 20 --games 8 --validation_games 4".split()


def load_example(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def run_example(example, folder, *flags):
    """The rows of `results.json`."""
    example.WORLD.compare(*example.WORLD.parse(["--output_dir", str(folder), *map(str, flags)]))
    return json.loads((folder / "results.json").read_text())


def save_tiny_model(folder, architecture, texts):
    """A random model of few parameters with a tokenizer of its own, byte-level as GPT-2's and Llama-3's are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    sizes = {"vocab_size": len(fast), "bos_token_id": 0, "eos_token_id": 0}
    deep = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {
        "gpt2": lambda: GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=1024, **sizes),
        "llama": lambda: LlamaConfig(max_position_embeddings=1024, tie_word_embeddings=False, **deep, **sizes),
        "gpt_neox": lambda: GPTNeoXConfig(max_position_embeddings=1024, **deep, **sizes),
    }[architecture]()
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)
