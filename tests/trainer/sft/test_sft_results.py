"""What a run with learned weights leaves behind: logs, tables, files, and a model that others open."""

import json
import math
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sft_tiny import make_args, make_model, make_rows, make_tokenizer
from transformers import AutoModelForCausalLM, TrainerCallback

from boost_trl.scripts.sft_self_refine import main, make_parser
from boost_trl.selection import Selector
from boost_trl.selection.auc import weights_auc
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.row_weights.model_card import completed_card


COUNT = 24


def contradicting_rows():
    """One question form; good rows answer it as validation does, bad rows contradict it."""
    rows = []
    for i in range(COUNT):
        good = i % 3 != 0
        rows.append(
            {
                "prompt": f"w{i % 8} w20 ",
                "completion": f"w{8 + i % 8}" if good else f"w{30 + i % 8}",
                "good": good,
                "source": "web" if i % 2 else "books",
                "category": f"c{i % 5}",
            }
        )
    return Dataset.from_list(rows)


def validation_rows():
    return Dataset.from_list([{"prompt": f"w{i} w20 ", "completion": f"w{8 + i}"} for i in range(8)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    events = []

    class Events(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            events.append(dict(logs))

    trainer = BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        make_args(
            folder,
            max_steps=-1,
            num_train_epochs=12,
            per_device_train_batch_size=6,
            rho_increment=0.02,
            selector_learning_rate=0.5,
            label_column="good",
            logging_steps=4,
            eval_strategy="epoch",
        ),
        train_dataset=contradicting_rows(),
        eval_dataset={"clean": validation_rows(), "train": make_rows(4)},
        processing_class=make_tokenizer(),
        validation_dataset=validation_rows(),
        callbacks=[Events()],
    )
    trainer.train()
    trainer.save_model()
    return trainer, folder, events


def test_rows_that_contradict_validation_lose_their_weight(run):
    trainer, _, events = run
    table = trainer.example_weights()
    good = torch.tensor(contradicting_rows()["good"][:])
    weights = torch.tensor(table["weight"][:])
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)
    assert weights[~good].max() < weights[good].min()
    assert [entry for entry in events if "upper_loss" in entry][-1]["selector/auc"] == 1.0


def test_example_weights_have_the_rows_in_their_order(run):
    trainer, _, _ = run
    table = trainer.example_weights()
    assert table.column_names == ["index", "weight", "score", "text", "source", "category"]
    assert table["index"][:] == list(range(COUNT))
    assert table["source"][:] == contradicting_rows()["source"][:]
    assert all(text.startswith(row["prompt"]) for text, row in zip(table["text"], contradicting_rows()))
    scores = torch.tensor(table["score"][:], dtype=torch.float64)
    assert torch.allclose(torch.tensor(table["weight"][:], dtype=torch.float64), COUNT * scores.softmax(0), rtol=1e-5)


def test_logs_hold_both_levels_and_the_selector(run):
    trainer, _, events = run
    steps = [entry for entry in events if "upper_loss" in entry]
    assert len(steps) == 12
    assert [entry["rho"] for entry in steps] == pytest.approx([0.1 + 0.02 * epoch for epoch in range(12)])
    last = steps[-1]
    assert last["gamma"] == pytest.approx(last["rho"] / (1 - last["rho"]))
    weights = torch.tensor(trainer.example_weights()["weight"][:], dtype=torch.float64) / COUNT
    assert last["selector/n_eff"] == pytest.approx(1 / float((weights**2).sum()), rel=1e-5)
    assert last["selector/entropy"] == pytest.approx(-float((weights * weights.log()).sum()), rel=1e-5)
    assert last["selector/max_weight"] == pytest.approx(COUNT * float(weights.max()), rel=1e-5)
    assert last["selector/share_seen"] == 1.0
    assert last["weighted_lower_loss"] < last["lower_loss"]
    for entry in steps:
        assert all(math.isfinite(value) for value in entry.values())
    evaluations = [entry for entry in events if "eval_clean_loss" in entry]
    assert len(evaluations) == 12
    assert not any(name.startswith("eval") and "selector" in name for entry in events for name in entry)


def test_files(run):
    trainer, folder, _ = run
    AutoModelForCausalLM.from_pretrained(folder)
    selector = Selector.from_pretrained(folder, num_examples=COUNT)
    assert torch.equal(selector.logits(), trainer.selector.logits())
    assert json.loads((folder / "selector_config.json").read_text())["selector"] == "bds"
    saved = Dataset.from_parquet(str(folder / "example_weights.parquet"), cache_dir=str(folder / "cache"))
    assert saved["weight"][:] == trainer.example_weights()["weight"][:]
    assert sorted(path.name for path in (folder / "example_weights").iterdir()) == sorted(
        f"epoch-{epoch}.parquet" for epoch in range(1, 13)
    )
    trainer.create_model_card(model_name="tiny")
    card = (folder / "README.md").read_text()
    for text in ("bilevel-sft-self-refine", "Quan Xiao", "effective sample size", "eval_clean_loss", 'selector="bds"'):
        assert text in card
    assert "xiao2026unified" in card and "2026" in card
    assert {"trl", "sft"} <= set(trainer.model.model_tags)


@pytest.mark.parametrize("selector", [None, "uniform"])
def test_the_card_of_a_run_without_learned_weights_does_not_claim_any(selector, tmp_path):
    options = {} if selector is None else {"validation_dataset": validation_rows()}
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(tmp_path, max_steps=1, **({} if selector is None else {"selector": selector})),
        train_dataset=contradicting_rows(),
        processing_class=make_tokenizer(),
        **options,
    )
    trainer.train()
    trainer.create_model_card(model_name="tiny")
    card = (tmp_path / "README.md").read_text()
    for text in ("bilevel-sft-self-refine", "Quan Xiao", "was learned"):
        assert text not in card
    assert "bilevel-sft-self-refine" not in trainer.model.model_tags
    assert ("All training examples weigh the same" in card) == (selector is not None)


