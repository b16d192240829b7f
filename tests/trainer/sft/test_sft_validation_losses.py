"""The upper level: DPO as TRL computes it, a loss of the user's, and the endless stream of batches."""

import warnings

import pytest
import torch
from datasets import Dataset
from sft_tiny import (
    GradientNorms,
    make_args,
    make_conversations,
    make_model,
    make_pairs,
    make_rows,
    make_tokenizer,
    sentence,
)
from trl import DPOConfig, DPOTrainer

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


def preferences(count=6):
    return Dataset.from_list(
        [
            {"prompt": sentence(i, 3) + " ", "chosen": sentence(i + 1, 4), "rejected": sentence(i + 9, 2 + i % 3)}
            for i in range(count)
        ]
    )


def make_trainer(folder, validation, model=None, **overrides):
    return BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0) if model is None else model,
        make_args(folder, **{"max_steps": 1, "max_grad_norm": 0, **overrides}),
        train_dataset=make_rows(),
        processing_class=make_tokenizer(),
        validation_dataset=validation,
        callbacks=[GradientNorms()],
    )


def test_dpo_equals_trls(tmp_path):
    ours = make_trainer(tmp_path, preferences(), validation_loss="dpo", dpo_beta=0.3, max_length=7)
    ours.model_wrapped = ours.model
    ours._validation.begin(ours._train_batch_size)
    with torch.no_grad():
        for parameter in ours.model.parameters():
            parameter.mul_(1.05)
    moved = make_model(attention_dropout=0.0)
    moved.load_state_dict(ours.model.state_dict())
    theirs = DPOTrainer(
        moved,
        make_model(attention_dropout=0.0),
        make_args(tmp_path, DPOConfig, beta=0.3, max_length=7, per_device_train_batch_size=6),
        train_dataset=preferences(),
        processing_class=make_tokenizer(),
    )
    rows = list(theirs.train_dataset)
    expected = theirs.compute_loss(theirs.model, theirs._prepare_inputs(theirs.data_collator(rows)))
    total, count = ours._validation.loss_sum(ours.model, ours._validation.batch(list(range(6))))
    assert torch.equal(total / count, expected)
    assert abs(float(expected) - 0.6931) > 1e-3  # the policy is no longer its reference


def test_dpo_starts_at_log_two_and_pushes_the_chosen_answer_up(tmp_path):
    trainer = make_trainer(tmp_path, preferences(), validation_loss="dpo", rho_init=0.0, max_steps=12)
    trainer.train()
    losses = [entry["upper_loss"] for entry in trainer.state.log_history if "upper_loss" in entry]
    assert losses[0] == pytest.approx(0.693147, abs=1e-6)
    assert losses[-1] < 0.6


def test_callable_per_row(tmp_path):
    """A callable that computes SFT's own loss row by row: the mean of row means over the optimizer batch."""

    def row_means(model, inputs):
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
        labels = inputs["labels"][:, 1:]
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return losses.sum(1) / (labels != -100).sum(1)

    validation = make_rows(4)
    trainer = make_trainer(
        tmp_path,
        validation,
        validation_loss=row_means,
        rho_init=0.0,
        per_device_validation_batch_size=2,
        gradient_accumulation_steps=2,
    )
    assert trainer.args.validation_loss.endswith("row_means")
    trainer.train()
    trainer.save_model()  # arguments are pickled: a function in them could not be
    model = make_model(attention_dropout=0.0)
    batch = trainer.data_collator(list(trainer._validation.dataset))
    row_means(model, batch).mean().backward()
    recorded = trainer.callback_handler.callbacks
    recorded = next(callback for callback in recorded if isinstance(callback, GradientNorms)).steps[0]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(recorded[name], parameter.grad, rtol=2e-4, atol=1e-7)


def test_a_callable_of_the_wrong_shape_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, make_rows(4), validation_loss=lambda model, inputs: torch.zeros(7))
    with pytest.raises(ValueError, match="one loss per row"):
        trainer.train()


