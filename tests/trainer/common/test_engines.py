from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.integrations.deepspeed import (
    HfDeepSpeedConfig,
    is_deepspeed_zero3_enabled,
    unset_hf_deepspeed_config,
)

from boost_trl import BilevelOfflineRLConfig
from boost_trl.trainer.common.engines import check_deepspeed_config, gathered, whole_model, without_zero3
from boost_trl.trainer.common.fsdp import check_fsdp
from boost_trl.trainer.offline_rl.parameter_groups import FrozenGroups


def args_with(deepspeed_config):
    return SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=deepspeed_config))


def test_an_optimizer_in_the_deepspeed_config_is_refused_before_anything_is_loaded(make_trainer, monkeypatch):
    config = {"optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 2}}
    plugin = property(lambda self: args_with(config).deepspeed_plugin, lambda self, value: None)
    monkeypatch.setattr(BilevelOfflineRLConfig, "deepspeed_plugin", plugin, raising=False)
    with pytest.raises(ValueError, match="DeepSpeed config has an `optimizer`.*remove .*`optim`"):
        make_trainer(model="there/is-no-such-model")


@pytest.mark.parametrize("name", ["offload_optimizer", "offload_param"])
def test_nvme_offload_is_refused(name):
    config = {"zero_optimization": {"stage": 3, name: {"device": "nvme"}}}
    with pytest.raises(ValueError, match=f"`{name}.device='nvme'`.*use 'cpu' or 'none'"):
        check_deepspeed_config(args_with(config))


def test_zero_3_saves_whole_weights_whatever_the_config_says():
    config = {"zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": False}}
    check_deepspeed_config(args_with(config))
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True


def test_several_gpus_in_one_process_are_refused(make_trainer, monkeypatch):
    monkeypatch.setattr(BilevelOfflineRLConfig, "n_gpu", 2)
    with pytest.raises(
        ValueError, match="sees 2 GPUs.*`nn.DataParallel`.*`accelerate launch`.*CUDA_VISIBLE_DEVICES=0"
    ):
        make_trainer()


@pytest.mark.parametrize(
    ("version", "efficient", "message"),
    [(1, False, "set `fsdp_version: 2`"), (2, True, "set `fsdp_cpu_ram_efficient_loading: false`")],
)
def test_what_value_heads_cannot_do_under_fsdp_is_refused(version, efficient, message):
    with pytest.raises(ValueError, match=message):
        check_fsdp(SimpleNamespace(fsdp_version=version, cpu_ram_efficient_loading=efficient))


def test_the_fsdp_config_that_is_shown_is_not_refused():
    check_fsdp(None)
    check_fsdp(SimpleNamespace(fsdp_version=2, cpu_ram_efficient_loading=False))


def test_without_an_engine_there_is_nothing_to_gather():
    model = nn.Linear(2, 2)
    with gathered(model.parameters(), modify=True), whole_model(model):
        model.weight.data.fill_(1)
    assert model.weight.eq(1).all()


def test_a_frozen_group_gets_its_gradient_back_after_the_step():
    """An optimizer offloaded to the CPU writes all gradients of a partition into the same buffer."""
    moving, resting = (nn.Parameter(torch.ones(2)) for _ in range(2))
    groups = [{"params": [moving], "frozen": False}, {"params": [resting], "frozen": True}]
    optimizer = torch.optim.Adam(groups, lr=0.1)
    frozen = FrozenGroups(optimizer)
    buffer = torch.ones(2)
    moving.grad, resting.grad = torch.ones(2), buffer
    optimizer.step()
    assert moving.lt(1).all() and resting.eq(1).all() and resting not in optimizer.state
    assert resting.grad is buffer
    frozen.remove()
    optimizer.step()
    assert resting.lt(1).all()


@pytest.mark.parametrize("given_by", ["arguments", "accelerate launch"])
def test_nothing_is_taken_in_pieces_where_zero_3_is_not_to_be_known_of(given_by):
    pytest.importorskip("deepspeed")
    config = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    args = SimpleNamespace(deepspeed_plugin=SimpleNamespace(dschf=config))
    if given_by == "arguments":
        args = SimpleNamespace(hf_deepspeed_config=config, deepspeed_plugin=None)
    try:
        assert is_deepspeed_zero3_enabled()
        with without_zero3(args):
            assert not is_deepspeed_zero3_enabled()
        assert is_deepspeed_zero3_enabled()
    finally:
        unset_hf_deepspeed_config()