def test_the_card_says_that_equal_weights_were_chosen():
    selector = Selector(num_examples=4, selector="validated")
    report = {"fraction": 1.0, "reason": "weights do not lower the loss of both halves of the trusted rows"}
    text = "## Citations\n"
    card = completed_card(text, selector, 12, [], None, None, Path("answers"), report)
    assert "Equal weights were chosen by 12 trusted rows" in card and report["reason"] in card
    assert "was learned" not in card
    learned = completed_card(text, selector, 12, [], None, None, Path("answers"), report | {"fraction": 0.1})
    assert "weight was learned from 12 trusted rows" in learned


def test_the_cards_code_opens_the_repository_or_a_path_that_the_reader_completes(run, monkeypatch):
    trainer, folder, _ = run
    trainer.create_model_card()
    card = (folder / "README.md").read_text()
    assert f'model="path/to/{folder.name}"' in card
    (code,) = [block.split("```")[0] for block in card.split("```python\n") if "read_parquet" in block]
    names = {}
    exec(code.replace(f"path/to/{folder.name}", str(folder)), names)
    assert names["weights"]["weight"].tolist() == trainer.example_weights()["weight"][:]
    assert torch.equal(names["selector"].logits(), trainer.selector.logits())
    text = 'pipeline("text-generation", model="me/answers")\n## Citations\n'
    card = completed_card(text, trainer.selector, 12, [], None, "me/answers", folder)
    assert 'hf_hub_download("me/answers", "example_weights.parquet")' in card
    assert 'Selector.from_pretrained("me/answers")' in card and "path/to" not in card


def test_a_push_leaves_the_pickled_arguments_out(run):
    trainer, folder, _ = run
    assert (folder / "training_args.bin").is_file()
    trainer.save_model(_internal_call=True)  # as `push_to_hub` does
    assert not (folder / "training_args.bin").exists()
    trainer.save_model()
    assert (folder / "training_args.bin").is_file()


def test_export_selected_trains_again(run, tmp_path):
    trainer, _, _ = run
    weights = trainer.example_weights()["weight"][:]
    selected = trainer.export_selected(contradicting_rows(), top_fraction=0.5)
    expected = sorted(sorted(range(COUNT), key=lambda i: (-weights[i], i))[: COUNT // 2])
    assert selected["prompt"][:] == contradicting_rows().select(expected)["prompt"][:]
    assert sum(selected["weight"][:]) / len(selected) == pytest.approx(1.0)
    assert all(selected["good"][:])
    BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(tmp_path, max_steps=1, weight_column="weight"),
        train_dataset=selected,
        processing_class=make_tokenizer(),
    ).train()
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="top_fraction"):
            trainer.export_selected(contradicting_rows(), top_fraction=wrong)
    with pytest.raises(ValueError, match="has 3 rows, but the weights belong to 24"):
        trainer.export_selected(make_rows(3))


