"""A model that FSDP2 keeps in pieces, here in one process; `benchmarks/engines.py` and `test_offline_rl_distributed.py` train
on two."""

import copy

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from boost_trl.models.policy_with_value_heads import PolicyWithValueHeads
from boost_trl.models.value_heads import ValueHeads, ValueHeadsConfig
from boost_trl.trainer.common.fsdp import is_sharded, reshard, whole_copy, without_parameters
from boost_trl.trainer.offline_rl.divergence import explain_parameters
from boost_trl.trainer.offline_rl.parameter_average import ParameterAverage


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def model(make_tiny_model):
    backbone = make_tiny_model()
    config = ValueHeadsConfig("ilql", backbone.config.n_embd, backbone.config.vocab_size, with_targets=True)
    heads = [ValueHeads(config), ValueHeads(config)]
    for seed, of_one in enumerate(heads):
        of_one.initialize_random(generator=torch.Generator().manual_seed(seed))
    return PolicyWithValueHeads(backbone, *heads)


@pytest.fixture
def sharded(model, process_group):
    """(the model in pieces, as Accelerate takes it; its form; a copy from before)"""
    before, form = copy.deepcopy(model), without_parameters(model)
    mesh = init_device_mesh("cpu", (1,))
    for layer in model.backbone.transformer.h:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return model, form, before


def inputs():
    ids = torch.arange(3, 11).reshape(2, 4)
    places = torch.arange(8)
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "state_index": places, "action_index": places,
        "actions": ids.flatten(), "roles": ("primary", "auxiliary"),
    }  # fmt: skip


def test_the_form_takes_no_memory_and_shares_nothing(model):
    form = without_parameters(model)
    assert not is_sharded(form) and all(parameter.is_meta for parameter in form.parameters())
    assert form.backbone.lm_head.weight is form.backbone.transformer.wte.weight  # tied as before
    assert form.primary.target_q_weight is not model.primary.target_q_weight


def test_a_whole_copy_is_the_model_and_generates(sharded):
    model, form, before = sharded
    whole = whole_copy(model, form)
    assert is_sharded(model) and not is_sharded(whole)
    for name, value in before.state_dict().items():
        assert torch.equal(whole.state_dict()[name], value), name
    ids = inputs()["input_ids"]
    reply = whole.backbone.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False)
    assert torch.equal(
        reply, before.backbone.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False)
    )


def test_targets_follow_heads_in_pieces(sharded):
    model, _, before = sharded
    for each in (model, before):
        each.auxiliary.update_targets(1.0)
        each.primary.copy_from(each.auxiliary)
        each.primary.update_targets(0.25)
    assert torch.equal(model.primary.target_q_weight, before.primary.target_q_weight)
    assert torch.equal(model.primary.q_weight.full_tensor(), before.auxiliary.q_weight)


def test_a_mean_over_updates_is_that_of_a_whole_model(sharded):
    model, _, before = sharded
    averages = [ParameterAverage(), ParameterAverage()]
    for average, each in zip(averages, (model, before)):
        average.allocate(dict(each.named_parameters()))
        for factor in (1, 3):
            with torch.no_grad():
                for parameter in each.parameters():
                    parameter.mul_(factor)
            average.add(dict(each.named_parameters()))
        average.apply_to(dict(each.named_parameters()))
    for mine, yours in zip(model.parameters(), before.parameters()):
        torch.testing.assert_close(mine.full_tensor(), yours)


def test_what_forwards_leave_whole_is_taken_in_pieces_again(sharded):
    model, _, before = sharded
    with torch.no_grad():
        mine, yours = model(**inputs()), before(**inputs())
    torch.testing.assert_close(mine["auxiliary"]["q_taken"], yours["auxiliary"]["q_taken"])
    assert not all(isinstance(parameter, DTensor) for parameter in model.parameters())
    reshard(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())


def test_a_parameter_that_is_not_finite_is_found_in_pieces(sharded):
    model, _, _ = sharded
    assert explain_parameters("now", model.named_parameters()) is None
    with torch.no_grad():
        model.primary.v_weight.mul_(float("inf"))
    assert "`primary.v_weight`" in str(explain_parameters("now", model.named_parameters()))
