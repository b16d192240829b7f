"""Validated selection: scores from a few updates on the trusted rows, rows drawn by weight."""

import functools
import json
import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from sft_tiny import WORDS, logs_without_times, make_args, make_model, make_rows, make_tokenizer

from boost_trl import BilevelSFTSelfRefineTrainer
from boost_trl.selection import temper, weights_auc
from boost_trl.trainer.common.endless_sampler import EndlessSampler
from boost_trl.trainer.row_weights import drawn_rows, trials, validated_selection
from boost_trl.trainer.row_weights.adaptation import Adaptation
from boost_trl.trainer.row_weights.drawn_rows import REPORT_NAME


QUICK = {"selector": "validated", "max_steps": 4, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 8}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path / "cache"))


def answers(count, of_second_half, first=0):
    """Rows whose answers are words of one kind or of another."""
    rows = []
    for number in range(first, first + count):
        words = [WORDS[20 * of_second_half + (number * step) % 4] for step in (1, 3, 7)]
        rows.append({"prompt": WORDS[number % 40] + " ", "completion": " ".join(words), "is_good": not of_second_half})
    return rows


@functools.cache
def taught_state():
    """Of a tiny model that answers by either half, as a pretrained one can."""
    model, tokenizer = make_model(attention_dropout=0.0), make_tokenizer()
    rows = answers(40, False) + answers(40, True)
    ids = torch.tensor([tokenizer(row["prompt"] + row["completion"])["input_ids"] + [1] for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def taught_model():
    model = make_model(attention_dropout=0.0)
    model.load_state_dict(taught_state())
    return model


def make_pool():
    return Dataset.from_list(answers(10, False) + answers(14, True))


def make_trainer(folder, pool=None, model=None, peft_config=None, trusted=None, **options):
    return BilevelSFTSelfRefineTrainer(
        taught_model() if model is None else model,
        make_args(folder, **{**QUICK, **options}),
        train_dataset=make_pool() if pool is None else pool,
        validation_dataset=Dataset.from_list(answers(17, False, first=20)) if trusted is None else trusted,
        processing_class=make_tokenizer(),
        peft_config=peft_config,
    )


def mean_loss(model, row):
    """Of one prepared row."""
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
    log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    return -log_probs[labels != -100, labels[labels != -100]].mean()


@torch.no_grad()
def mean_losses(model, rows):
    return np.array([mean_loss(model, row).item() for row in rows])


EXACT = {"selection_guard": False, "target_effective_fraction": 0.3, "max_grad_norm": 0, "adam_epsilon": 1e-3}


def taught_by(rows, num_updates, seed):
    """The model after updates on all of these rows, in a plain loop."""
    model = taught_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-3, weight_decay=0.0)
    sampler = EndlessSampler(len(rows), seed)
    for _ in range(num_updates):
        # All completions are as long, so that a mean over rows is one over tokens.
        torch.stack([mean_loss(model, rows[row]) for row in sampler.take(len(rows))]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_scores_follow_their_definition(tmp_path):
    trainer = make_trainer(tmp_path, **EXACT)
    rows = trainer.train_dataset
    trainer.train()
    steps, seed = trainer.selection_report["adaptation_steps"], trainer.args.seed
    adapted = taught_by(list(trainer._validation.dataset), steps, seed)
    weights, _ = temper(0.5 * mean_losses(taught_model(), rows) - mean_losses(adapted, rows), 0.3)
    assert trainer.example_weights()["weight"][:] == pytest.approx((24 * weights).tolist(), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("finite_updates", [0, 7])
def test_updates_that_diverge(finite_updates, tmp_path, monkeypatch):
    """What came before counts; where nothing did, the updates are blamed and no row of the pool."""
    update, begin, done = Adaptation.update, Adaptation.begin, []

    def begin_anew(self, *args):
        done.clear()
        begin(self, *args)

    def diverge(self, losses):
        update(self, losses)
        done.append(None)
        if len(done) > finite_updates:
            torch.nn.init.constant_(self.parameters[0], float("nan"))

    monkeypatch.setattr(Adaptation, "begin", begin_anew)
    monkeypatch.setattr(Adaptation, "update", diverge)
    trainer = make_trainer(tmp_path, selection_guard=False)
    if not finite_updates:
        with pytest.raises(
            ValueError, match="updates on `validation_dataset` have diverged; lower `adaptation_learning"
        ):
            trainer.train()
        return
    trainer.train()
    report = trainer.selection_report
    assert [[entry["updates"] for entry in losses] for losses in report["adaptation_trials"]] == [[5], [5]]
    assert report["adaptation_steps"] == 5


@pytest.mark.filterwarnings("error:.*checkpointing_enable:FutureWarning")
def test_scoring_leaves_everything_as_it_was(tmp_path):
    trainer = make_trainer(
        tmp_path,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"every_n_layers": 2, "use_reentrant": False},
    )
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    generator = torch.get_rng_state()
    trainer.score_pool(trainer._validation, trainer._selector_step)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_the_pool_is_scored_for_the_updates_that_training_makes(tmp_path, monkeypatch):
    planned, kind = [], drawn_rows.ValidatedSelection
    monkeypatch.setattr(
        drawn_rows,
        "ValidatedSelection",
        lambda *args, **kwargs: planned.append(args[4]) or kind(*args, **kwargs),
    )
    pool = make_pool().select(range(18))
    trainer = make_trainer(tmp_path, pool=pool, max_steps=-1, num_train_epochs=2, selection_guard=False)
    trainer.train()
    assert planned == [trainer.state.global_step] == [10]


def test_every_batch_is_collated_once_for_scoring(tmp_path, monkeypatch):
    """Of pool and trusted rows, those that train and those that are only read."""
    monkeypatch.setattr(validated_selection, "_SURE", float("inf"))  # with the short trainings
    trainer = make_trainer(tmp_path, per_device_train_batch_size=3)
    collated, forwards = [], []
    for owner, name in ((trainer, "data_collator"), (trainer._validation, "_collator")):
        collator = getattr(owner, name)
        setattr(owner, name, lambda rows, collator=collator: collated.append(len(rows)) or collator(rows))
    trainer.model.register_forward_pre_hook(lambda model, args: forwards.append(None))
    trainer.score_pool(trainer._validation, trainer._selector_step)
    assert trainer.selection_report["candidates"] and len(collated) == len(forwards)


@pytest.mark.parametrize(
    "options",
    [{}, {"padding_free": True, "max_length": None}, {"peft_config": LoraConfig(r=4, target_modules="all-linear")}],
    ids=["whole", "flat", "lora"],
)
def test_rows_that_agree_with_the_trusted_ones_are_drawn(options, tmp_path):
    trainer = make_trainer(tmp_path, selection_guard=False, learning_rate=5e-2 if options else 1e-2, **options)
    trainer.train()
    is_good = np.array(make_pool()["is_good"])
    assert weights_auc(trainer.example_weights()["score"][:], is_good) > 0.9
    drawn = np.array(list(trainer._get_train_sampler()))
    assert is_good[drawn].mean() > 0.8 and len(drawn) == 24
    report = trainer.selection_report
    assert report["agreement"]["auc"] > 0.6 and trainer.weight_confidence.auc > 0.6
    assert report["effective_sample_size"] == pytest.approx(2.4, rel=1e-3)


def test_the_losses_of_drawn_rows_are_not_weighted(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=2, selection_guard=False)
    trainer.train()
    for entry in trainer.state.log_history[:2]:
        assert entry["weighted_lower_loss"] == pytest.approx(entry["lower_loss"])
        assert (entry["rho"], entry["gamma"]) == pytest.approx((0.8, 4.0))


def test_packed_rows_are_weighted_in_their_loss(tmp_path):
    trainer = make_trainer(tmp_path, packing=True, max_length=16, selection_guard=True, max_steps=2)
    trainer.train()
    assert not trainer.draws_rows
    assert weights_auc(trainer.example_weights()["score"][:], make_pool()["is_good"]) > 0.9
    entry = trainer.state.log_history[1]
    assert entry["weighted_lower_loss"] < 0.95 * entry["lower_loss"]


def trial(loss, trusted_scores=None):
    """Scored against a sample that has the scores 0 to 99."""
    return trials.Trial(loss, np.arange(100.0), trusted_scores)


def test_the_rank_of_held_out_rows_chooses_the_number_of_updates():
    """The largest of those that rank them as high but for noise, whatever their loss: it rises where a model is sure of itself."""
    low, high, higher = np.full(5, 49.5), np.full(5, 78.5), np.full(5, 79.5)
    first = {
        5: trial(3.0, low),
        10: trial(1.0, low),
        20: trial(2.0, higher),
        40: trial(2.5, high),
        80: trial(2.6, low),
    }
    assert [first[steps].rank for steps in first] == pytest.approx([0.5, 0.5, 0.8, 0.79, 0.5])
    assert trials.best_steps([first]) == 40
    second = {5: trial(3.0, low), 10: trial(1.0, low), 20: trial(2.0, higher), 40: trial(2.5, low)}
    assert trials.best_steps([first, second]) == 20
    assert trials.best_steps([{5: trial(3.0), 10: trial(1.0), 20: trial(2.0)}]) == 10


def test_where_there_is_nothing_to_learn_trusted_rows_rank_as_any_others():
    """The highest of several ranks is above chance; the one that the other half chooses is not."""
    draw = np.random.default_rng(0)
    highest, chosen = [], []
    for _ in range(400):
        halves = [
            {steps: trials.Trial(1.0, draw.normal(size=100), draw.normal(size=12)) for steps in (5, 10, 20, 40)}
            for _ in range(2)
        ]
        highest.append(np.mean([max(trial.rank for trial in half.values()) for half in halves]))
        chosen.append(trials.confidence_of_halves(halves))
    aucs, error = [each.auc for each in chosen], chosen[0].chance_error
    assert np.mean(highest) > 0.5 + error
    assert np.mean(aucs) == pytest.approx(0.5, abs=3 * error / np.sqrt(400))
    assert np.mean([not each.is_near_chance for each in chosen]) == pytest.approx(0.05, abs=0.033)
    # A half that ended earlier gives what it has.
    short = {5: trial(1.0, np.full(12, 80.0))}
    long = {5: trial(3.0, np.full(12, 10.0)), 10: trial(2.0, np.full(12, 60.0))}
    assert trials.confidence_of_halves([short, long]).auc == pytest.approx((0.805 + 0.105) / 2, abs=0.01)


@pytest.mark.parametrize(("weighted", "chosen"), [([1.9, 3.9], 0.1), ([1.0, 4.1], 1.0), ([2.0, 3.0], 1.0)])
def test_weights_have_to_win_in_both_halves(weighted, chosen):
    assert trials.choose_fraction({1.0: [2.0, 4.0], 0.1: weighted})[0] == chosen


def test_the_same_row_does_not_train_and_judge(tmp_path):
    """Every trusted row twice."""
    rows = answers(9, False, first=20)
    trainer = make_trainer(tmp_path, trusted=Dataset.from_list(rows + rows[::-1]))
    pool, trusted = trainer._losses(trainer._validation, trainer._selector_step)
    (first, second), _ = validated_selection.ValidatedSelection(
        trainer.model, trainer.args, pool, trusted, 4, 4
    )._folds()
    tokens = [tuple(row) for row in trainer._validation.dataset["input_ids"]]
    assert len(first) + len(second) == 18
    assert not {tokens[row] for row in first} & {tokens[row] for row in second}


def test_a_rank_far_above_chance_decides_for_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(validated_selection.ValidatedSelection, "_train", None)
    trainer = make_trainer(tmp_path)
    trainer.train()
    report, confidence = trainer.selection_report, trainer.weight_confidence
    assert not confidence.is_near_chance
    assert (report["fraction"], report["candidates"], report["guard_steps"]) == (0.1, [], 0)
    assert "trusted rows rank above" in report["reason"] and "by scores of their other half" in report["reason"]


def test_otherwise_the_guard_judges_by_the_other_half(tmp_path, monkeypatch):
    monkeypatch.setattr(validated_selection, "_SURE", float("inf"))
    trainer = make_trainer(tmp_path)
    trainer.train()
    report = json.loads(json.dumps(trainer.selection_report))
    assert [entry["fraction"] for entry in report["candidates"]] == [1.0, 0.1]
    assert report["fraction"] < 1  # 14 of 24 rows contradict the trusted ones
    assert report["candidates"][0]["loss"] == max(entry["loss"] for entry in report["candidates"])


def test_a_clean_pool_is_left_alone_or_hardly_weighted(tmp_path):
    """Where no row is bad, trusted rows rank among the pool's as any other."""
    pool = Dataset.from_list(answers(30, False))
    trainer = make_trainer(tmp_path, pool=pool)
    trainer.train()
    assert trainer.weight_confidence.is_near_chance


@pytest.mark.parametrize("is_learned", [True, False])
def test_a_round_counts_where_its_scores_agree_on_rows_that_were_not_drawn(is_learned, tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, selection_guard=False, selection_rounds=2, num_train_epochs=2, max_steps=-1)
    trainer.score_pool(trainer._validation, trainer._selector_step)
    logits, weights = trainer.selector.logits().double().numpy(), trainer.selector.weights().numpy()
    is_drawn = logits > np.quantile(logits, 0.75)
    scores = np.where(is_drawn, 0, logits) if is_learned else -logits
    losses = 0.5 * trainer._scored.losses.numpy() - scores
    monkeypatch.setattr(trainer, "_mean_losses", lambda *_: (np.arange(24), losses))
    trainer.train()
    (report,) = trainer.selection_report["rounds"]
    assert report == {"epoch": 1, "agreement": pytest.approx(1 if is_learned else -1), "is_taken": is_learned}
    expected = 4.0 * is_drawn if is_learned else weights  # 24 rows, and 6 of them are equally good
    assert trainer.selector.weights().numpy() == pytest.approx(expected, abs=1e-5)


def losses_of(trainer):
    """TRL counts tokens from zero in a resumed run."""
    return [{**entry, "num_tokens": None} for entry in logs_without_times(trainer)[:9]]


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn_rows, "_LEAST_AGREEMENT", -1.0)
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 9, "selection_rounds": 2, "learning_rate": 1e-2}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    scored = {float(entry["selector/max_weight"]) for entry in whole.state.log_history if "loss" in entry}
    assert len(scored) == 2  # six steps an epoch: scored again as the second begins
    for step in (2, 6, 7):
        part = make_trainer(tmp_path / "whole", **options)
        part.score_pool = None  # a resumed run does not score
        part.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert losses_of(part) == losses_of(whole)
        assert part.example_weights()["weight"][:] == whole.example_weights()["weight"][:]
        assert part.selection_report == whole.selection_report and part.weight_confidence == whole.weight_confidence
    (tmp_path / "whole" / "checkpoint-9" / REPORT_NAME).unlink()
    assert REPORT_NAME in whole.why_incomplete(tmp_path / "whole" / "checkpoint-9")


