import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from boost_trl.models.value_policy import ValuePolicy


IDS = torch.tensor([[5, 6, 7, 8, 9, 3, 4], [11, 12, 13, 14, 15, 16, 60]])
SIZES = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": 0.5,
}


def folds(policy, folder):
    """Log-probabilities of the saved and plainly reloaded model equal the policy's; returns the reloaded model."""
    policy.eval()
    expected = policy(IDS).logits.log_softmax(-1)
    model = policy.to_causal_lm()
    model.save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    for candidate in (model, loaded):
        torch.testing.assert_close(candidate(input_ids=IDS).logits.log_softmax(-1), expected, rtol=0, atol=1e-5)
    assert type(loaded) is type(model)
    assert not loaded.config.tie_word_embeddings
    assert loaded.get_output_embeddings().weight.data_ptr() != loaded.get_input_embeddings().weight.data_ptr()
    assert torch.equal(policy(IDS).logits.log_softmax(-1), expected)
    return loaded


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rank", [None, 5])
def test_plain_models(architecture, tied, rank, tiny, tmp_path):
    lm = tiny.language_model(architecture, tie_word_embeddings=tied)
    policy = ValuePolicy(lm, tiny.value_heads(rank=rank), beta=1.5)
    loaded = folds(policy, tmp_path)
    assert torch.equal(loaded.get_input_embeddings().weight, lm.get_input_embeddings().weight)
    assert lm.config.tie_word_embeddings is tied
    mask = torch.ones_like(IDS)
    options = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 5}
    assert torch.equal(loaded.generate(IDS, **options), policy.generate(IDS, **options))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_merged_adapter(architecture, tiny, tmp_path):
    policy = ValuePolicy(
        tiny.lora(tiny.language_model(architecture, initializer_range=0.1)), tiny.value_heads(), beta=1.5
    )
    folds(policy, tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()


@pytest.mark.parametrize("heads", ["mean", "first"])
def test_one_of_or_the_mean_of_twin_heads(heads, tiny, tmp_path):
    folds(ValuePolicy(tiny.language_model(), tiny.value_heads("ilql"), heads=heads), tmp_path)


def test_ilql_with_one_head(tiny, tmp_path):
    folds(ValuePolicy(tiny.language_model(), tiny.value_heads("ilql", num_q_heads=1)), tmp_path)


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
def test_frozen_prior(algorithm, tiny, tmp_path):
    heads = tiny.value_heads(algorithm, train_backbone=False)
    folds(ValuePolicy(tiny.language_model(), heads, beta=0.7, prior="lm", heads="mean"), tmp_path)


@pytest.mark.parametrize("prior", ["none", "lm"])
@pytest.mark.parametrize(
    "config", [GraniteConfig(logits_scaling=8.0, **SIZES), CohereConfig(logit_scale=0.0625, **SIZES)]
)
def test_scaled_logits(config, prior, tiny, tmp_path):
    torch.manual_seed(0)
    lm = {"granite": GraniteForCausalLM, "cohere": CohereForCausalLM}[config.model_type](config)
    folds(ValuePolicy(lm, tiny.value_heads(train_backbone=False), prior=prior), tmp_path)


def test_soft_capped_logits_are_replaced_by_uncapped_ones(tiny, tmp_path):
    torch.manual_seed(0)
    lm = Gemma2ForCausalLM(Gemma2Config(final_logit_softcapping=3.0, **SIZES))
    loaded = folds(ValuePolicy(lm, tiny.value_heads(), beta=2.0), tmp_path)
    assert loaded.config.final_logit_softcapping is None and lm.config.final_logit_softcapping == 3.0


@pytest.mark.parametrize("prior", ["none", "lm"])
@pytest.mark.parametrize("bias", ["scalar", "token"])
def test_an_output_head_with_bias(bias, prior, tiny, tmp_path):
    torch.manual_seed(0)
    lm = GPTJForCausalLM(GPTJConfig(vocab_size=61, n_embd=16, n_layer=1, n_head=2, rotary_dim=8, n_positions=32))
    torch.nn.init.normal_(lm.lm_head.bias)
    folds(ValuePolicy(lm, tiny.value_heads(bias=bias, train_backbone=False), prior=prior), tmp_path)


def test_half_precision_rounds_the_head_only(tiny):
    lm = tiny.language_model("llama", initializer_range=0.1).bfloat16()
    policy = ValuePolicy(lm, tiny.value_heads()).eval()
    model = policy.to_causal_lm()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    expected = policy(IDS).logits.log_softmax(-1)
    torch.testing.assert_close(model(IDS).logits.float().log_softmax(-1), expected, rtol=0, atol=0.05)


class TestRefusals:
    def test_minimum_of_two_heads(self, tiny):
        with pytest.raises(ValueError, match="minimum.*heads='mean'.* or heads='first'"):
            ValuePolicy(tiny.language_model(), tiny.value_heads("ilql")).to_causal_lm()

    def test_token_bias_without_a_place(self, tiny):
        with pytest.raises(ValueError, match="GPT2LMHeadModel has no bias.*value_head_bias='scalar'"):
            ValuePolicy(tiny.language_model(), tiny.value_heads(bias="token")).to_causal_lm()

    def test_reference_with_its_own_forward(self, tiny):
        adapted = ValuePolicy(tiny.lora(tiny.language_model()), tiny.value_heads(), prior="lm")
        second = ValuePolicy(
            tiny.language_model(), tiny.value_heads(), prior="lm", reference_model=tiny.language_model()
        )
        for policy in (adapted, second):
            with pytest.raises(ValueError, match="train_backbone=False"):
                policy.to_causal_lm()

    def test_soft_capped_logits_under_a_prior(self, tiny):
        torch.manual_seed(0)
        lm = Gemma2ForCausalLM(Gemma2Config(final_logit_softcapping=30.0, **SIZES)).eval()
        policy = ValuePolicy(lm, tiny.value_heads(train_backbone=False), prior="lm")
        before = policy(IDS).logits
        with pytest.raises(ValueError, match="Gemma2ForCausalLM.*final_logit_softcapping"):
            policy.to_causal_lm()
        assert torch.equal(policy(IDS).logits, before)

    def test_quantized_weights(self, tiny, tmp_path):
        pytest.importorskip("bitsandbytes")
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 2}
        lm = tiny.language_model("llama", **sizes)
        lm.save_pretrained(tmp_path)
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        lm = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantization)
        policy = ValuePolicy(tiny.lora(lm), tiny.value_heads(hidden_size=64))
        assert policy.generate(IDS, max_new_tokens=2, do_sample=False).shape[1] > IDS.shape[1]
        with pytest.raises(ValueError, match="quantised"):
            policy.to_causal_lm()
