"""Which way pays on one's own data: splits, errors, decisions, and small comparisons from files."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict
from own_data_options import OPTIONS
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import ModelConfig

import boost_trl
from boost_trl import BilevelSFTSelfRefineConfig, cli
from boost_trl.comparison.cells import Cell
from boost_trl.comparison.own_data.compare import OwnDataComparison
from boost_trl.comparison.own_data.estimate import FORWARD_SHARE
from boost_trl.comparison.own_data.own_data import ALL_TRUSTED
from boost_trl.comparison.own_data.report import draw_methods, make_report
from boost_trl.comparison.own_data.sft import SFTOwnData
from boost_trl.comparison.own_data.trusted_split import split_trusted
from boost_trl.comparison.own_data.verdict import Judgement, decide, explain
from boost_trl.comparison.own_data.worst_rows import worst_rows
from boost_trl.comparison.results import Result, mean_over_rows_and_seeds
from boost_trl.comparison.sft.methods import SFT_METHODS
from boost_trl.comparison.sft.training import planned_rows, stage_updates, trl_trainer
from boost_trl.environments.embedded_lm import word_tokenizer
from boost_trl.scripts.compare import CompareParser, prepare
from boost_trl.trainer.sft.evaluation import mean_nll_per_row


def own(files, output_dir, methods=None, seeds=(0, 1, 2)):
    args = BilevelSFTSelfRefineConfig(str(output_dir), **OPTIONS)
    paths = (str(files / name) for name in ("pool.jsonl", "trusted.jsonl", "model"))
    return OwnDataComparison(*paths, args, methods, seeds, judging_share=1 / 3, games=None)


@pytest.mark.parametrize("rows, share, judging", [(90, 1 / 3, 30), (48, 1 / 3, 20), (24, 1 / 3, 12), (8, 0.9, 4)])
def test_a_third_judges_or_twenty_rows_where_half_is_left(rows, share, judging):
    splits = [split_trusted(range(rows), share, seed) for seed in (0, 0, 1)]
    for used, judges in splits:
        assert len(judges) == judging
        assert sorted([*used, *judges]) == list(range(rows))
    assert (splits[0][1] == splits[1][1]).all() and (splits[0][1] != splits[2][1]).any()


def test_a_group_of_rows_is_never_cut():
    groups = np.array(list("abcdefghij" * 3))
    used, judges = split_trusted(groups, 1 / 3, 0)
    assert sorted([*used, *judges]) == list(range(30)) and len(judges) == 15
    assert not set(groups[used]) & set(groups[judges])


def test_errors_are_over_rows_and_seeds():
    values = np.array([[1.0, 3.0, np.nan, np.nan], [np.nan, 5.0, 7.0, np.nan]])
    # Seeds: 2 and 6. Rows: 1, 4 and 7.
    mean, error = mean_over_rows_and_seeds(values)
    assert mean == pytest.approx(4) and error**2 == pytest.approx(3**2 / 3 + 8 / 2)
    assert mean_over_rows_and_seeds(values[:1])[1] == pytest.approx(1)


def judged(**values):
    arrays = {name: np.array(value, float) for name, value in values.items()}
    equal = [name for name in values if name == "even"]
    return Judgement(arrays, ["ours", "other"], equal, measure="loss")


@pytest.mark.parametrize(
    "ours, method, pays, said",
    [
        (
            [[1.0, 2.0, 3.1]],
            "ours",
            True,
            "Weights pay: `ours` gains 0.967 ± 0.033 over `two`, the best without weights.",
        ),
        ([[1.9, 2.0, 4.9]], "two", False, "Weights may pay, but that is not clear"),
        ([[2.1, 3.2, 4.3]], "two", False, "Weights bring nothing that could be seen"),
        ([[4.0, 5.0, 6.1]], "two", False, "Weights do not pay: `ours` is worse by 2.033 ± 0.033 than `two`, the best"),
    ],
)
def test_weights_are_used_where_they_are_clearly_better_than_the_best_control(ours, method, pays, said):
    judgement = judged(plain=[[3, 4, 5]], two=[[2, 3, 4]], ours=ours, other=[[9, 9, 9]])
    if said.startswith("Weights bring"):
        judgement = judged(plain=[[3, 4, 5]], two=[[2, 3, 4]], ours=[[2.2, 2.9, 4.1]])
    decision = decide(judgement)
    assert (decision.method, decision.weights_pay, decision.control) == (method, pays, "two")
    text = " ".join(explain(judgement, decision, "3 rows", "plain").values())
    assert text.startswith(f"Use `{method}`") and said in text and "One split only" in text
    assert decision.gain == pytest.approx(3 - judgement.values["ours"].mean())


def test_without_weights_or_without_controls_there_is_nothing_to_say_of_weights():
    for judgement, missing in (
        (judged(two=[[1]], plain=[[2]]), "learns"),
        (judged(ours=[[1]], other=[[2]]), "without"),
    ):
        decision = decide(judgement)
        assert decision.method in ("two", "ours") and decision.weights_pay is None
        assert missing in explain(judgement, decision, "1 row", "plain")["Do weights pay?"]


def test_a_method_that_chose_equal_weights_is_no_evidence_for_weights():
    judgement = judged(plain=[[3, 4, 5]], even=[[1, 2, 3.1]])
    decision = decide(judgement)
    assert decision.method == "even" and decision.weights_pay is False
    text = " ".join(explain(judgement, decision, "3 rows", "plain").values())
    assert (
        "Weights do not pay: `even` chose equal ones in every split." in text and "Over `plain` it gains 1.967" in text
    )


@pytest.mark.parametrize("updates, half, seventy", [(2, [1, 1], [1, 1]), (3, [2, 1], [2, 1]), (5, [2, 3], [4, 1])])
def test_stages_make_all_updates(updates, half, seventy):
    assert stage_updates(((0.5, 0.0), (0.5, 1.0)), updates) == half
    assert stage_updates(((0.7, 0.2), (0.3, 1.0)), updates) == seventy
    planned = planned_rows(((0.5, 0.0), (0.5, 1.0)), updates, 2, num_pool=9, num_trusted=4, seed=0)
    assert [row >= 9 for row in planned] == [False] * 2 * half[0] + [True] * 2 * half[1]


def test_a_method_that_diverges_with_one_seed_is_named_and_never_chosen():
    nan = float("nan")
    rows = {
        "plain": [[3, 4, nan], [nan, 5, 6]],
        "two": [[1, 1, nan], [nan, nan, nan]],
        "ours": [[1, 2, nan], [nan, 3, 4]],
    }
    judgement = judged(**rows)
    assert judgement.diverged == ["two"] and np.isnan(judgement.level("two")).all()
    decision = decide(judgement)
    assert (decision.method, decision.control, decision.gain) == ("ours", "plain", 2)
    text = " ".join(explain(judgement, decision, "2 rows", "plain").values())
    assert "Diverged, and out of the running: `two`; a lower `learning_rate` may help." in text
    # Of the control everything is known, of weights nothing.
    decision = decide(judgement := judged(plain=[[3, 4]], ours=[[1, np.inf]], even=[[nan, nan]]))
    assert (decision.method, decision.weighted, decision.equal) == ("plain", None, ())
    assert (
        "no method that did not diverge learns weights"
        in explain(judgement, decision, "2 rows", "plain")["Do weights pay?"]
    )
    # A row that is too long for a whole action has no loss under any method.
    assert judged(plain=[[3, nan]], two=[[1, nan]]).diverged == []
    with pytest.raises(ValueError, match="every method diverged: with some seed the loss of each is no number; lower"):
        decide(judged(plain=[[nan]], two=[[nan]]))


def test_only_a_method_that_chooses_has_chosen_equal_weights(files, tmp_path):
    results = [
        Result(name, name, seed, effective, 40, None, None, 1.0)
        for seed, effective in enumerate((40, 39.999))
        for name in ("sft", "bds", "validated")
    ]
    assert own(files, tmp_path).data.weighted_and_equal(results) == (["bds"], ["validated"])


def test_the_report_has_a_method_that_diverged_last(files, tmp_path):
    results = [
        Result(name, name, 0, 40, 40, None, None, 1.0, metrics={"eval_losses": [loss] * 12})
        for name, loss in (("sft", float("nan")), ("two_stage", 2.0), ("validated", 1.0))
    ]
    data = own(files, tmp_path).data
    judgement = data.judgement(results)
    report = make_report(data, results, judgement, {}, [], "", "")
    assert [row["method"] for row in report.rows] == ["validated", "two_stage", "sft"]
    assert "diverged" in "\n".join(report.parts()) and "nan" not in "\n".join(report.parts())
    draw_methods(report.rows, judgement, tmp_path / "methods.png")


def test_the_worst_rows_are_those_of_lowest_mean_log_weight():
    pool = Dataset.from_list([{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(3)])
    weights = np.array([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]])
    first, second = worst_rows(pool, [*np.log(weights) + 5, np.zeros(3)], count=2)
    # Geometric means: .2, .346, .346.
    assert (first.row, first.text) == (0, "p0 → c0") and first.weight == pytest.approx(3 * 0.25)
    assert second.row in (1, 2)
    assert worst_rows(pool, [np.zeros(3)]) == []


def test_no_method_sees_the_rows_that_judge_and_all_take_the_same_updates(files, tmp_path):
    comparison = own(files, tmp_path).data.comparison
    updates = {}
    for method in ("sft", "two_stage", "uniform"):
        updates[method] = 0

        def advance(method=method):
            updates[method] += 1

        cell = Cell(method, 5)
        comparison.run(cell, advance)
        experiment = comparison.experiment(cell)
        used, judging = ({row["prompt"] for row in rows} for rows in (experiment.validation, experiment.evaluation))
        assert len(used) == len(judging) == 12 and not used & judging
    assert set(updates.values()) == {OPTIONS["max_steps"]}
    kept = comparison.experiment(Cell("sft", 5, ALL_TRUSTED))
    assert len(kept.validation) == 24 and kept.held_out() == {}


def test_the_estimate_counts_shorter_trainings_scoring_and_memory(files, tmp_path):
    data = own(files, tmp_path).data
    costs = data.estimate(["mixing_eight", "trusted_only", "low_loss", "validated", "validated_once"])
    once = costs.seconds["mixing_eight"]
    update = (once - costs.seconds["trusted_only"]) / (OPTIONS["max_steps"] * 2 / 3)
    # Adapting to two halves of 12 trusted rows and to all, then four short trainings with 8 rows of the pool.
    trained = 10 * (6 + 6 + 12) + 4 * 10 * (8 + 6)
    # The pool of 40 before and after, and by each half after 5 and 10 updates; halves before, twice after each, judged.
    read = 40 * 2 + 40 * 2 * 2 + 2 * 7 * 6
    assert costs.seconds["validated_once"] - once == pytest.approx(update * (trained + FORWARD_SHARE * read) / 16)
    assert costs.seconds["validated"] - costs.seconds["validated_once"] == pytest.approx(
        update * FORWARD_SHARE * 2 * 40 / 16
    )
    assert costs.seconds["low_loss"] - once == pytest.approx(update * (4 + FORWARD_SHARE * 40 / 16))
    assert 2**27 < costs.memory < 2**36


def test_a_comparison_from_python_and_one_more_seed(files, tmp_path, capsys):
    own(files, tmp_path, methods=["rank_token", "sft"], seeds=[0]).run()
    assert "2 methods × 1 split of 24 trusted rows" in capsys.readouterr().out
    first = (tmp_path / "runs" / "sft-0" / "result.json").stat().st_mtime_ns
    args = BilevelSFTSelfRefineConfig(str(tmp_path), **OPTIONS)
    result = boost_trl.compare(
        str(files / "pool.jsonl"),
        str(files / "trusted.jsonl"),
        model=str(files / "model"),
        args=args,
        methods=["rank_token", "sft"],
        seeds=[0, 1],
    )
    assert "2 of them are there already" in capsys.readouterr().out
    assert (tmp_path / "runs" / "sft-0" / "result.json").stat().st_mtime_ns == first
    losses = {
        name: np.array([each["eval_losses"] for each in result.results if each.method == name])
        for name in ("rank_token", "sft")
    }
    assert {row["method"]: row["value"] for row in result.table} == pytest.approx(
        {name: values.mean() for name, values in losses.items()}
    )
    gain = (losses["sft"] - losses["rank_token"]).mean()
    assert result.decision.gain == pytest.approx(gain) and result.decision.control == "sft"
    assert result.method == ("rank_token" if gain > 2 * result.decision.error else "sft")
    weights = [
        pd.read_parquet(tmp_path / "runs" / f"rank_token-{seed}" / "example_weights.parquet")["weight"]
        for seed in (0, 1)
    ]
    assert result.worst_rows[0].row == np.log(weights).mean(axis=0).argmin()
    assert result.worst_rows[0].weight == pytest.approx(np.mean(weights, axis=0)[result.worst_rows[0].row], rel=1e-4)
    saved = json.loads((tmp_path / "verdict.json").read_text())
    assert saved["verdict"] == result.verdict and saved["method"] == result.method
    page = (tmp_path / "report.html").read_text()
    for text in (
        f"Use <code>{result.method}</code>",
        "Do weights pay?",
        "How sure?",
        *(row.text for row in result.worst_rows),
    ):
        assert text in page
    assert page.count("data:image/png;base64,") == 1 and "http" not in page
    assert (tmp_path / "methods.png").stat().st_size > 0
    AutoModelForCausalLM.from_pretrained(result.model_folder)


@pytest.fixture(scope="module")
def chats(files):
    """A pool of 24 rows with messages, 12 trusted ones, and a tiny model that chats."""
    rows = [json.loads(line) for line in (files / "pool.jsonl").read_text().splitlines()]
    messages = [
        [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"].strip()}]
        for row in rows
    ]
    words = sorted({word for turns in messages for turn in turns for word in turn["content"].split()})
    tokenizer = word_tokenizer(["user:", "assistant:", "system:", *words])
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    )
    model.save_pretrained(files / "chat_model")
    tokenizer.save_pretrained(files / "chat_model")
    pool, trusted = (Dataset.from_dict({"messages": part}) for part in (messages[:24], messages[24:36]))
    return pool, trusted, str(files / "chat_model")


def test_packed_chats_and_an_adapter_reach_every_method(chats, tmp_path):
    pool, trusted, model = chats
    options = OPTIONS | {
        "packing": True,
        "max_length": 64,
        "per_device_train_batch_size": 2,
        "assistant_only_loss": True,
    }
    args = BilevelSFTSelfRefineConfig(str(tmp_path), **options)
    model_args = ModelConfig(model_name_or_path=model, use_peft=True, lora_r=2, lora_dropout=0.0)
    methods = ["sft", "two_stage", "mixing_eight", "validated"]
    result = boost_trl.compare(pool, trusted, model=model_args, args=args, methods=methods, seeds=[0])
    assert {run.method: len(run["eval_losses"]) for run in result.results} == dict.fromkeys(methods, 6)
    # The loss of a row that judges is that of its assistant's words, under the model without its neighbours.
    tokenizer = AutoTokenizer.from_pretrained(model)
    kept = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), result.model_folder).eval()
    assert kept.peft_config["default"].r == 2
    plain = SFTOwnData(pool, trusted, ("train", "validation"), args, model_args, 1 / 3)
    experiment = plain.comparison.experiment(Cell("sft", 0))
    trainer = trl_trainer(SFT_METHODS["two_stage"], experiment, plain.pool, plain.options, tmp_path / "t", 0)
    losses = mean_nll_per_row(kept, trainer.eval_dataset["trusted"], tokenizer.pad_token_id)
    for row, loss in zip(experiment.evaluation, losses):
        ids = tokenizer.apply_chat_template(
            row["messages"], return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
        )
        with torch.no_grad():
            log_probs = kept(ids["input_ids"]).logits[0].log_softmax(-1)
        mask = torch.as_tensor(ids["assistant_masks"]).reshape(-1)
        found = [-log_probs[t - 1, ids["input_ids"][0, t]].item() for t in range(1, len(mask)) if mask[t]]
        assert loss == pytest.approx(np.mean(found), rel=1e-4)
    # Places of packed rows of the pool, then one for each trusted row.
    lengths = trainer.train_dataset["seq_lengths"]
    assert max(len(place) for place in lengths[:-6]) > 1 and all(len(place) == 1 for place in lengths[-6:])
    assert sum(len(place) for place in lengths[:-6]) == len(pool)
    assert [row >= len(lengths) - 6 for row in trainer.planned_rows] == [False] * 8 + [True] * 8


def test_a_model_in_4_bits_is_compared(chats, tmp_path):
    pool, trusted, model = chats
    args = BilevelSFTSelfRefineConfig(str(tmp_path), **OPTIONS | {"max_steps": 1})
    model_args = ModelConfig(model_name_or_path=model, use_peft=True, lora_r=2, load_in_4bit=True)
    result = boost_trl.compare(pool, trusted, model=model_args, args=args, methods=["sft", "mixing_eight"], seeds=[0])
    assert np.isfinite([row["value"] for row in result.table]).all()


def test_streams_are_refused(chats, tmp_path):
    pool, trusted, model = chats
    with pytest.raises(ValueError, match="train is a stream, and methods draw and weigh its rows by number; load it"):
        boost_trl.compare(pool.to_iterable_dataset(), trusted, model=model)
    with pytest.raises(ValueError, match="validation must be a file, a name or one `Dataset`, got DatasetDict"):
        boost_trl.compare(pool, DatasetDict(train=trusted), model=model)


def test_the_command_compares_the_default_methods(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    options = [part for name, value in OPTIONS.items() for part in (f"--{name}", str(value))]
    rows = ["--dataset_name", "pool.jsonl", "--validation_dataset_name", "trusted.jsonl", "--model", "model"]
    assert cli.main(["compare", *rows, *options, "--seeds", "3", "--output_dir", "out"]) == 0
    printed = capsys.readouterr().out
    assert (
        "6 methods × 1 split" in printed and "Use `" in printed and "two halves of the trusted rows agree" in printed
    )
    table = json.loads((files / "out" / "results.json").read_text())
    assert {row["method"] for row in table} == {*SFTOwnData.default_methods}
    AutoModelForCausalLM.from_pretrained(files / "out" / "model")


def test_the_command_takes_pool_and_trusted_rows_from_splits(files, monkeypatch):
    monkeypatch.chdir(files)
    (files / "both").mkdir()
    for name, split in (("pool", "test"), ("trusted", "validation")):
        shutil.copy(f"{name}.jsonl", files / "both" / f"{split}.jsonl")
    rows = "--dataset_name both --dataset_train_split test --dataset_validation_split validation --model model".split()
    arguments = CompareParser("compare").parse_args_and_config([*rows, "--methods", "sft", "--use_cpu", "true"])
    data = prepare(*arguments).__self__.data
    expected = [(files / f"{name}.jsonl").read_text().splitlines() for name in ("pool", "trusted")]
    assert [data.pool.to_list(), data.trusted.to_list()] == [[json.loads(row) for row in rows] for rows in expected]
