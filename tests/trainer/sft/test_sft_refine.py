"""Online self-refining: masks, forecasts, answers, ratios, the loss, and continuation after an interruption."""

import itertools
import math

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from sft_tiny import (
    logs_without_times,
    make_args,
    make_conversations,
    make_model,
    make_pairs,
    make_rows,
    make_tokenizer,
)
from torch.utils.data import DataLoader, RandomSampler
from transformers import GPT2Config, GPT2LMHeadModel

import boost_trl.trainer.sft.refine as online
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.row_weights.optimizer_batch import MICRO_BATCH, MicroBatch
from boost_trl.trainer.sft.answers import Answers
from boost_trl.trainer.sft.generation import AnswerGenerator, Status, answer_start, examine, is_looping, score_answers


ONLINE = {"online_ratio": 0.5, "num_generations": 2, "generation_interval": 2, "max_generation_length": 6}
EOS = 1


def make_trainer(folder, dataset=None, model=None, **overrides):
    return BilevelSFTSelfRefineTrainer(
        make_model() if model is None else model,
        make_args(folder, **{**ONLINE, "max_steps": 5, **overrides}),
        train_dataset=make_pairs(16) if dataset is None else dataset,
        processing_class=make_tokenizer(),
        validation_dataset=make_pairs(5),
    )


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A trainer that has not trained, on a model that still has dropout."""
    return make_trainer(tmp_path_factory.mktemp("idle"))


def generate(trainer, questions, seed):
    return trainer._refinement.generator.generate(questions, seed)


def score(trainer, questions, answers):
    forward = trainer._refinement._forward
    return score_answers(questions, answers, forward, trainer.data_collator, 3, trainer.accelerator)


def plain_log_probs(model, question, answer):
    """Independent of the fused head, of batching and of padding."""
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([question + answer])).logits[0].double()
    picked = logits.log_softmax(-1)[len(question) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
    return picked[:, 0].float()


# Masks and forecasts


def test_random_mask_has_the_asked_share_and_depends_on_the_seed_only():
    mask = online.draw_mask(103, 0.1, seed=3)
    assert len(mask) == 10 and len(set(mask.tolist())) == 10 and (np.diff(mask) > 0).all()
    assert (mask == online.draw_mask(103, 0.1, seed=3)).all()
    assert (mask != online.draw_mask(103, 0.1, seed=4)).any()


def test_dynamic_mask_takes_the_lowest_logits_and_breaks_ties_by_chance():
    logits = np.array([0.0, -5, 0, 0, -4, 0, 0, 0, 0, 0])
    draws = [set(online.draw_mask(10, 0.3, seed, logits).tolist()) for seed in range(40)]
    assert all({1, 4} < draw for draw in draws)
    assert set.union(*draws) == set(range(10))


@pytest.mark.parametrize(("processes", "accumulation", "size"), [(1, 1, 13), (1, 2, 13), (2, 2, 17), (3, 1, 8)])
def test_the_forecast_names_the_rows_that_loaders_then_read(processes, accumulation, size):
    torch.manual_seed(5)
    data = list(range(size))

    def loaders():
        for rank in range(processes):
            loader = DataLoader(data, batch_size=2, sampler=RandomSampler(data, generator=torch.Generator()))
            yield prepare_data_loader(
                loader, num_processes=processes, process_index=rank, use_seedable_sampler=True, put_on_device=False
            )

    ranks = list(loaders())
    forecast = online.VisitForecast(ranks[0], processes, batch_size=2, accumulation_steps=accumulation)
    steps = []
    for epoch in range(3):
        for loader in ranks:
            loader.set_epoch(epoch)
        batches = [[batch.tolist() for batch in loader] for loader in ranks]
        for start in range(0, len(batches[0]), accumulation):
            steps.append({row for rank in batches for batch in rank[start : start + accumulation] for row in batch})
    assert forecast.steps_per_epoch == len(steps) / 3
    counts = (1, 2, forecast.steps_per_epoch + 1, 2 * forecast.steps_per_epoch)
    for first, count in itertools.product(range(forecast.steps_per_epoch + 1), counts):
        places = forecast.places(first, first + count)
        expected = set.union(*steps[first : first + count])
        if count >= 2 * forecast.steps_per_epoch:
            assert places is None
        else:
            assert places.tolist() == sorted(expected)


def test_an_order_that_cannot_be_foreseen_asks_for_all():
    forecast = online.VisitForecast(DataLoader(range(9), shuffle=True), 1, 1, 1)
    assert forecast.places(0, 1) is None


# Answers


def test_the_question_is_what_precedes_the_last_answer():
    assert answer_start([-100, -100, 5, 6]) == 2
    assert answer_start([-100, 4, -100, -100, 5, 6, -100]) == 4
    assert answer_start([5, 6]) == 0


@pytest.mark.parametrize(
    ("tokens", "loops"),
    [
        ([7] * 8, True),
        ([1, 2, 3, 4] + [5, 6] * 8, True),
        ([9, 8, 7, 6, 5, 4, 5, 6], False),
        ([4, 5, 4, 5], False),
        ([], False),
    ],
)
def test_looping(tokens, loops):
    assert is_looping(tokens) == loops


def test_only_endless_answers_loop_and_blank_ones_are_empty():
    assert examine([7] * 8, {EOS}, "w w") == Status.LOOPING
    assert examine([7] * 8 + [EOS], {EOS}, "w w") == Status.USED
    assert examine([EOS], {EOS}, "") == Status.EMPTY
    assert examine([7, EOS], {EOS}, " \n") == Status.EMPTY


def push_towards(model, token, bias=50.0):
    """`token` always follows, in every context."""
    model.lm_head.register_forward_hook(lambda module, args, out: out + bias * torch.eye(out.size(-1))[token])


def test_answers_stop_at_the_end_token_and_keep_it_or_are_cut_without_one(tmp_path):
    ends, endless = make_model(), make_model()
    push_towards(ends, EOS)
    push_towards(endless, 9)
    answers = generate(make_trainer(tmp_path / "a", model=ends), [[5, 6], [5, 6, 7]], seed=0)
    assert answers == [[EOS], [EOS]]
    answers = generate(make_trainer(tmp_path / "b", model=endless), [[5, 6], [5, 6, 7]], seed=0)
    assert answers == [[9] * 6, [9] * 6]


def test_generation_restores_the_model_and_draws_apart(idle):
    model = idle.model
    model.train()
    model.gradient_checkpointing_enable()
    model.generation_config.top_k, before = 1, torch.get_rng_state()
    config = model.generation_config
    questions = [[5 + i] * (1 + i % 4) for i in range(20)]
    answers = generate(idle, questions, seed=1)
    assert model.training and all(module.training for module in model.modules())
    assert model.is_gradient_checkpointing and model.generation_config is config
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert generate(idle, questions, seed=1) == answers
    assert generate(idle, questions, seed=2) != answers
    # The model's own top_k of 1 would give one answer to one question.
    assert len({tuple(a) for a in generate(idle, [[5, 6]] * 8, seed=1)}) > 1
    model.generation_config.top_k = None
    model.gradient_checkpointing_disable()


def test_a_question_without_room_has_an_empty_answer_and_its_batch_is_answered(idle):
    longest = [5] * 64  # the model's context
    assert [len(a) > 0 for a in generate(idle, [longest, [5, 6]], seed=0)] == [False, True]
    assert len(generate(idle, [[5] * 61], seed=0)[0]) <= 3


@pytest.mark.parametrize("bounded_by", ["max_length", "positions"])
def test_a_long_question_shortens_no_other_answer(bounded_by, tmp_path):
    """Every answer ends by itself or has all the room that its own question leaves, within learned positions too."""
    if bounded_by == "max_length":
        limits, model = {"max_length": 62}, make_model()
    else:
        torch.manual_seed(0)
        limits = {"max_length": None}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=48, n_positions=62, n_embd=16, n_layer=1, n_head=2))
    trainer = make_trainer(tmp_path, model=model, max_generation_length=30, generation_batch_size=8, **limits)
    questions = [[5] * length for length in (58, 4, 9, 40, 3, 62, 61, 12, 33, 5)]
    answers = generate(trainer, questions, seed=1)
    full = 0
    for question, answer in zip(questions, answers):
        room = min(30, 62 - len(question))
        assert len(answer) == room or (0 < len(answer) < room and answer[-1] == EOS)
        full += len(answer) == room
    assert full >= 5 and max(map(len, answers)) == 30
    assert answers == generate(trainer, questions, seed=1)


def test_sampling_follows_the_temperature(idle):
    """First tokens of many answers against softmax(logits / T)."""
    model = idle.model.eval()
    with torch.no_grad():
        model.lm_head.weight *= 30  # the tiny model is nearly uniform
        logits = model(torch.tensor([[5, 6]])).logits[0, -1].double()
        idle.args.max_generation_length, idle.args.generation_batch_size = 1, 4000
        first = torch.tensor(generate(idle, [[5, 6]] * 4000, seed=0))[:, 0]
        idle.args.max_generation_length, idle.args.generation_batch_size = 6, 16
        model.lm_head.weight /= 30
    observed = torch.bincount(first, minlength=48) / len(first)
    distances = [(observed - (logits / t).softmax(-1)).abs().sum() / 2 for t in (0.8, 1.0)]
    assert distances[0] < 0.06 and distances[0] < distances[1]


def test_scores_are_log_probabilities_at_temperature_one(idle):
    questions, answers = [[5, 6], [7], [8, 9, 10]], [[11, EOS], [12, 13, 14, 15], [16]]
    for mine, question, answer in zip(score(idle, questions, answers), questions, answers):
        torch.testing.assert_close(torch.from_numpy(mine), plain_log_probs(idle.model, question, answer))


# Training


class Watched(BilevelSFTSelfRefineTrainer):
    """Keeps what each optimizer step trains on, and checks its loss against one written out by hand."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.windows = []

    def get_batch_samples(self, *args):
        batches, num_items = super().get_batch_samples(*args)
        expected = [self._expected(batch) for batch in batches]
        items = sum(items for _, items in expected)
        assert float(num_items) == pytest.approx(items)
        self.windows.append({"step": self.state.global_step, "answers": self._refinement.answers, "items": items})
        self._expected_losses = [loss / items for loss, _ in expected]
        return batches, num_items

    def _expected(self, batch):
        """γ Σ w/G r Σ ℓ and N_pool of the padded batch, row by row, by plain forwards."""
        answers, args = self._refinement.answers, self.args
        loss = items = 0.0
        for ids, labels, row in zip(
            batch["input_ids"].tolist(), batch["labels"].tolist(), batch[MICRO_BATCH].ids[:, 0].tolist()
        ):
            start = next(i for i, label in enumerate(labels) if label != -100)
            question, answer = ids[:start], [label for label in labels[start:] if label != -100]
            place = np.flatnonzero(answers.rows == row)
            nll = -plain_log_probs(self.model, question, answer).double()
            share, ratio, length = 1.0, 1.0, len(answer)
            if len(place):
                stored = range(2 * place[0], 2 * place[0] + 2)
                own = [number for number in stored if answers.status[number] == 0 and answers.tokens[number] == answer]
                if own:
                    old = answers.log_probs[own[0]].astype(np.float64).sum()
                    share, ratio = 0.5, min(math.exp(-float(nll.sum()) - old), args.importance_sampling_cap)
                    good = [len(t) for t, p in zip(answers.tokens, answers.log_probs) if len(p)]
                    length = sum(good) / len(good)
                else:
                    share = sum(answers.status[number] != 0 for number in stored) / 2
            weight = float(self.selector.weights(torch.tensor([row])))
            loss += weight * share * ratio * float(nll.sum())
            items += share * length
        self.model.train()
        return loss, items

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        upper = self._optimizer_batch.sums[3] / self._optimizer_batch.validation_items
        expected = self._optimizer_batch.gamma * self._expected_losses.pop(0) + float(upper)
        assert float(loss) == pytest.approx(expected, rel=2e-5)
        return loss