def test_scores_are_computed_once(tmp_path, monkeypatch, caplog):
    first = make_trainer(tmp_path)
    first.train()
    assert re.search(r"Scoring the pool: up to \d+ updates before training", caplog.text)  # there is no bar
    monkeypatch.setattr(validated_selection.ValidatedSelection, "run", None)
    again = make_trainer(tmp_path)
    again.train()
    assert logs_without_times(again) == logs_without_times(first)
    first.train()  # goes on with the weights that it has
    for options in ({"learning_rate": 2e-2}, {"model": make_model(1)}, {"pool": make_pool().select(range(23))}):
        with pytest.raises(TypeError, match="not callable"):
            make_trainer(tmp_path, **options).train()


def test_what_cannot_be_scored_is_refused(tmp_path):
    with pytest.raises(ValueError, match="selector='validated'` needs a dataset that can be read more than once"):
        stream = make_rows(8, {"number": range(8)}).to_iterable_dataset()
        make_trainer(tmp_path, pool=stream, example_id_column="number", num_examples=8)
    with pytest.raises(ValueError, match="needs 4 usable rows that differ, and it has 3"):
        make_trainer(tmp_path, trusted=Dataset.from_list(answers(3, False)))
    trainer = make_trainer(tmp_path)
    next(trainer.model.parameters()).ds_id = 0
    with pytest.raises(ValueError, match="ZeRO-3 has split the model"):
        trainer.train()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"keep_fraction": 0.2, "bmo_tau": 2.0, "selection_rounds": 2}, ["bmo_tau", "keep_fraction"]),
        ({"selector": "rank", "keep_fraction": 0.2, "selection_rounds": 2}, ["selection_rounds"]),
        ({"selector": "mixing", "selection_guard": False, "rho_init": 0.5}, ["selection_guard"]),
        ({"selector": "bmo", "bmo_tau": 2.0, "rho_increment": 0.2}, []),
        ({"train_sampling_strategy": "group_by_length"}, ["train_sampling_strategy"]),
        ({"train_sampling_strategy": "group_by_length", "packing": True, "max_length": 16}, []),
        ({"train_sampling_strategy": "group_by_length", "selector": "rank"}, []),
    ],
    ids=str,
)
def test_settings_of_other_selectors_are_said_to_have_no_effect(settings, named, tmp_path, caplog):
    make_trainer(tmp_path, model=make_model(), **settings)
    messages = [record.getMessage() for record in caplog.records if "Without effect" in record.getMessage()]
    selector = settings.get("selector", "validated")
    listed = ", ".join(f"`{name}`" for name in named)
    assert len(messages) == bool(named)
    assert not named or messages[0].endswith(f"Without effect with selector='{selector}': {listed}.")


def test_scores_do_not_depend_on_how_a_batch_is_split(tmp_path):
    """Rows have unequal numbers of tokens, which all count the same whichever micro-batch they are in."""
    found = []
    for size in (4, 1):
        trainer = make_trainer(
            tmp_path / str(size),
            pool=make_rows(24),
            trusted=make_rows(35).select(range(24, 35)),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
            max_steps=2,
            adam_epsilon=1e-3,  # gradients of rounding alone make no steps
        )
        trainer.train()
        report = trainer.selection_report
        assert report["candidates"]  # short trainings on pool and trusted rows
        losses = [trial["loss"] for trials in report["adaptation_trials"] for trial in trials]
        found.append(losses + [candidate["loss"] for candidate in report["candidates"]])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
