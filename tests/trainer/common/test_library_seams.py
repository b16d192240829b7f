"""What the trainers override and rely on in transformers, TRL and accelerate. A test that fails here after an upgrade names
the method to look at."""

import inspect
import warnings

import pytest
import torch
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, skip_first_batches
from torch.utils.data import BatchSampler, Sampler
from transformers import Trainer, TrainerCallback
from transformers.utils import PushInProgress
from trl import DPOTrainer, SFTTrainer
from trl.models import utils as trl_models

from boost_trl import (
    BilevelDPOConfig,
    BilevelDPOTrainer,
    BilevelOfflineRLConfig,
    BilevelOfflineRLTrainer,
    BilevelSFTSelfRefineConfig,
    BilevelSFTSelfRefineTrainer,
)
from boost_trl.trainer.row_weights.prepared_rows import REFERENCE_LOG_PROBS


# Parameters of the libraries' methods that ours stand in for.
OVERRIDDEN = {
    "_get_train_sampler": "train_dataset",
    "_load_from_checkpoint": "resume_from_checkpoint model",
    "_load_optimizer_and_scheduler": "checkpoint",
    "_prepare_dataset": "dataset processing_class args packing formatting_func dataset_name",
    "_push_from_checkpoint": "checkpoint_folder",
    "_save": "output_dir state_dict",
    "_save_checkpoint": "model trial",
    "_save_optimizer_and_scheduler": "output_dir",
    "_set_signature_columns_if_needed": "",
    "compute_loss": "model inputs return_outputs num_items_in_batch",
    "create_optimizer": "model",
    "evaluate": "eval_dataset ignore_keys metric_key_prefix",
    "get_batch_samples": "epoch_iterator num_batches device",
    "get_train_dataloader": "",
    "log": "logs start_time",
    "predict": "test_dataset ignore_keys metric_key_prefix",
    "save_model": "output_dir _internal_call",
    "train": "resume_from_checkpoint trial ignore_keys_for_eval",
}
OF_DPO = {
    "_precompute_ref_logps": "dataset name batch_size",
    "_prepare_dataset": "dataset processing_class args dataset_name",
}
# Takes what it is given and passes it on.
PASSED_ON = {"push_to_hub"}
# Their parameters differ between Trainer and SFTTrainer; nobody calls it with positions.
CARD = {"model_name", "tags"}
# Called, not overridden.
CALLED = {
    "compute_loss_context_manager": "",
    "get_total_train_batch_size": "args",
    "is_world_process_zero": "",
    "_get_output_dir": "trial",
}
TRAINERS = [
    (BilevelOfflineRLTrainer, Trainer),
    (BilevelSFTSelfRefineTrainer, SFTTrainer),
    (BilevelDPOTrainer, DPOTrainer),
]


def own_methods(trainer):
    ours = [kind for kind in trainer.__mro__ if kind.__module__.startswith("boost_trl")]
    return {name for kind in ours for name, value in vars(kind).items() if inspect.isfunction(value)} - {"__init__"}


def parameters_of(library, name):
    method = getattr(library, name, None)
    assert method is not None, f"{library.__name__}.{name} is gone, which we override or call: see what took its place"
    return [*inspect.signature(method).parameters][1:]


@pytest.mark.parametrize("trainer, library", TRAINERS)
def test_every_method_that_we_override_is_there_with_its_parameters(trainer, library):
    methods = own_methods(trainer)
    expected = OVERRIDDEN | (OF_DPO if library is DPOTrainer else {})
    assert {name for name in methods if hasattr(library, name)} <= {*expected, *PASSED_ON, "create_model_card"}
    for name in methods & expected.keys():
        found = parameters_of(library, name)
        assert found == expected[name].split(), f"{library.__name__}.{name} now has the parameters {found}"
    assert CARD <= {*parameters_of(library, "create_model_card")}


@pytest.mark.parametrize("name", CALLED)
def test_methods_that_we_call(name):
    assert parameters_of(Trainer, name) == CALLED[name].split()


def test_what_the_dpo_trainer_reads():
    """Columns of the reference's log-probabilities, and its counts of tokens."""
    source = inspect.getsource(DPOTrainer)
    for name in (*REFERENCE_LOG_PROBS, "completion_mask", "self._tp_size", "self._total_train_tokens"):
        assert name in source, f"DPOTrainer no longer uses `{name}`"


def test_no_line_of_the_table_is_left_over():
    ours = {name for trainer, _ in TRAINERS for name in own_methods(trainer)}
    assert not OVERRIDDEN.keys() - ours


def test_what_trainer_reads_of_us():
    """`loss_is_scaled_for_ga`: whether Trainer divides the loss by the number of micro-batches."""
    source = inspect.getsource(Trainer)
    for name in ("self.loss_is_scaled_for_ga", "self._train_batch_size", "self.push_in_progress", "self.hub_model_id"):
        assert name in source, f"Trainer no longer uses `{name}`"
    assert hasattr(TrainerCallback, "on_pre_optimizer_step")
    assert "jobs" in inspect.signature(PushInProgress).parameters
    assert isinstance(inspect.getattr_static(Accelerator, "split_batches"), property)
    assert callable(trl_models.add_hooks) and callable(trl_models.remove_hooks)


class Numbers(Sampler):
    epoch = 0

    def __len__(self):
        return 8

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(range(8 * self.epoch, 8 * self.epoch + 8))


def test_batches_are_dealt_out_to_the_processes_in_turn():
    batches = BatchSampler(Numbers(), 2, drop_last=False)
    assert [[*BatchSamplerShard(batches, 2, process)] for process in (0, 1)] == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]


def test_a_resumed_epoch_of_several_processes_is_not_told_to_the_sampler():
    """Why the trainers set it themselves. Once this fails, they need not."""
    sampler = Numbers()
    shard = BatchSamplerShard(BatchSampler(sampler, 2, drop_last=False), 2, 0)
    loader = DataLoaderShard(torch.arange(64), batch_sampler=shard)
    loader.set_epoch(3)
    assert sampler.epoch == 3
    skip_first_batches(loader, 1).set_epoch(5)
    assert sampler.epoch == 3


@pytest.mark.parametrize("config", [BilevelDPOConfig, BilevelOfflineRLConfig, BilevelSFTSelfRefineConfig])
@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"gradient_checkpointing": False}])
def test_the_name_of_checkpointing_that_every_version_knows_does_not_warn(config, options, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*checkpointing", category=FutureWarning)
        args = config(str(tmp_path), use_cpu=True, bf16=False, **options)
    default = config is not BilevelOfflineRLConfig  # TRL's is to save memory, transformers' is not
    assert args.gradient_checkpointing is options.get("gradient_checkpointing", default)
    assert getattr(args, "activation_checkpointing", args.gradient_checkpointing) is args.gradient_checkpointing
