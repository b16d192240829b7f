from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from torch import nn

from boost_trl import BilevelOfflineRLConfig
from boost_trl.trainer.common.engines import check_deepspeed_config, check_wrapper, gathered, whole_model
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


def test_fsdp_is_refused():
    state = SimpleNamespace(distributed_type=DistributedType.FSDP)
    with pytest.raises(ValueError, match="FSDP.*use DeepSpeed ZeRO-3"):
        check_wrapper(SimpleNamespace(distributed_state=state, n_gpu=1))


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
