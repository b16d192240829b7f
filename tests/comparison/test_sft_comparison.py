"""The comparison of SFT methods: its pool, its rows, its files."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from boost_trl.comparison.cells import Cell, run_cells, shard
from boost_trl.comparison.results import Result, paired_difference
from boost_trl.comparison.sft import contradiction_pool as pool_module
from boost_trl.comparison.sft import training
from boost_trl.comparison.sft.comparison import SFTComparison, with_guard
from boost_trl.comparison.sft.contradiction_pool import LIST_LENGTH, contradiction_pool
from boost_trl.comparison.sft.methods import SFT_METHODS
from boost_trl.comparison.sft.training import planned_rows, train_and_evaluate
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.row_weights import scoring_budget
from boost_trl.trainer.sft.evaluation import mean_nll_per_row


OPTIONS = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 3e-3,
    "use_cpu": True,
    "bf16": False,
    "max_length": 32,
    "max_generation_length": 4,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}


HELD_OUT = ("validation", "evaluation", "clean_evaluation", "holdout")


@pytest.fixture(scope="module")
def whole_experiment():
    return contradiction_pool(0, num_rows=40)


@pytest.fixture(scope="module")
def experiment(whole_experiment):
    """With few held-out rows: a run takes as long as their evaluation."""
    return replace(whole_experiment, **{name: getattr(whole_experiment, name).select(range(24)) for name in HELD_OUT})


def take(prompt):
    """The good answer, read from the question by hand."""
    head, words = prompt.split(" : ")
    return words.split()[: {"one": 1, "two": 2, "three": 3}[head.split()[1]]]


def test_the_pool_answers_by_its_kinds(experiment):
    pool = contradiction_pool(3, num_rows=200, bad_share=0.6).pool
    assert {kind: pool["kind"].count(kind) for kind in set(pool["kind"])} == {
        "good": 80,
        "from the right": 60,
        "nonsense": 60,
    }
    for row in pool:
        words, answer = row["prompt"].split(" : ")[1].split(), row["completion"].split()
        assert len(set(words)) == LIST_LENGTH
        assert row["is_good"] == (row["kind"] == "good") == (answer == take(row["prompt"]))
        if row["kind"] == "from the right":
            assert answer == words[: -len(answer) - 1 : -1]
        if row["kind"] == "nonsense":
            assert not set(answer) & set(words)


def test_ways_without_weights_make_as_many_updates_as_trainer_makes_on_the_pool(experiment, tmp_path):
    """On 20 rows, 8 at a time, 3 a pass."""
    pool, options = experiment.pool.select(range(20)), {**OPTIONS, "num_train_epochs": 2}
    assert training.trl_trainer(SFT_METHODS["sft"], experiment, pool, options, tmp_path, 0).args.max_steps == 6


def test_no_question_is_asked_twice_and_held_out_rows_are_good(whole_experiment):
    held_out = [getattr(whole_experiment, name) for name in HELD_OUT]
    prompts = [row["prompt"] for dataset in [whole_experiment.pool, *held_out] for row in dataset]
    assert len(set(prompts)) == len(prompts)
    assert all(row["completion"].split() == take(row["prompt"]) for dataset in held_out for row in dataset)


def test_the_pool_and_the_model_are_reproducible():
    first, second, other = (contradiction_pool(seed, num_rows=20) for seed in (1, 1, 2))
    assert first.pool.to_list() == second.pool.to_list() != other.pool.to_list()
    parameters = [torch.cat([p.flatten() for p in s.make_model().parameters()]) for s in (first, second, other)]
    assert torch.equal(parameters[0], parameters[1]) and not torch.equal(parameters[0], parameters[2])


@pytest.mark.parametrize("bad", [{"bad_share": 1.5}, {"bad_kinds": ("upside down",)}])
def test_a_pool_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        contradiction_pool(0, num_rows=10, **bad)


def result(method, seed, eval_loss=1.0, holdout_losses=(1.0, 1.0), auc=None):
    metrics = {"clean_eval_loss": 1.0, "loss_auc": None, "holdout_losses": list(holdout_losses)}
    return Result(method, method, seed, 10.0, 10, auc, eval_loss, 1.0, metrics=metrics)


def compared(experiment, folder, options=OPTIONS):
    return SFTComparison(folder, options, lambda cell: experiment)


def run(experiment, folder, method, options=OPTIONS):
    return run_cells(compared(experiment, folder, options), [Cell(method, 0)])[0]


def test_the_guard_adds_what_it_keeps():
    control = result("uniform", 0, holdout_losses=[1.0, 1.0, 1.0, 1.0])
    better = result("rank_token", 0, eval_loss=0.5, holdout_losses=[0.5, 0.6, 0.5, 0.6])
    worse = result("rank_token", 0, eval_loss=2.0, holdout_losses=[2.0, 2.0, 2.1, 2.0])
    for ours, eval_loss in ((better, 0.5), (worse, 1.0)):
        kept = with_guard([control, ours], "rank_token", "uniform")[-1]
        assert (kept.method, kept.eval_loss, kept.seconds) == ("rank_token_guarded", eval_loss, 2.0)


def test_paired_differences_are_over_the_seeds_that_both_have():
    results = [result("a", 0, 1.0), result("a", 1, 2.0), result("a", 2, 9.0), result("b", 0, 0.5), result("b", 1, 0.5)]
    mean, error = paired_difference(results, "a", "b", "eval_loss")
    assert mean == pytest.approx(1.0) and error == pytest.approx(0.5)
    assert paired_difference(results, "a", "c", "eval_loss") is None


# One of each kind; the others differ in numbers.
RUN = (
    *("sft", "two_stage", "low_loss", "uniform", "validated", "bds", "bmo_exact", "rank_token", "second_pass"),
    *("online_10_g2", "online_dynamic", "known_good"),
)


def test_the_settings_of_all_methods_are_valid(tmp_path):
    for method in SFT_METHODS.values():
        assert BilevelSFTSelfRefineConfig(**{**OPTIONS, **method.options}, output_dir=str(tmp_path))


def test_methods_run_and_everything_is_written(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scoring_budget, "STEPS", (1, 2))
    monkeypatch.setattr(scoring_budget, "_SHORTEST", 1)
    comparison = compared(experiment, tmp_path)
    cells = [Cell(method, 0) for method in SFT_METHODS if method in RUN]
    # Two shares leave what waits for others to the last call, which reads the rest.
    shares = [run_cells(comparison, shard(comparison, cells, part)) for part in ("1/2", "2/2")]
    assert sorted(result.method for share in shares for result in share) == sorted({*RUN} - {"second_pass"})
    report = comparison.report("Small", run_cells(comparison, cells))
    report.write(tmp_path)
    rows = report.rows
    assert [row["method"] for row in rows] == [*(cell.method for cell in cells), "rank_token_guarded"]
    assert all(math.isfinite(row["eval_loss"]) and math.isfinite(row["clean_eval_loss"]) for row in rows)
    by_name = {row["method"]: row for row in rows}
    assert by_name["known_good"]["num_rows"] == 16 and by_name["uniform"]["num_rows"] == 40
    assert by_name["uniform"]["weights_auc"] is None and by_name["bds"]["weights_auc"] is not None
    # The second pass weighs as the first ended, on rows that are all still there.
    assert by_name["second_pass"]["weights_auc"] == pytest.approx(by_name["rank_token"]["weights_auc"])
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    for name in ("report.md", "runs.json", "weights_over_training.png", "answer_lengths.png"):
        assert (tmp_path / name).stat().st_size > 0
    assert json.loads((tmp_path / "runs" / "bds-0" / "training_config.json").read_text())["selector"] == "bds"
    assert "train_loss" in pd.read_parquet(tmp_path / "runs" / "bds-0" / "metrics.parquet").columns
    page = (tmp_path / "questions.md").read_text()
    assert "**Epoch 1, top 10 %** (4 questions)" in page and "## BDS" in page


def test_a_run_is_not_repeated_unless_its_experiments_change(experiment, tmp_path):
    first = run(experiment, tmp_path, "uniform")
    written = (tmp_path / "runs" / "uniform-0" / "result.json").stat().st_mtime_ns
    assert run(experiment, tmp_path, "uniform") == first
    assert (tmp_path / "runs" / "uniform-0" / "result.json").stat().st_mtime_ns == written
    changed = run(experiment, tmp_path, "uniform", {**OPTIONS, "learning_rate": 1e-3})
    assert changed.eval_loss != first.eval_loss
    for other in (
        replace(experiment, model_name="another", make_model=lambda: contradiction_pool(1, num_rows=2).make_model()),
        replace(experiment, validation=contradiction_pool(1, num_rows=2).validation),
    ):
        assert run(other, tmp_path, "uniform").eval_loss != first.eval_loss


def test_the_report_says_what_the_guard_kept_and_takes_chats(experiment, tmp_path, capsys):
    def chats(row):
        prompt = [{"role": "user", "content": row["prompt"]}]
        return {"prompt": prompt, "completion": [{"role": "assistant", "content": row["completion"]}]}

    results = []
    for seed, losses in enumerate(([0.5, 0.6, 0.5], [3.0, 3.1, 3.0])):
        results += [
            result("uniform", seed, holdout_losses=[1.0, 1.0, 1.0]),
            result("rank_token", seed, holdout_losses=losses),
        ]
    weights = tmp_path / "runs" / "rank_token-1" / "example_weights"
    weights.mkdir(parents=True)
    pd.DataFrame({"weight": np.linspace(0, 2, len(experiment.pool))}).to_parquet(weights / "epoch-1.parquet")
    compared(replace(experiment, pool=experiment.pool.map(chats)), tmp_path).report("Chats", results).print()
    printed = capsys.readouterr().out
    assert "The guard kept the weights with seed 0." in printed
    assert "The guard kept equal weights with seed 1." in printed
    assert experiment.pool[39]["prompt"] in (tmp_path / "questions.md").read_text()


def test_weights_of_a_method_that_has_not_run(experiment, tmp_path):
    with pytest.raises(ValueError, match="run that one first"):
        run(experiment, tmp_path, "second_pass")


def test_an_unknown_method_is_named(experiment, tmp_path):
    with pytest.raises(ValueError, match="magic"):
        compared(experiment, tmp_path).choose(["magic"])


def test_row_losses_against_one_row_at_a_time(experiment, tmp_path):
    from trl import SFTConfig, SFTTrainer

    model = experiment.make_model().eval()
    args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    columns = ["prompt", "completion"]
    pool = experiment.pool.select_columns(columns).select(range(5))
    trainer = SFTTrainer(model, args, train_dataset=pool, processing_class=experiment.tokenizer)
    losses = mean_nll_per_row(model, trainer.train_dataset, experiment.tokenizer.pad_token_id, batch_size=3)
    for row, loss in zip(pool, losses):
        question = experiment.tokenizer(row["prompt"])["input_ids"]
        answer = experiment.tokenizer(row["completion"])["input_ids"] + [experiment.tokenizer.eos_token_id]
        with torch.no_grad():
            log_probs = model(torch.tensor([question + answer])).logits[0].log_softmax(-1)
        expected = -np.mean([log_probs[len(question) - 1 + t, token].item() for t, token in enumerate(answer)])
        assert loss == pytest.approx(expected, rel=1e-5)


def test_planned_batches_follow_their_stages():
    rows = planned_rows(((0.5, 0.0), (0.25, 0.5), (0.25, 1.0)), updates=8, size=4, num_pool=16, num_trusted=4, seed=0)
    batches = [rows[start : start + 4] for start in range(0, len(rows), 4)]
    assert [sum(row >= 16 for row in batch) for batch in batches] == [0, 0, 0, 0, 2, 2, 4, 4]
    assert sorted(rows[:16]) == list(range(16))  # a pass over the pool, then over the trusted rows
    assert sorted(row for row in rows if row >= 16)[::3] == [16, 17, 18, 19]


def test_right_answers_are_counted_and_shown_where_they_are_asked_for(experiment, tmp_path):
    asked = run(replace(experiment, answer_tokens=4), tmp_path / "asked", "uniform")
    assert 0 <= asked["exact_answers"] <= 1
    plain = run(experiment, tmp_path / "plain", "uniform")
    assert plain["exact_answers"] is None
    for folder, results, shown in (("asked", [asked, replace(asked, seed=1)], True), ("plain", [plain], False)):
        report = compared(experiment, tmp_path / folder).report("Answers", results)
        assert ("right answers" in report.table()[0]) == shown
    assert report.rows[0]["exact_answers"] is None


def test_two_stage_training_ends_on_trusted_rows(experiment, tmp_path, monkeypatch):
    seen = []

    def observe(trainer, *args, **kwargs):
        seen.append(trainer.planned_rows)
        return train(trainer, *args, **kwargs)

    train = training.PlannedBatches.train
    monkeypatch.setattr(training.PlannedBatches, "train", observe)
    result = train_and_evaluate(SFT_METHODS["two_stage"], experiment, experiment.pool, OPTIONS, tmp_path, 0)
    assert math.isfinite(result.eval_loss)
    rows = seen[0]
    assert len(rows) == 5 * 16 and all(row < 40 for row in rows[:32]) and all(row >= 40 for row in rows[32:])


def test_the_low_loss_filter_keeps_rows_of_low_loss(experiment, tmp_path):
    options = {**OPTIONS, "max_steps": 6}
    kept, _ = training._rows_of_lowest_loss(0.4, experiment, experiment.pool, options, tmp_path, 0)
    on_pool = training.SFTMethod("pool", "", stages=((1.0, 0.0),))
    trainer = training.trl_trainer(on_pool, experiment, experiment.pool, options, tmp_path, 0)
    trainer.train()
    losses = mean_nll_per_row(trainer.model, trainer.train_dataset, experiment.tokenizer.pad_token_id)[:40]
    is_kept = np.isin(experiment.pool["prompt"], kept["prompt"])
    assert is_kept.sum() == 16 and losses[is_kept].max() < losses[~is_kept].min()


def test_the_pretrained_model_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path))
    monkeypatch.setattr(pool_module, "PRETRAINING_ROWS", 96)
    pretrained = contradiction_pool(0, num_rows=40, pretraining_epochs=2)
    fresh = contradiction_pool(0, num_rows=40)
    first = pretrained.make_model().state_dict()
    monkeypatch.setattr(pool_module, "SFTTrainer", None)
    again = pretrained.make_model().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], fresh.make_model().state_dict()["lm_head.weight"])
