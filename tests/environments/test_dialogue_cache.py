"""Dialogues whose earlier turns are not read again, beside the same read from their beginning at every turn."""

import pytest
import torch
from toy_game import CHATML, COLON, GuessNumber, byte_tokenizer, tiny_model
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from boost_trl.environments.policies import GenerationPolicy
from boost_trl.environments.rollout import rollout


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


def make_model(kind, tokenizer):
    if kind == "gpt2":
        model = tiny_model(tokenizer, positions=1024)
    else:
        torch.manual_seed(0)
        config, cls = {"llama": (LlamaConfig, LlamaForCausalLM), "mistral": (MistralConfig, MistralForCausalLM)}[kind]
        window = {"sliding_window": 24} if kind == "mistral" else {}
        options = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "initializer_range": 0.3}
        model = cls(config(**SIZES, **options, **window))
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.double().eval()


class Reads:
    """Numbers of tokens that a model reads at a time."""

    def __init__(self, model):
        self.columns = []
        model.register_forward_pre_hook(self.add, with_kwargs=True)

    def add(self, model, args, inputs):
        self.columns.append(inputs["input_ids"].shape[1])


def dialogues(policy, turns=5):
    """Replies to five dialogues, of which one ends early, one joins late and one changes what it has said."""
    conversations = [[{"role": "user", "content": "It is even. " * (2 + n)}] for n in range(5)]
    replies = []
    for turn in range(turns):
        if turn == 2:
            del conversations[1]
        if turn == 4:
            conversations.append([{"role": "user", "content": "Another."}])
        replies.append(policy(conversations))
        for number, (conversation, reply) in enumerate(zip(conversations, replies[-1])):
            said = reply[:3] if number == 2 else reply
            conversation += [
                {"role": "assistant", "content": said},
                {"role": "user", "content": "Higher. " * (1 + number % 3)},
            ]
    return replies


@pytest.mark.parametrize("template", [CHATML, COLON], ids=["ChatML", "ended by text"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral"])
def test_replies_are_those_of_dialogues_read_from_their_beginning(kind, template):
    tokenizer = byte_tokenizer(template)
    model = make_model(kind, tokenizer)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=9)
    expected = dialogues(GenerationPolicy(model, tokenizer, generation_config=greedy))
    assert len({reply for replies in expected for reply in replies}) > 5
    reads, policy = Reads(model), GenerationPolicy(model, tokenizer, generation_config=greedy)
    with policy.remembering():
        assert dialogues(policy) == expected
    read = [columns for columns in reads.columns if columns > 1]
    if kind == "mistral":  # it forgets what is beyond its window
        assert min(read) > 50
    else:
        assert len(read) == 5 and max(read[1:4]) < min(read[0], read[4])


def test_nothing_is_kept_between_rollouts_nor_beyond_them():
    """The model has learned meanwhile."""
    tokenizer = byte_tokenizer(CHATML)
    model = make_model("llama", tokenizer)
    policy = GenerationPolicy(model, tokenizer, max_new_tokens=6, seed=0)
    tasks = GuessNumber().tasks()[:4]
    rollout(policy, GuessNumber(), tasks, progress=False)
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
        model.model.layers[0].self_attn.v_proj.weight.mul_(-3)
    policy._seeds = None
    torch.manual_seed(1)
    found = rollout(policy, GuessNumber(), tasks, progress=False)["messages"][:]
    torch.manual_seed(1)
    fresh = GenerationPolicy(model, tokenizer, max_new_tokens=6)
    assert found == rollout(fresh, GuessNumber(), tasks, progress=False)["messages"][:]
    torch.manual_seed(1)
    read_anew = rollout(fresh.reply, GuessNumber(), tasks, progress=False)["messages"][:]
    assert found == read_anew


def test_a_dialogue_as_long_as_the_models_context_is_read_anew():
    tokenizer = byte_tokenizer(CHATML)
    model = tiny_model(tokenizer, positions=200).double().eval()
    greedy = GenerationConfig(do_sample=False, max_new_tokens=9)
    expected = dialogues(GenerationPolicy(model, tokenizer, generation_config=greedy))
    policy = GenerationPolicy(model, tokenizer, generation_config=greedy)
    with policy.remembering():
        assert dialogues(policy) == expected
