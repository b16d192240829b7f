import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPTJConfig,
    GraniteConfig,
    PhiConfig,
)

from boost_trl import ValuePolicy
from boost_trl.models.hidden_states import base_causal_lm


SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "tie_word_embeddings": True,
}
CONFIGS = {
    "granite": (GraniteConfig, {"logits_scaling": 8.0, "embedding_multiplier": 4.0}),
    "cohere": (CohereConfig, {"logit_scale": 0.0625}),
    "phi": (PhiConfig, {"tie_word_embeddings": False, "partial_rotary_factor": 0.5}),
    "gptj": (GPTJConfig, {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 8, "tie_word_embeddings": False}),
    "gemma2": (Gemma2Config, {"final_logit_softcapping": 4.0}),
    "gemma2 without a cap": (Gemma2Config, {"final_logit_softcapping": None}),
}
IDS = torch.tensor([[3, 4, 5, 6, 7], [5, 5, 9, 8, 3]])


@pytest.fixture
def make_model(tiny_tokenizer):
    def make(name):
        kind, options = CONFIGS[name]
        config = kind(**SIZES | {"vocab_size": len(tiny_tokenizer)} | options)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
            if model.get_output_embeddings().bias is not None:
                torch.nn.init.normal_(model.get_output_embeddings().bias)
        return model.eval()

    return make


def divergence(model, policy):
    """The mean KL(LM || softmax(Q)) in nats, from the two models' own forwards."""
    with torch.no_grad():
        lm, q = (m.eval()(input_ids=IDS).logits.double().log_softmax(-1) for m in (model, policy))
    return (lm.exp() * (lm - q)).sum(-1).mean().item()


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "gemma2"])
def test_softmax_of_q_starts_as_the_language_model(make_trainer, make_model, name, algorithm, caplog):
    model = make_model(name)
    trainer = make_trainer(model=model, method="vanilla", algorithm=algorithm, cql_weight=0.0)
    # The two heads of ILQL differ by 1 % of their entries.
    assert divergence(model, trainer.policy()) < {"mc": 1e-6, "ilql": 5e-3}[algorithm]
    assert "nats from the language model" not in caplog.text


@pytest.mark.parametrize("name", ["phi", "gptj"])
def test_a_bias_of_the_output_head_asks_for_token_biases(make_trainer, make_model, tmp_path, caplog, name):
    model = make_model(name)
    trainer = make_trainer(model=model, method="vanilla", cql_weight=0.0)
    assert trainer.model.primary.config.bias == "token"
    trainer.save_model()
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(input_ids=IDS).logits.log_softmax(-1)
        expected = model.eval()(input_ids=IDS).logits.log_softmax(-1)
    torch.testing.assert_close(plain, expected, rtol=0, atol=1e-4)

    scalar = make_trainer(model=make_model(name), method="vanilla", cql_weight=0.0, value_head_bias="scalar")
    start = divergence(model, scalar.policy())
    assert start > 0.05 and "nats from the language model" in caplog.text and "value_head_bias='token'" in caplog.text


def test_soft_capped_logits_start_as_near_as_one_factor_comes_and_say_how_near(make_trainer, make_model, caplog):
    model = make_model("gemma2")
    trainer = make_trainer(model=model, method="vanilla", cql_weight=0.0)
    policy = trainer.policy()
    start = divergence(model, policy)
    weight = model.get_output_embeddings().weight
    centred = weight - weight.mean(0)
    factor = (policy.value_heads.q_weight[0].flatten() @ centred.flatten() / centred.square().sum()).item()
    torch.testing.assert_close(policy.value_heads.q_weight[0], factor * centred)
    divergences = [
        divergence(model, ValuePolicy(base_causal_lm(model), policy.value_heads, beta=beta))
        for beta in (0.8, 1.25, 1 / factor)
    ]
    assert 0.01 < start < min(divergences), (start, divergences, factor)
    assert "nats from the language model" in caplog.text and "soft cap" in caplog.text


@pytest.mark.parametrize(
    "options, reason", [({"value_head_rank": 2}, "`value_head_rank`=2"), ({}, "")], ids=["rank", "full"]
)
def test_a_low_rank_says_how_far_it_is(make_trainer, make_model, caplog, options, reason):
    make_trainer(model=make_model("gemma2 without a cap"), method="vanilla", cql_weight=0.0, **options)
    assert ("nats from the language model" in caplog.text) == bool(reason) and reason in caplog.text
