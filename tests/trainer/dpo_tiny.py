"""Tiny preference pairs and arguments for the DPO trainer's tests."""

import torch
from datasets import Dataset
from sft_tiny import make_args, make_model, make_tokenizer, sentence
from trl import DPOConfig

from boost_trl import BilevelDPOConfig, BilevelDPOTrainer


def make_preferences(count=12, first=0, columns=()):
    rows = [
        {
            "prompt": sentence(i, 3 + i % 2) + " ",
            "chosen": sentence(i + 1, 2 + i % 4),
            "rejected": sentence(i + 9, 2 + (i + 1) % 3),
        }
        for i in range(first, first + count)
    ]
    for name, values in dict(columns).items():
        for row, value in zip(rows, values):
            row[name] = value
    return Dataset.from_list(rows)


def make_dpo_args(folder, cls=BilevelDPOConfig, **overrides):
    papers = {"selector": "bds"} if issubclass(cls, BilevelDPOConfig) else {}
    return make_args(folder, cls, **{**papers, "learning_rate": 1e-3, **overrides})


def make_trainer(folder, train=None, validation=None, model=None, cls=BilevelDPOTrainer, **overrides):
    names = ("ref_model", "peft_config", "callbacks", "eval_dataset")
    arguments = {name: overrides.pop(name) for name in names if name in overrides}
    if cls is BilevelDPOTrainer:
        arguments["validation_dataset"] = validation
    config = BilevelDPOConfig if cls is BilevelDPOTrainer else DPOConfig
    return cls(
        make_model() if model is None else model,
        args=make_dpo_args(folder, config, **overrides),
        train_dataset=make_preferences() if train is None else train,
        processing_class=make_tokenizer(),
        **{"ref_model": reference(), **arguments},
    )


def reference():
    """Another model than the one that trains, so that losses differ from the first step."""
    return make_model(seed=1, attention_dropout=0.0)


def tokens_of(row):
    """(prompt and answer, answer's length) of both answers, as TRL makes them."""
    tokenizer = make_tokenizer()
    for name in ("chosen", "rejected"):
        prompt = tokenizer(row["prompt"])["input_ids"]
        ids = tokenizer(row["prompt"] + row[name] + "<eos>")["input_ids"]
        yield torch.tensor([ids]), len(ids) - len(prompt)


def log_ratio(model, frozen, ids, length):
    """log π/π_ref of an answer, from plain logits."""
    values = []
    for one in (model, frozen):
        log_probs = one(input_ids=ids).logits.double().log_softmax(-1)[0, :-1]
        values.append(log_probs.gather(1, ids[0, 1:, None])[-length:].sum())
    return values[0] - values[1].detach()


def plain_pair_loss(model, frozen, row, beta=0.1, loss_type="sigmoid", smoothing=0.0):
    """The loss of one pair by its definition."""
    answers = [(log_ratio(model, frozen, ids, length), length) for ids, length in tokens_of(row)]
    if loss_type == "ipo":
        return (answers[0][0] / answers[0][1] - answers[1][0] / answers[1][1] - 1 / (2 * beta)) ** 2
    margin = beta * (answers[0][0] - answers[1][0])
    if loss_type == "hinge":
        return torch.clamp(1 - margin, min=0)
    right, wrong = torch.log1p(torch.exp(-margin)), torch.log1p(torch.exp(margin))
    if loss_type == "robust":
        return ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)
    return right