@pytest.mark.parametrize(
    "loss",
    [
        lambda model, inputs: model(input_ids=inputs["input_ids"]).logits.mean((1, 2)).detach(),
        lambda model, inputs: torch.tensor([1, 2, 3]),
        torch.no_grad()(lambda model, inputs: model(input_ids=inputs["input_ids"]).logits.mean((1, 2))),
    ],
    ids=["detached", "whole_numbers", "no_grad"],
)
def test_a_callable_without_a_gradient_is_refused(loss, tmp_path):
    trainer = make_trainer(tmp_path, make_rows(4), validation_loss=loss)
    with pytest.raises(ValueError, match="`validation_loss` returned a tensor without a gradient"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_rows_with_nothing_to_predict_are_left_out(tmp_path):
    """An empty text is one token, the end, and a row's first token is never predicted."""
    rows = ["", "w1 w2", "", "w3 w4 w5"]
    for max_length in (None, 10):
        trainer = make_trainer(tmp_path, Dataset.from_dict({"text": rows}), max_length=max_length)
        assert [len(row["input_ids"]) for row in trainer._validation.dataset] == [3, 4]
    learned = [[4, 5, 6], [4, 5, 6]]
    with pytest.raises(ValueError, match="nothing is left of `validation_dataset`"):
        make_trainer(tmp_path, Dataset.from_dict({"input_ids": learned, "labels": [[4, -100, -100]] * 2}))
    with pytest.raises(ValueError, match="nothing is left of `validation_dataset`"):
        make_trainer(tmp_path, Dataset.from_dict({"text": [""]}))


def test_validation_rows_come_equally_often(tmp_path):
    trainer = make_trainer(
        tmp_path, make_rows(4), per_device_validation_batch_size=3, gradient_accumulation_steps=2, max_steps=4
    )
    taken = []
    take = trainer._validation.sampler.take
    trainer._validation.sampler.take = lambda count: taken.extend(rows := take(count)) or rows
    trainer.train()
    # Steps of 6 rows, but 3 where an epoch ends with one micro-batch: 13 rows are five micro-batches of three.
    assert len(taken) == 6 + 6 + 3 + 6
    assert all(sorted(taken[i : i + 4]) == [0, 1, 2, 3] for i in range(0, 20, 4))
    assert len({tuple(taken[i : i + 4]) for i in range(0, 20, 4)}) > 1


@pytest.mark.parametrize(
    "settings", [{}, {"padding_free": True, "max_length": None}, {"gradient_accumulation_steps": 2}]
)
@pytest.mark.parametrize("loss", ["sft", "dpo"])
def test_the_number_of_tokens_has_those_of_validation(loss, settings, tmp_path):
    trainer = make_trainer(
        tmp_path,
        preferences(5) if loss == "dpo" else make_rows(5),
        validation_loss=loss,
        per_device_validation_batch_size=2,
        per_device_train_batch_size=13,
        max_steps=3,
        **settings,
    )
    taken, take = [], trainer._validation.sampler.take
    trainer._validation.sampler.take = lambda count: taken.extend(rows := take(count)) or rows
    trainer.train()
    pool = sum(len(row["input_ids"]) for row in trainer.train_dataset)
    validation = [
        sum(len(ids) for name, ids in row.items() if name.endswith("input_ids"))
        if loss == "sft"
        else 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])
        for row in trainer._validation.dataset
    ]
    assert len(taken) == 6 and len(set(validation)) > 1
    assert trainer.state.log_history[-2]["num_tokens"] == 3 * pool + sum(validation[row] for row in taken)


def test_the_old_name_of_the_validation_batch_size_works_and_warns(tmp_path):
    with pytest.warns(FutureWarning, match="`validation_batch_size` is now `per_device_validation_batch_size`"):
        args = make_args(tmp_path, validation_batch_size=2)
    assert (args.per_device_validation_batch_size, args.validation_batch_size) == (2, None)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "`validation_batch_size`")
        again = type(args)(**args.to_dict())
    assert again.per_device_validation_batch_size == 2
    with pytest.raises(ValueError, match="they are one setting"), pytest.warns(FutureWarning):
        make_args(tmp_path, validation_batch_size=2, per_device_validation_batch_size=3)


CONVERSATIONAL_PAIRS = Dataset.from_list(
    [{"prompt": row["messages"][:1], "completion": row["messages"][1:]} for row in make_conversations(5)]
)


@pytest.mark.parametrize("said", [None, True, False])
@pytest.mark.parametrize("training", [make_rows, make_conversations, make_pairs])
@pytest.mark.parametrize(
    "validation", [make_pairs(5), CONVERSATIONAL_PAIRS, make_rows(5)], ids=["pairs", "chat", "text"]
)
def test_prompts_of_validation_pairs_are_learned_only_if_asked_for(validation, training, said, tmp_path):
    """L_0 at the first step, from plain logits of each row's own question and answer."""
    tokenizer = make_tokenizer()
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        make_args(tmp_path, max_steps=1, rho_init=0.0, per_device_validation_batch_size=5, completion_only_loss=said),
        train_dataset=training(6),
        processing_class=tokenizer,
        validation_dataset=validation,
    )
    trainer.train()
    model, losses = make_model(attention_dropout=0.0).eval(), []
    for row in validation:
        if "text" in row:
            ids, start = tokenizer(row["text"] + "<eos>")["input_ids"], 1
        elif isinstance(row["prompt"], str):
            ids = tokenizer(row["prompt"] + row["completion"] + "<eos>")["input_ids"]
            start = 1 if said is False else len(tokenizer(row["prompt"])["input_ids"])
        else:
            ids = tokenizer.apply_chat_template(row["prompt"] + row["completion"])["input_ids"]
            question = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
            start = 1 if said is False else len(question)
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-log_probs[t - 1, ids[t]].item() for t in range(start, len(ids))]
    assert trainer.state.log_history[0]["upper_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