def test_the_loss_is_the_ratio_weighted_mean_over_answers_with_fallbacks(tmp_path, monkeypatch):
    """Ages 0, 1, 0, 1, 0; answers of unequal length, some empty; γ = 1 so that the pool shows."""
    generate = AnswerGenerator.generate

    def shortened(*args):
        answers = generate(*args)
        return [[EOS] if n % 4 == 3 else answer[: 1 + n % 3] + [EOS] for n, answer in enumerate(answers)]

    monkeypatch.setattr(AnswerGenerator, "generate", shortened)
    trainer = Watched(
        make_model(attention_dropout=0.0),
        make_args(
            tmp_path,
            **{**ONLINE, "online_ratio": 0.75},
            max_steps=5,
            rho_init=0.5,
            rho_increment=0.0,
            learning_rate=3e-2,
        ),
        train_dataset=make_pairs(16),
        processing_class=make_tokenizer(),
        validation_dataset=make_pairs(5),
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    online_logs = [{k.removeprefix("online/"): v for k, v in e.items() if k.startswith("online/")} for e in logs]
    assert [log["age"] for log in online_logs] == [0, 1, 0, 1, 0]
    assert [log["ratio_mean"] == log["ratio_max"] == 1 for log in online_logs] == [True, False, True, False, True]
    assert (
        0 < online_logs[0]["fallback_share"] < 1 and online_logs[0]["fallback_share"] == online_logs[0]["empty_share"]
    )
    assert not any("unanswered" in log for log in online_logs)
    # Only what is visited before the next refresh was generated: two steps of three rows.
    assert all(len(window["answers"].rows) <= 6 for window in trainer.windows)
    assert {int(row) for window in trainer.windows for row in window["answers"].rows} <= set(
        trainer._refinement.mask.tolist()
    )

    table = Dataset.from_parquet(str(tmp_path / "generations" / "step-2.parquet"))
    written = next(window["answers"] for window in trainer.windows if window["step"] == 2)
    assert table["index"][:] == written.rows.tolist()
    assert np.ravel(table["visits"][:]).max() == 1 and set(np.ravel(table["status"][:])) <= {"used", "empty"}
    scored = [sum(p) for p in written.log_probs if len(p)]
    assert [p for row in table["log_probs"] for p in row if p is not None] == pytest.approx(scored)
    assert sorted(p.name for p in (tmp_path / "generations").iterdir()) == [f"step-{k}.parquet" for k in (0, 2, 4)]


@pytest.mark.parametrize("mask", ["random", "dynamic"])
def test_a_second_train_asks_its_own_model(mask, tmp_path):
    """`Watched` checks each step's ratios by hand: answers of the first run would have others than 1."""
    trainer = Watched(
        make_model(attention_dropout=0.0),
        make_args(tmp_path, **{**ONLINE, "generation_interval": 4}, online_mask=mask, max_steps=3, learning_rate=3e-2),
        train_dataset=make_pairs(16),
        processing_class=make_tokenizer(),
        validation_dataset=make_pairs(5),
    )
    runs = []
    for _ in range(2):
        trainer.train()
        runs.append(trainer.windows[-1]["answers"])
    assert len(trainer.windows) == 6
    assert runs[0] is not runs[1] and runs[0].step == runs[1].step == 0
    ages = [entry["online/age"] for entry in trainer.state.log_history if "online/age" in entry]
    assert ages[0] == 0 and max(ages) > 0


def test_answers_are_filed_under_the_users_rows(tmp_path):
    """Rows 0 and 2 have fixed weight 0, row 3 is longer than `max_length`."""
    rows = [{**row, "weight": float(i not in (0, 2))} for i, row in enumerate(make_pairs(16))]
    rows[3]["prompt"] = rows[3]["prompt"] * 10
    settings = {"max_steps": 1, "online_ratio": 0.9, "weight_column": "weight", "max_length": 30}
    trainer = make_trainer(tmp_path, Dataset.from_list(rows), per_device_train_batch_size=13, **settings)
    trainer.train()
    table = Dataset.from_parquet(str(tmp_path / "generations" / "step-0.parquet"), cache_dir=str(tmp_path))
    assert len(table) == 11
    for row, question in zip(table["index"], table["question"]):
        assert question.split() == rows[row]["prompt"].split()


def final_state(trainer):
    state = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    return state | trainer._bilevel_state() | {"logits": trainer.selector.logits()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_without_masked_rows_nothing_changes(tmp_path):
    options = {"online_ratio": 0.0, "num_generations": 1, "max_steps": 2}
    plain = make_trainer(tmp_path / "a", **options)
    plain.train()
    other = make_trainer(tmp_path / "b", **options, generation_temperature=0.1, importance_sampling_level="token")
    other.train()
    assert_same(final_state(plain), final_state(other))
    assert not (tmp_path / "a" / "generations").exists()
    assert not any(name.startswith("online") for entry in plain.state.log_history for name in entry)


def test_intervals_without_a_masked_row_are_plain_steps(tmp_path):
    """One masked row of 16, refreshed at each step of three rows: most intervals have nothing to generate."""
    options = {"online_ratio": 1 / 16, "generation_interval": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(tmp_path, **options)
    trainer.train()
    files = {int(path.stem.split("-")[1]) for path in (tmp_path / "generations").iterdir()}
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert files == {k for k, entry in enumerate(steps) if "online/age" in entry} and 0 < len(files) < 5
    for step in range(1, 5):
        resumed = make_trainer(tmp_path / "resumed", **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert_same(final_state(resumed), final_state(trainer))


def test_unusable_answers_leave_the_offline_run(tmp_path, monkeypatch):
    """Empty and looping answers fall back to the offline answer: what is trained is what it was without."""
    options = {"max_steps": 4, "gradient_accumulation_steps": 2}
    offline = make_trainer(tmp_path / "a", **options, online_ratio=0.0, num_generations=1)
    offline.train()
    bad = itertools.cycle([[EOS], [9] * 8])
    monkeypatch.setattr(AnswerGenerator, "generate", lambda self, questions, seed: [next(bad) for _ in questions])
    refined = make_trainer(tmp_path / "b", **options)
    refined.train()
    entry = refined.state.log_history[0]
    assert entry["online/fallback_share"] == 1
    assert entry["online/empty_share"] == entry["online/looping_share"] == 0.5
    for mine, yours in zip(refined.model.parameters(), offline.model.parameters()):
        torch.testing.assert_close(mine, yours)
    torch.testing.assert_close(refined.selector.logits(), offline.selector.logits())


@pytest.fixture
def staged(tmp_path):
    """Two rows of two and three answers at step 3, visited at age 1, with scores set by the test."""
    trainer = make_trainer(tmp_path, importance_sampling_cap=3.0)
    rows = trainer._refinement.mask[:2]
    tokens = [[9, EOS], [10, 11, EOS], [12, EOS], [13, EOS]]
    old = [np.full(len(answer), -2.0, np.float32) for answer in tokens]
    trainer._refinement._answers = Answers(3, rows, tokens, old, np.zeros(4, np.int8), np.zeros((4, 3)))
    trainer._refinement.step = 4
    micro_batch = MicroBatch(torch.from_numpy(rows)[:, None], torch.arange(2)[:, None])
    batch = {MICRO_BATCH: micro_batch, "input_ids": torch.zeros(2, 1)}
    return trainer, batch


def weigh(staged, monkeypatch, *changes):
    trainer, batch = staged
    answers = trainer._refinement.answers
    scores = [values + change for values, change in zip(answers.log_probs, changes)]
    monkeypatch.setattr(trainer._refinement, "_score", lambda *args: [s.astype(np.float32) for s in scores])
    trainer._refinement._weigh([batch])
    log = {name: values[-1] for name, values in trainer._metrics["train"].items() if name.startswith("online")}
    return trainer._refinement._weights, log


def test_exploding_and_vanishing_ratios(staged, monkeypatch):
    weights, log = weigh(staged, monkeypatch, 400.0, 0.5, -400.0, 0.0)
    assert weights[0].tolist() == [3, 3] and weights[2].tolist() == [0, 0] and weights[3].tolist() == [1, 1]
    assert weights[1].tolist() == [3, 3, 3]  # exp(1.5) = 4.5
    assert log["online/capped_share"] == 0.5 and log["online/age"] == 1
    assert math.isfinite(log["online/ratio_mean"]) and log["online/ratio_max"] > 1e300


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"importance_sampling_cap": None}, math.exp(0.3)),
        ({"importance_sampling_level": "geometric"}, math.exp(0.1)),
        ({"importance_sampling_level": "token"}, math.exp(0.1)),
        ({"response_weighting": "none"}, 1.0),
        # λ = softmax of the answers' summed log-probabilities -4.0 and -5.7, times G
        ({"response_weighting": "softmax"}, 2 / (1 + math.exp(-4.0 + 5.7))),
    ],
)
def test_kinds_of_weights(options, expected, staged, monkeypatch):
    for name, value in options.items():
        setattr(staged[0].args, name, value)
    weights, _ = weigh(staged, monkeypatch, 0.0, 0.1, 0.0, 0.0)
    assert weights[1].tolist() == pytest.approx([expected] * 3)


