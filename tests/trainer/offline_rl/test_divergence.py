"""Training that has diverged stops, at the step and with the cause, for every method and without waiting for the device."""

import pytest
import torch
from datasets import Dataset
from offline_rl_tiny import Recording
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback


METHODS = {
    "vanilla": {"method": "vanilla"},
    "uniform": {"reweighting": "uniform"},
    "boost": {},
    "mixture": {"method": "validated", "reweighting": "uniform"},
    "ilql": {"algorithm": "ilql", "reweighting": "uniform"},
}


class Spoil(TrainerCallback):
    """Makes a parameter infinite after an update."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            with torch.no_grad():
                model.backbone.get_input_embeddings().weight.fill_(float("nan"))


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_parameters_that_are_not_finite_stop_the_next_step(make_trainer, options):
    trainer = make_trainer(arguments={"callbacks": [Spoil(2)]}, max_steps=8, **options)
    with pytest.raises(
        ValueError,
        match=r"diverged before policy update 3: \d+ of \d+ parameters .*`backbone\.\S+` .*lower `learning_rate`",
    ):
        trainer.train()
    assert trainer.state.global_step == 2


def test_a_learning_rate_that_is_too_high_is_blamed(make_trainer):
    with pytest.raises(ValueError, match="diverged before policy update .*lower `learning_rate`"):
        make_trainer(method="vanilla", learning_rate=1e30, max_steps=20).train()


def test_the_last_update_is_looked_at_too(make_trainer):
    trainer = make_trainer(trainer_class=Recording, arguments={"callbacks": [Spoil(4)]}, method="vanilla")
    with pytest.raises(ValueError, match="diverged after policy update 4: .*`backbone"):
        trainer.train()


def test_what_has_diverged_is_not_saved(make_trainer, tmp_path):
    trainer = make_trainer(
        arguments={"callbacks": [Spoil(3)]}, method="vanilla", save_strategy="steps", save_steps=1, max_steps=4
    )
    with pytest.raises(ValueError, match="diverged after policy update 3"):
        trainer.train()
    assert sorted(path.name for path in tmp_path.glob("out/checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def spoil_row(trainer, row):
    """Give one row of the trainer's store, all its rows counted, an infinite return."""
    start = trainer.data.store.action_counts[:row].sum()
    trainer.data.store._returns[start : start + trainer.data.store.action_counts[row]] = float("inf")


@pytest.mark.parametrize("name", ["train_dataset", "validation_dataset"])
@pytest.mark.parametrize("reweighting", ["learned", "uniform"])
def test_a_bad_row_is_named_by_its_dataset_and_its_number_there(make_trainer, make_dialogues, name, reweighting):
    datasets = {}
    for key, seed in (("train", 1), ("validation", 2)):
        rows = make_dialogues(16, seed=seed).to_list()
        rows[3]["messages"][1]["content"] = "is it " * 40  # has no whole action within `max_length`
        datasets[key] = Dataset.from_list(rows)
    trainer = make_trainer(
        **datasets, max_length=40, reweighting=reweighting, max_steps=8, gradient_accumulation_steps=2
    )
    assert len(trainer.data.training) == 15
    spoil_row(trainer, 4 if name == "train_dataset" else 15 + 4)
    with pytest.raises(ValueError, match=rf"policy update \d: {name}, row 5 has the loss inf"):
        trainer.train()


def test_a_checkpoint_that_has_diverged_is_refused(make_trainer, tmp_path):
    trainer = make_trainer(method="vanilla", save_strategy="steps", save_steps=2)
    trainer.train()
    other = make_trainer(method="vanilla")
    with torch.no_grad():
        trainer.model.primary.q_weight.fill_(float("nan"))
    trainer.model.primary.save_pretrained(tmp_path / "out/checkpoint-2")
    with pytest.raises(ValueError, match="diverged before policy update 3: 1 of .*`primary.q_weight`"):
        other.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-2"))


class Waits(TorchDispatchMode):
    """Counts what waits for the device: numbers and shapes that Python asks of a tensor's values."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = func is torch.ops.aten.index.Tensor and any(t is not None and t.dtype == torch.bool for t in args[1])
        asks = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        self.count += masks or func in asks
        return func(*args, **(kwargs or {}))


def test_looking_costs_no_wait_per_micro_batch(make_trainer):
    def waits(accumulation):
        trainer = make_trainer(
            method="vanilla",
            train_backbone=False,
            per_device_train_batch_size=8 // accumulation,
            gradient_accumulation_steps=accumulation,
            logging_steps=100,
        )
        with Waits() as mode:
            trainer.train()
        return mode.count

    assert waits(8) == waits(1) > 0