def test_export_selected_chooses_by_weights_only(tmp_path):
    def make_trainer(dataset, validation=None, **overrides):
        return BilevelSFTSelfRefineTrainer(
            make_model(),
            make_args(tmp_path, max_steps=2, **overrides),
            train_dataset=dataset,
            processing_class=make_tokenizer(),
            validation_dataset=validation,
        )

    trainer = make_trainer(make_rows(6), make_rows(2))
    with pytest.raises(ValueError, match="all weights are equal"):
        trainer.export_selected(make_rows(6), top_fraction=0.5)
    assert trainer.export_selected(make_rows(6))["weight"][:] == [1.0] * 6
    with pytest.raises(TypeError, match="must be a `Dataset`, got `IterableDataset`"):
        trainer.export_selected(make_rows(6).to_iterable_dataset())

    # What is left of fixed weights 0 and 1 is all rows of weight 1: nothing to choose among.
    trainer = make_trainer(make_rows(4, {"weight": [0.0, 1.0, 0.0, 1.0]}), weight_column="weight")
    assert trainer.export_selected(make_rows(4), top_fraction=0.5)["text"][:] == make_rows(4).select([1, 3])["text"][:]
    with pytest.raises(ValueError, match="which 1 of 2 rows"):
        trainer.export_selected(make_rows(4), top_fraction=0.25)


def test_export_selected_writes_the_column_that_the_next_run_reads(tmp_path):
    def make_trainer(dataset, folder, validation=None):
        args = make_args(folder, max_steps=2, weight_column="quality")
        return BilevelSFTSelfRefineTrainer(
            make_model(), args, train_dataset=dataset, processing_class=make_tokenizer(), validation_dataset=validation
        )

    kilograms = [5.0, 6.0, 7.0, 8.0]
    pool = make_rows(4, {"quality": [1.0, 2.0, 3.0, 4.0], "weight": kilograms})
    first = make_trainer(pool, tmp_path / "a", make_rows(2))
    first.train()
    learned = torch.tensor(first.example_weights()["weight"][:])
    selected = first.export_selected(pool)
    assert selected["weight"][:] == kilograms
    torch.testing.assert_close(torch.tensor(selected["quality"][:]), learned / learned.mean(), check_dtype=False)
    second = make_trainer(selected, tmp_path / "b")
    assert second.example_weights()["weight"][:] == selected["quality"][:]


def test_a_trainer_without_weights_says_so(tmp_path):
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(), make_args(tmp_path), train_dataset=make_rows(), processing_class=make_tokenizer()
    )
    with pytest.raises(ValueError, match="no example weights"):
        trainer.example_weights()


def test_fixed_weights_are_a_table_too(tmp_path):
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(tmp_path, weight_column="weight"),
        train_dataset=make_rows(3, {"weight": [0.5, 0.0, 2.0]}),
        processing_class=make_tokenizer(),
    )
    assert trainer.example_weights()["weight"][:] == [0.5, 0.0, 2.0]


@pytest.mark.parametrize(
    ("overrides", "pool", "upper"),
    [
        ({"selector": "mixing", "rho_init": 0.3}, 0.3, 0.7),
        ({"selector": "mixing", "rho_init": 1.0}, 1.0, 0.0),
        ({"selector": "uniform", "rho_init": 0.3}, 3 / 7, 1.0),
        ({"selector": "bds", "weight_scale": "simplex", "rho_init": 0.3}, 3 / 7 / COUNT, 1.0),
    ],
)
def test_fixed_mixtures(overrides, pool, upper, tmp_path):
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        make_args(tmp_path, max_steps=1, per_device_train_batch_size=COUNT, **overrides),
        train_dataset=contradicting_rows(),
        processing_class=make_tokenizer(),
        validation_dataset=validation_rows(),
    )
    trainer.train()
    logs = trainer.state.log_history[0]
    assert logs["loss"] == pytest.approx(pool * logs["lower_loss"] + upper * logs["upper_loss"], rel=1e-5)
    learned = overrides["selector"] == "bds"
    assert (trainer.selector.logits().std() > 0) == learned
    assert sum(trainer.example_weights()["weight"][:]) == pytest.approx(COUNT, rel=1e-5)