def test_an_answer_that_cannot_be_scored_any_more_falls_back(staged, monkeypatch):
    weights, _ = weigh(staged, monkeypatch, np.nan, 0.0, 0.0, 0.0)
    answers = staged[0]._refinement.answers
    assert sorted(weights) == [1, 2, 3] and answers.used(int(answers.rows[0])) == [1]
    ids = torch.tensor([int(answers.rows[0])] * 4)
    assert staged[0]._refinement.shares(ids, torch.tensor([-1, 1, 1, 1])).tolist() == [0.5, 0.5, 0.5, 0.5]


def test_the_selector_sees_the_plain_mean_over_answers(staged):
    """C = ½ (mean of two losses + mean of three), or ½ (their sums)."""
    trainer, _ = staged
    row = int(trainer._refinement.answers.rows[0])
    ids, answers = (
        torch.tensor([row] * 5 + [int(trainer._refinement._ids.max()) + 1] * 2),
        torch.tensor([0, 0, 1, 1, 1, -1, -1]),
    )
    losses = torch.tensor([1.0, 3, 4, 5, 9, 2, 4])
    for reduction, expected in (("mean", [4.0, 3.0]), ("sum", [11.0, 6.0])):
        trainer.args.selection_loss = trainer._selector_step.row_losses.reduction = reduction
        shares = trainer._refinement.row_shares(ids, answers)
        trainer._selector_step.row_losses.add(ids, losses, ids * 0, shares, is_offline=answers < 0)
        assert trainer._selector_step.row_losses.collect()[1].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "overrides",
    [
        {"online_mask": "dynamic", "selector_baseline": "token", "padding_free": True, "max_length": None},
        {"selector": "bmo", "gradient_accumulation_steps": 2},
    ],
    ids=["dynamic-padding_free-token", "bmo-accumulation"],
)
def test_resume_is_exact_also_when_killed_while_generating(overrides, tmp_path, monkeypatch):
    overrides = {**overrides, "save_strategy": "steps", "save_steps": 1, "generation_interval": 3}
    whole = make_trainer(tmp_path / "whole", **overrides)
    whole.train()
    if overrides.get("online_mask") == "dynamic":
        assert "online/mask_turnover" in whole.state.log_history[3]

    killed = make_trainer(tmp_path / "killed", **overrides)
    generate = killed.model.generate

    def kill(**kwargs):
        if killed.state.global_step == 3:
            generate(**kwargs)
            raise KeyboardInterrupt
        return generate(**kwargs)

    killed.model.generate = kill
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    del killed.model.generate
    assert sorted(p.name for p in (tmp_path / "killed" / "generations").iterdir()) == ["step-0.parquet"]

    for step in (1, 3):  # in the middle of a generation's use, and where a refresh is due
        resumed = make_trainer(tmp_path / "resumed", **overrides)
        resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{step}"))
        assert_same(final_state(resumed), final_state(whole))
        for mine, yours in zip(logs_without_times(resumed)[:-1], logs_without_times(whole)[:-1], strict=True):
            assert {**mine, "num_tokens": 0} == {**yours, "num_tokens": 0}


