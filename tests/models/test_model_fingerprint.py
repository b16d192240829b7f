import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from boost_trl.models.model_fingerprint import model_fingerprint, trained_fingerprint


def test_a_models_fingerprint_follows_every_entry_of_every_tensor(make_tiny_model):
    model = make_tiny_model(hidden_size=256)  # 200,000 entries in one tensor
    before = model_fingerprint(model)
    assert before == model_fingerprint(make_tiny_model(hidden_size=256))
    for name, tensor in model.state_dict().items():
        for entry in {1, tensor.numel() // 2 + 1, tensor.numel() - 1}:
            flat = tensor.view(-1)
            old = flat[entry].item()
            flat[entry] += 1e-3
            assert model_fingerprint(model) != before, (name, entry)
            flat[entry] = old
    assert model_fingerprint(model) == before


def test_another_type_is_another_model_and_another_name_is_not(make_tiny_model):
    model = make_tiny_model("llama")
    before = model_fingerprint(model)
    model.config._name_or_path = "a/copy"
    assert model_fingerprint(model) == before
    assert model_fingerprint(copy.deepcopy(model).bfloat16()) != before


def test_a_buffer_that_no_checkpoint_holds_counts(make_tiny_model):
    model = make_tiny_model("llama")
    before = model_fingerprint(model)
    model.model.rotary_emb.inv_freq.mul_(2)
    assert model_fingerprint(model) != before


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "modules to save"])
def test_an_adapter_leaves_the_fingerprint_of_the_model_below_it(make_tiny_model, kind):
    from peft import IA3Config, LoraConfig, get_peft_model

    plain = model_fingerprint(make_tiny_model("llama"))
    options = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}
    config = {
        "lora": lambda: LoraConfig(**options),
        "dora": lambda: LoraConfig(use_dora=True, **options),
        "ia3": lambda: IA3Config(feedforward_modules=[], **options),
        "modules to save": lambda: LoraConfig(modules_to_save=["embed_tokens"], **options),
    }[kind]()
    model = get_peft_model(make_tiny_model("llama"), config)
    assert model_fingerprint(model) == plain
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1)
    assert model_fingerprint(model) == plain
    with torch.no_grad():
        model.get_base_model().model.layers[0].mlp.up_proj.weight[0, 0] += 1
    assert model_fingerprint(model) != plain


@pytest.mark.parametrize(
    "quantization", [{"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, {"load_in_8bit": True}]
)
def test_quantised_weights_count_with_their_scales(make_tiny_model, tmp_path, quantization):
    pytest.importorskip("bitsandbytes")
    model = make_tiny_model("llama", hidden_size=64)
    prints = []
    for factor in (1, 1, 3):
        with torch.no_grad():
            # The same packed numbers, other scales.
            model.model.layers[0].mlp.up_proj.weight.mul_(factor)
        model.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(
            tmp_path, quantization_config=BitsAndBytesConfig(**quantization), dtype=torch.float32
        )
        prints.append(model_fingerprint(loaded))
    assert prints[0] == prints[1] != prints[2]
    assert prints[0] != model_fingerprint(AutoModelForCausalLM.from_pretrained(tmp_path))


def test_modules_that_an_adapter_holds_whole_can_be_left_out(make_tiny_model):
    from peft import LoraConfig, get_peft_model

    def fingerprints(entry):
        model = make_tiny_model("llama")
        with torch.no_grad():
            model.get_parameter(entry)[0, 0] += 1
        config = LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        return model_fingerprint(model), model_fingerprint(model, without_trained_modules=True)

    embedding = fingerprints("model.embed_tokens.weight")
    head, projection = fingerprints("lm_head.weight"), fingerprints("model.layers.0.self_attn.q_proj.weight")
    assert len({embedding[0], head[0], projection[0]}) == len({embedding[1], head[1], projection[1]}) == 3
    assert fingerprints("model.embed_tokens.weight")[1] == embedding[1] != embedding[0]
    plain = make_tiny_model("llama")
    assert model_fingerprint(plain, without_trained_modules=True) == model_fingerprint(plain)


def test_what_trains_is_known_by_its_names_and_an_adapters_entries(make_tiny_model):
    from peft import LoraConfig, get_peft_model

    def changed(model, name):
        with torch.no_grad():
            model.get_parameter(name).view(-1)[0] += 1
        return model_fingerprint(model), trained_fingerprint(model)

    whole = make_tiny_model("llama")
    before = model_fingerprint(whole), trained_fingerprint(whole)
    after = changed(whole, "lm_head.weight")
    # Hashed once: by the first.
    assert after[0] != before[0] and after[1] == before[1]
    whole.lm_head.requires_grad_(False)
    assert model_fingerprint(whole) == after[0] and trained_fingerprint(whole) != after[1]

    adapted = get_peft_model(make_tiny_model("llama"), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    before = model_fingerprint(adapted), trained_fingerprint(adapted)
    after = changed(adapted, next(name for name, weight in adapted.named_parameters() if weight.requires_grad))
    assert after[0] == before[0] and after[1] != before[1]
