import functools
import gc
import importlib.metadata
import os
import random


# Offline, quiet and single-threaded: tiny models run faster on one thread than on two.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


# Accelerate looks up in the metadata of PEFT and others whether they are installed, and parses them anew at every forward.
importlib.metadata.metadata = functools.cache(importlib.metadata.metadata)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    # Nothing of what is imported here is garbage.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def what_lives_is_not_looked_at_again():
    # Accelerate collects garbage at the start of every training, and would go through all that was imported and is kept each time.
    gc.collect()
    gc.freeze()


WORDS = "user: assistant: system: yes no maybe is it big red hot tall small old ? .".split()


@pytest.fixture(scope="session")
def tiny_tokenizer():
    from boost_trl.environments.embedded_lm import word_tokenizer

    return word_tokenizer(WORDS)


@pytest.fixture
def make_tiny_model(tiny_tokenizer):
    """A function of the architecture's name ("gpt2" or "llama") that builds an untrained model without dropout."""

    def make(architecture="gpt2", seed=0, hidden_size=16):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from boost_trl.environments.embedded_lm import tiny_gpt2

        if architecture == "gpt2":
            return tiny_gpt2(tiny_tokenizer, hidden_size=hidden_size, num_layers=2, num_heads=2, seed=seed)
        config = LlamaConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=128,
            bos_token_id=tiny_tokenizer.eos_token_id,
            eos_token_id=tiny_tokenizer.eos_token_id,
            pad_token_id=tiny_tokenizer.pad_token_id,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return LlamaForCausalLM(config)

    return make


@pytest.fixture(scope="session")
def make_dialogues():
    """A function that makes random dialogues in the trajectory format."""

    def make(rows, seed=0, max_turns=4, cut_share=0.3):
        from datasets import Dataset

        rng = random.Random(seed)
        everything = []
        for _ in range(rows):
            messages, rewards = [], []
            for _ in range(rng.randint(1, max_turns)):
                messages.append({"role": "user", "content": rng.choice(["yes .", "no .", "maybe yes ."])})
                words = rng.sample(["big", "red", "hot", "tall", "small", "old"], rng.randint(1, 2))
                messages.append({"role": "assistant", "content": " ".join(["is it", *words, "?"])})
                rewards.append(-1.0)
            cut = rng.random() < cut_share
            if cut and rng.random() < 0.5:
                messages.append({"role": "user", "content": "no ."})
            elif not cut:
                rewards[-1] = float(rng.choice([0, -3]))
            everything.append(
                {
                    "messages": messages,
                    "rewards": rewards,
                    "terminated": not cut,
                    "category": rng.choice(["things", "places"]),
                    "source": rng.choice(["offline", "synthetic"]),
                }
            )
        return Dataset.from_list(everything)

    return make