def test_bmo_weights_a_batch_by_its_own_losses(tmp_path):
    """Equation (28) comes before equation (22): even the first step's weights are softmax(−L) over its rows."""
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        make_args(
            tmp_path, max_steps=1, per_device_train_batch_size=12, gradient_accumulation_steps=2, selector="bmo"
        ),
        train_dataset=contradicting_rows(),
        processing_class=make_tokenizer(),
        validation_dataset=validation_rows(),
    )
    losses = {}
    with torch.no_grad():
        for row, example in enumerate(trainer.train_dataset):
            ids, labels = torch.tensor([example["input_ids"]]), torch.tensor(example["labels"])[1:]
            log_probs = make_model(attention_dropout=0.0)(input_ids=ids).logits[0, :-1].log_softmax(-1)
            kept = labels != -100
            losses[row] = -log_probs[kept, labels[kept]]
    means = torch.stack([value.mean() for value in losses.values()])
    weights = COUNT * (-means).softmax(0)
    trainer.train()
    expected = sum(w * value.sum() for w, value in zip(weights, losses.values())) / sum(map(len, losses.values()))
    assert trainer.state.log_history[0]["weighted_lower_loss"] == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(trainer.selector.weights(), weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("reduction", "baseline"), [("mean", None), ("sum", None), ("mean", "token")])
def test_exact_bmo_reads_the_whole_pool(reduction, baseline, tmp_path):
    """Equation (27) before the first step, the unvisited rows included."""
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        make_args(
            tmp_path,
            max_steps=1,
            selector="bmo_exact",
            selection_loss=reduction,
            selector_baseline=baseline,
            packing=True,
            max_length=11,
        ),
        train_dataset=contradicting_rows(),
        processing_class=make_tokenizer(),
        validation_dataset=validation_rows(),
    )
    unpacked = trainer.prepare_like_evaluation(contradicting_rows(), "again")
    losses = []
    with torch.no_grad():
        for example in unpacked:
            ids, labels = torch.tensor([example["input_ids"]]), torch.tensor(example["labels"])[1:]
            log_probs = make_model(attention_dropout=0.0)(input_ids=ids).logits[0, :-1].log_softmax(-1)
            kept = labels != -100
            loss = -log_probs[kept, labels[kept]]
            losses.append(loss.sum() if reduction == "sum" else loss.mean())
    trainer.train()
    torch.testing.assert_close(trainer.selector.logits(), -torch.stack(losses), rtol=1e-4, atol=1e-5)


def test_collapse_warns(tmp_path, caplog):
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(tmp_path, max_steps=2, min_effective_sample_size=1.0),
        train_dataset=contradicting_rows(),
        processing_class=make_tokenizer(),
        validation_dataset=validation_rows(),
    )
    trainer.train()
    assert "has collapsed" in caplog.text


def test_command_line(tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    contradicting_rows().to_json(tmp_path / "pool.jsonl")
    validation_rows().to_json(tmp_path / "trusted.jsonl")
    config = {
        "model_name_or_path": str(tmp_path / "model"),
        "dtype": "float32",
        "dataset_name": str(tmp_path / "pool.jsonl"),
        "validation_dataset_name": str(tmp_path / "trusted.jsonl"),
        "output_dir": str(tmp_path / "out"),
        "max_steps": 2,
        "selector": "rank",
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "label_column": "good",
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    parsed = make_parser().parse_args_and_config(["--config", str(tmp_path / "config.yaml"), "--rho_init", "0.2"])
    assert parsed[1].rho_init == 0.2
    main(*parsed)
    assert (tmp_path / "out" / "example_weights.parquet").is_file()
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_rank_with_a_token_baseline_finds_rows_that_contradict_validation(tmp_path):
    rows = contradicting_rows()
    defaults = BilevelSFTSelfRefineConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True)
    assert (defaults.selector_baseline, defaults.keep_fraction) == ("token", 0.3)
    args = make_args(
        tmp_path, selector="rank", selector_baseline="token", max_steps=-1, num_train_epochs=9, rho_increment=0.05
    )
    good = Dataset.from_list([row for row in rows if row["good"]])
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        args,
        train_dataset=Dataset.from_list(rows),
        validation_dataset=good,
        processing_class=make_tokenizer(),
    )
    trainer.train()
    weights = trainer.example_weights()["weight"][:]
    assert sum(weights) / len(weights) == pytest.approx(1, abs=1e-4)
    assert weights_auc(weights, [row["good"] for row in rows]) > 0.9
