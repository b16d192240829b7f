import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GenerationConfig

from boost_trl.analysis.moved_weights import squared_distance
from boost_trl.models.policy_files import save_backbone
from boost_trl.models.value_heads import ValueHeads, ValueHeadsConfig


def save(folder, model, heads, **kwargs):
    save_backbone(folder, model, GenerationConfig(), **kwargs)
    heads.save_pretrained(folder)


def heads_of(model, rank=None, train_backbone=False, bias="scalar"):
    vocabulary, width = model.get_output_embeddings().weight.shape
    config = ValueHeadsConfig(
        "ilql", hidden_size=width, vocab_size=vocabulary, rank=rank, bias=bias, train_backbone=train_backbone
    )
    heads = ValueHeads(config)
    heads.initialize_random(generator=torch.Generator().manual_seed(1))
    return heads


@pytest.mark.parametrize(("rank", "bias"), [(None, "scalar"), (3, "token")])
def test_heads_count_from_the_output_matrix_up_to_a_constant_per_state(rank, bias, make_tiny_model, tmp_path):
    model = make_tiny_model()
    heads = heads_of(model, rank, bias=bias)
    if bias == "token":
        heads.q_bias.data.normal_()
    save(tmp_path, model, heads)
    prior, expected = model.get_output_embeddings().weight.detach().double(), 0.0
    for head in range(2):
        if rank is None:
            weight = heads.q_weight[head].detach().double()
        else:
            weight = heads.q_factor_out[head].detach().double() @ heads.q_factor_in[head].detach().double()
        moved, bias_moved = weight - prior, heads.q_bias[head].detach().double()
        expected += ((moved - moved.mean(0)) ** 2).sum() + ((bias_moved - bias_moved.mean()) ** 2).sum()
    assert squared_distance(tmp_path) == {"value heads": pytest.approx(expected.item())}


def test_heads_that_are_the_output_matrix_have_not_moved(make_tiny_model, tmp_path):
    model = make_tiny_model()
    heads = heads_of(model)
    # A constant per dimension is one per state, which softmax(Q) does not see.
    shifted = model.get_output_embeddings().weight.detach() + torch.randn(heads.config.hidden_size)
    heads.q_weight.data.copy_(shifted.expand_as(heads.q_weight))
    save(tmp_path, model, heads)
    assert squared_distance(tmp_path)["value heads"] == pytest.approx(0, abs=1e-8)


def test_adapters_count_by_what_they_add(make_tiny_model, tmp_path):
    make_tiny_model().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=6, target_modules=["c_attn"], fan_in_fan_out=True))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    save(tmp_path / "run", model, heads_of(base, train_backbone=True), selected_adapters=["default"])
    found = squared_distance(tmp_path / "run")
    merged = model.merge_and_unload().state_dict()
    expected = sum(((merged[name] - value).double() ** 2).sum().item() for name, value in before.items())
    assert expected > 0.1 and found["adapter"] == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_known_is_said(make_tiny_model, tmp_path):
    with pytest.raises(ValueError, match="were not saved"):
        squared_distance(tmp_path)
    model = make_tiny_model()
    save(tmp_path, model, heads_of(model, train_backbone=True))
    with pytest.raises(ValueError, match="the whole model was trained"):
        squared_distance(tmp_path)