def test_a_checkpoint_of_other_answers_is_refused(tmp_path):
    make_trainer(tmp_path / "a", max_steps=1, save_strategy="steps", save_steps=1).train()
    checkpoint = str(tmp_path / "a" / "checkpoint-1")
    for changes, message in (
        ({"num_generations": 3}, "`num_generations=2`, this run has 3"),
        ({"online_ratio": 0.25}, "`online_ratio=0.5`, this run has 0.25"),
        ({"online_mask": "dynamic"}, "`online_mask='random'`, this run has 'dynamic'"),
        ({"online_ratio": 0.0, "num_generations": 1}, "`online_ratio=0.5`, this run has 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            make_trainer(tmp_path / "b", **changes).train(resume_from_checkpoint=checkpoint)


def test_conversations_train_with_their_last_reply_replaced(tmp_path):
    trainer = make_trainer(tmp_path, make_conversations(8), assistant_only_loss=True, max_steps=1)
    trainer.train()
    table = Dataset.from_parquet(str(tmp_path / "generations" / "step-0.parquet"))
    assert all(question.endswith("<a>") or question.endswith("<a> ") for question in table["question"])


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"online_ratio": 1.0}, r"in \[0, 1\)"),
        ({"online_ratio": -0.1}, r"in \[0, 1\)"),
        ({"online_ratio": 0.0}, "no effect with `online_ratio=0`"),
        ({"num_generations": 0}, "`num_generations` must be at least 1"),
        ({"generation_interval": 0}, "`generation_interval` must be at least 1"),
        ({"generation_temperature": 0.0}, "`generation_temperature` must be positive"),
        ({"importance_sampling_cap": 0.0}, "must be positive, got 0.0"),
        ({"online_mask": "bottom"}, "must be one of 'random', 'dynamic'"),
        ({"packing": True}, "use `packing=False`"),
        ({"loss_type": "dft"}, "use `'nll'`"),
        ({"selector": "bmo_exact"}, "use 'bmo'"),
        ({"selector": "uniform", "online_mask": "dynamic"}, "use `online_mask='random'`"),
    ],
)
def test_senseless_settings_raise(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_args(tmp_path, **{**ONLINE, **options})


def test_data_without_questions_or_validation_raises(tmp_path):
    with pytest.raises(ValueError, match=r"row 0 of `train_dataset` has no question \(8 of 8 rows have none\)"):
        make_trainer(tmp_path, make_rows(8))
    with pytest.raises(ValueError, match="`completion_only_loss=True`"):
        make_trainer(tmp_path, completion_only_loss=False)
    with pytest.raises(ValueError, match="`truncation_mode='keep_end'` cuts questions off"):
        make_trainer(tmp_path, max_length=3, truncation_mode="keep_end")
    labels = [[-100, -100, 6, 7]] * 11 + [[-100, 5, 6, 7], [4, 5, 6, -100]]
    late = {"input_ids": [[4, 5, 6, 7]] * 13, "labels": labels, "weight": [1.0, 0.0] + [1.0] * 11}
    with pytest.raises(ValueError, match=r"row 12 of `train_dataset` has no question \(1 of 12"):
        make_trainer(tmp_path, Dataset.from_dict(late), weight_column="weight")
    with pytest.raises(ValueError, match="less than one row"):
        make_trainer(tmp_path, online_ratio=0.01)
    with pytest.raises(ValueError, match="streaming"):
        make_trainer(tmp_path, make_pairs().to_iterable_dataset())
    with pytest.raises(ValueError, match="needs `validation_dataset`"):
        BilevelSFTSelfRefineTrainer(
            make_model(),
            make_args(tmp_path, **ONLINE),
            train_dataset=make_pairs(),
            processing_class=make_tokenizer(),
        )


# What the method can and cannot do


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_expected_gradient_on_own_answers(reduction):
    """
    Enumerated over all answers of at most three tokens, the last of which may be cut: E_old[r ∇L] is 0 for the summed loss
    and −∇E[1/length] for the mean.
    """
    generator = torch.Generator().manual_seed(0)
    new, old = (torch.randn(3, 4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    new.requires_grad_()
    answers = [
        answer
        for length in (1, 2, 3)
        for answer in itertools.product(range(3), repeat=length)
        if 0 not in answer[:-1] and (answer[-1] == 0 or length == 3)  # token 0 ends
    ]

    def log_probs(parameters, answer):
        table, previous = parameters.log_softmax(-1), [3, *answer[:-1]]
        return torch.stack([table[t, p, a] for t, (p, a) in enumerate(zip(previous, answer))])

    expected = inverse_length = 0.0
    for answer in answers:
        now, before = log_probs(new, answer), log_probs(old, answer)
        ratio = online.importance_ratios(now[None], before[None], torch.ones(1, len(answer)), cap=None).ratios.double()
        exact = (now - before).sum().exp().detach()
        assert float(ratio) == pytest.approx(float(exact), rel=1e-6)
        loss = -now.sum() if reduction == "sum" else -now.mean()
        expected = expected + before.sum().exp() * exact * loss
        inverse_length = inverse_length + now.sum().exp() / len(answer)
    gradient = torch.autograd.grad(expected, new, retain_graph=True)[0]
    target = torch.zeros_like(new)
    if reduction == "mean":
        target = -torch.autograd.grad(inverse_length, new)[0]
        assert target.abs().max() > 1e-3
    torch.testing.assert_close(gradient, target, atol=1e-12, rtol=0)
