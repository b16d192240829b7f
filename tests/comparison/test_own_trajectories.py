"""Which way pays on one's own trajectories: how policies are judged, and small comparisons."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer, ValuePolicy, cli
from boost_trl.comparison.cells import Cell
from boost_trl.comparison.offline_rl import comparison
from boost_trl.comparison.own_data import trajectories, trajectory_cells
from boost_trl.comparison.own_data.compare import OwnDataComparison
from boost_trl.comparison.own_data.own_data import Games
from boost_trl.comparison.own_data.policy_losses import policy_losses
from boost_trl.comparison.own_data.trusted_split import split_trusted
from boost_trl.comparison.own_data.verdict import Judgement
from boost_trl.comparison.own_data.worst_rows import worst_rows
from boost_trl.comparison.results import Result
from boost_trl.environments.base import make_env
from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories
from boost_trl.environments.twenty_questions.pretraining import small_vocabulary
from boost_trl.trainer.offline_rl.backbone import tokenize_options
from boost_trl.trainer.offline_rl.scoring_budget import JUDGED_BETAS


OPTIONS = {
    "max_steps": 4,
    "auxiliary_steps": 2,
    "primary_steps": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "score_steps": 4,
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "train_backbone": False,
    "states_dtype": "float32",
}


@pytest.fixture
def model(tmp_path, make_tiny_model, tiny_tokenizer):
    """A folder with a tiny model."""
    make_tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.parametrize("algorithm, prior", [("mc", "none"), ("ilql", "lm")])
def test_policy_losses_against_one_token_at_a_time(
    tmp_path, make_tiny_model, make_dialogues, tiny_tokenizer, algorithm, prior
):
    args = BilevelOfflineRLConfig(
        str(tmp_path), method="vanilla", algorithm=algorithm, policy_prior=prior, **OPTIONS | {"max_steps": 1}
    )
    rows, betas = make_dialogues(3, seed=3), (0.5, 3.0)
    trainer = BilevelOfflineRLTrainer(
        make_tiny_model(), args, train_dataset=make_dialogues(4, seed=1), processing_class=tiny_tokenizer
    )
    policy = trainer.policy()
    found = policy_losses(policy, rows, betas, trainer.processing_class, **tokenize_options(policy.causal_lm, args))
    heads, backbone = trainer.model.primary, trainer.model.backbone.eval()
    for place, row in enumerate(rows):
        rendered = trainer.processing_class.apply_chat_template(
            row["messages"], return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
        )
        ids, mask = rendered["input_ids"], torch.as_tensor(rendered["assistant_masks"]).reshape(-1)
        with torch.no_grad():
            output = backbone(ids, output_hidden_states=True)
        hidden = output.hidden_states[-1][0]
        q = torch.stack([hidden @ w.T + b for w, b in zip(heads.q_weight, heads.q_bias)]).amin(0).detach()
        for number, beta in enumerate(betas):
            logits = beta * q + (output.logits[0].log_softmax(-1) if prior == "lm" else 0)
            losses = [-logits[t - 1].log_softmax(-1)[ids[0, t]].item() for t in range(1, len(mask)) if mask[t]]
            assert found[number, place] == pytest.approx(np.mean(losses), rel=1e-4)


def test_scores_of_games_have_errors_of_their_own():
    values = {"a": np.array([[3.0], [5.0]]), "b": np.array([[1.0], [4.0]])}
    errors = {"a": np.array([[0.6], [0.8]]), "b": np.array([[0.0], [1.2]])}
    judgement = Judgement(values, ["a"], [], measure="score", lower_is_better=False, errors=errors)
    # Seeds: differences 2 and 1, of standard error 1/2. Games: (.36 + .64 + 1.44)/4.
    gain, error = judgement.gain("a", "b")
    assert gain == pytest.approx(1.5) and error**2 == pytest.approx(0.25 + 0.61)
    assert judgement.best(["a", "b"]) == "a"


def test_trajectories_are_compared_without_an_environment(tmp_path, model, make_dialogues, capsys):
    pool, trusted = make_dialogues(24, seed=1), make_dialogues(12, seed=2)
    args = BilevelOfflineRLConfig(str(tmp_path / "out"), **OPTIONS)
    methods = ["vanilla_validation", "trusted_only", "validated"]
    comparison = OwnDataComparison(pool, trusted, model, args, methods, [0, 1], 1 / 3, games=None)
    result = comparison.run()
    assert "3 methods × 2 splits of 12 trusted rows, on a pool of 24 rows: 6 runs of 4" in capsys.readouterr().out
    returns = np.array([sum(row["rewards"]) for row in trusted])
    of_seeds = {method: [] for method in methods}
    for run in result.results:
        judging = split_trusted(range(12), 1 / 3, run.seed)[1]
        losses = np.array(run["policy_losses"])
        assert losses.shape == (len(JUDGED_BETAS), len(judging))
        high = returns[judging] >= np.median(returns[judging])
        of_seeds[run.method].append(losses[:, high].mean(axis=1).min())
    assert {row["method"]: row["value"] for row in result.table} == pytest.approx(
        {method: np.mean(values) for method, values in of_seeds.items()}
    )
    assert "trusted trajectories of high return that no method saw, in each of 2 splits" in result.verdict
    assert ValuePolicy.from_pretrained(result.model_folder).beta in JUDGED_BETAS
    # The experiment has synthetic rows last, the user's file has not.
    cell, data = Cell("validated", 0), comparison.data
    table = pd.read_parquet(data.comparison.run_folder(cell) / "example_weights.parquet")
    order = [row for source in ("offline", "synthetic") for row in range(24) if pool[row]["source"] == source]
    assert order != list(range(24))
    assert np.exp(data.scores(cell))[order] == pytest.approx(table["weight"].to_numpy())
    second = OwnDataComparison(pool, trusted, model, args, methods, [0, 1], 1 / 3, games=None).run()
    assert second.verdict == result.verdict and "6 of them are there already" in capsys.readouterr().out


def test_controls_and_weights_choose_how_they_finish_by_the_same_held_out_rows(
    tmp_path, model, make_dialogues, monkeypatch
):
    pool, trusted = make_dialogues(24, seed=1), make_dialogues(30, seed=2)
    args = BilevelOfflineRLConfig(str(tmp_path / "out"), **OPTIONS)
    methods = ["vanilla_validation", "uniform_mix", "validated"]
    comparison = OwnDataComparison(pool, trusted, model, args, methods, [0], 1 / 3, games=None)
    trained = []

    def train(method, experiment, args, folder):
        trained.append((method.name, args.finish_share, len(experiment.validation), experiment.evaluation is None))
        return args.finish_share

    losses = np.array([[3.0, 1.0, np.nan], [2.0, 1.5, 1.0]])  # by β and row: the second row is best at a mean of 1.5
    monkeypatch.setattr(trajectory_cells, "train_method", train)
    monkeypatch.setattr(trajectory_cells, "judged_losses", lambda share, rows: losses + (share != 0.3))
    cells = comparison.data.comparison
    for method in methods:
        cell = Cell(method, 0)
        choice = cells._choice_by_losses(cell, cells.options(cell).training_args, lambda: None)
        assert choice == ("" if method == "vanilla_validation" else "finish-0.3")
    assert trained == [(name, share, 8, True) for name in methods[1:] for share in (0.0, 0.3)]
    monkeypatch.undo()
    result = comparison.run()
    assert all(run["choice"] in ("finish-0.0", "finish-0.3") for run in result.results[1:])
    page = (tmp_path / "out" / "report.md").read_text()
    assert f"chosen was `{result.results[2]['choice']}` in 1 of 1 splits" in page
    # A choice that the user makes is taken.
    args = BilevelOfflineRLConfig(str(tmp_path / "out"), finish_share=0.5, **OPTIONS)
    cells = OwnDataComparison(pool, trusted, model, args, methods, [0], 1 / 3, games=None).data.comparison
    assert cells._choices(Cell("validated", 0)) == {"finish-0.5": {"finish_share": 0.5}}
    assert cells._choices(Cell("vanilla_validation", 0)) == {"": {}}
    assert cells._choices(Cell("by_games", 0))["finish-0.5"]["target_effective_fraction"] == 0.4
    assert cells.options(Cell("vanilla_validation", 0)).training_args.finish_share == 0


def test_tasks_that_judge_or_choose_are_those_of_no_row_that_trains(tmp_path, model, monkeypatch):
    monkeypatch.setattr(trajectories, "load_tokenizer", lambda model_args: word_tokenizer(small_vocabulary()))
    env = make_env("twenty_questions", world="small", seed=1)
    pool, trusted = offline_trajectories(env, 20, seed=0), offline_trajectories(env, 90, seed=1)
    args, games = (
        BilevelOfflineRLConfig(str(tmp_path / "out"), **OPTIONS),
        Games("twenty_questions", {"world": "small"}),
    )

    def made(trusted, games=games):
        return OwnDataComparison(pool, trusted, model, args, ["validated"], [0], 1 / 3, games).data

    data = made(trusted)
    assert data.choose(None) == ["vanilla_validation", "two_stage", "trusted_only", "uniform_mix", "by_games"]
    args.target_effective_fraction = 0.2
    with pytest.raises(ValueError, match="`target_effective_fraction` would not be shared .* 0.4 in 'by_games'"):
        OwnDataComparison(pool, trusted, model, args, None, [0], 1 / 3, games)
    args.target_effective_fraction = 0.4
    used, judging = data.split(Cell("validated", 0))
    found = data.comparison.experiment(Cell("validated", 0))
    training = {row["task"]["id"] for row in found.validation}
    choosing, judges = ({task.id for task in tasks} for tasks in (found.validation_tasks, found.evaluation_tasks))
    assert not training & choosing and not judges & (training | choosing)
    assert judges == {row["task"]["id"] for row in judging}
    assert training | choosing == {row["task"]["id"] for row in used}
    assert len(choosing) == round(len(training | choosing) / 3)
    in_pool = len({row["task"]["id"] for row in pool} & (training | choosing | judges))
    tasks = len(training | choosing | judges)
    assert data.remarks()[-1] == f"The pool has dialogues of {in_pool} of the trusted rows' {tasks} tasks."
    # Too few tasks to hold some out are said.
    names = sorted(training)[:8]
    few = made(trusted.filter(lambda row: row["task"]["id"] in names))
    found = few.comparison.experiment(Cell("validated", 0))
    assert {task.id for task in found.validation_tasks} == {row["task"]["id"] for row in found.validation}
    assert "too few tasks to hold some out" in few.remarks()[-1]
    rows = trusted.filter(lambda row: row["task"]["id"] in names[:7])
    with pytest.raises(ValueError, match="validation has trusted rows of 7 tasks, and .* or leave out `environment`"):
        made(rows)
    assert len(made(rows, None).trusted) == len({str(row["messages"]) for row in rows})


def test_weights_of_some_splits_only(tmp_path, model, make_dialogues):
    """Where Two-stage takes the place of weights, its table has the trusted rows too."""
    args = BilevelOfflineRLConfig(str(tmp_path / "out"), **OPTIONS)
    rows = make_dialogues(24, seed=1), make_dialogues(12, seed=2)
    data = OwnDataComparison(*rows, model, args, ["validated"], [0, 1], 1 / 3, games=None).data
    weights = np.arange(24) / 11.5
    for seed, column in enumerate((np.ones(24 + 8), weights)):
        folder = data.comparison.run_folder(Cell("by_games", seed))
        folder.mkdir(parents=True)
        table = pd.DataFrame({"index": range(len(column)), "weight": column, "score": 0.0})
        table.to_parquet(folder / "example_weights.parquet")
    fallen, weighted = (data.scores(Cell("by_games", seed)) for seed in (0, 1))
    assert (fallen == np.zeros(24)).all()
    assert np.exp(weighted)[data.order] == pytest.approx(weights)
    worst = worst_rows(data.pool, [fallen, weighted], count=2)
    assert [row.weight for row in worst] == pytest.approx([0, 1 / 11.5])
    report = {"effective_sample_size": 9.6, "num_rows": 24, "confidence": None}
    results = [
        Result("by_games", "", seed, 1, 1, None, None, 1.0, metrics={"choice": choice, "report": report})
        for seed, choice in enumerate(("two_stage", "all"))
    ]
    said = "they were used in 1 of 2 splits, and `two_stage` in the others, where they are near chance."
    assert data.confidence(results).endswith(said) and data.confidence(results[1:]).endswith("in 1 of 1 splits.")


def test_methods_without_phases_need_no_outer_iteration(tmp_path, model, make_dialogues):
    rows = make_dialogues(24, seed=1), make_dialogues(30, seed=2)
    options = {**OPTIONS, "auxiliary_steps": 20, "primary_steps": 20}
    args = BilevelOfflineRLConfig(str(tmp_path / "out"), **options)
    for names in (None, "all"):
        methods = OwnDataComparison(*rows, model, args, names, [0], 1 / 3, games=None).methods
        assert "two_stage" in methods and not {"uniform", "bilevel", "boost"}.intersection(methods)


@pytest.mark.parametrize("method, choice", [("vanilla_validation", ""), ("by_games", "two_stage")])
def test_trajectories_are_judged_by_games_where_there_is_an_environment(tmp_path, capsys, monkeypatch, method, choice):
    trained = []
    train = comparison.train_method
    for module in (comparison, trajectory_cells):
        monkeypatch.setattr(
            module, "train_method", lambda tried, *args: (trained.append(tried.name), train(tried, *args))[1]
        )
    monkeypatch.setattr(comparison, "is_near_chance", lambda report: True)
    env = make_env("twenty_questions", world="small", seed=1)
    tokenizer = word_tokenizer(small_vocabulary())
    tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=512).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for name, rows in (
        ("pool", offline_trajectories(env, 20, seed=0)),
        ("trusted", offline_trajectories(env, 8, seed=1)),
    ):
        rows.to_json(tmp_path / f"{name}.jsonl")
    options = {**OPTIONS, "max_new_tokens": 2, "output_dir": str(tmp_path / "out"), "num_games": 2, "seeds": 0}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    files = {"dataset_name": "pool.jsonl", "validation_dataset_name": "trusted.jsonl", "model": "model"}
    arguments += [part for name, file in files.items() for part in (f"--{name}", str(tmp_path / file))]
    arguments += ["--environment", "twenty_questions", "--environment_kwargs", '{"world": "small", "seed": 1}']
    assert cli.main(["compare", *arguments, "--methods", method]) == 0
    # In the split, and for the model that is kept.
    assert trained == ([method] * 2 if not choice else [method, choice, choice])
    assert "on 2 games of tasks of trusted rows that no method saw, its score is " in capsys.readouterr().out
    (run,) = json.loads((tmp_path / "out" / "runs.json").read_text())
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (row["value"], row["value_se"]) == pytest.approx((run["score_mean"], run["score_se"]))
    assert run["choice"] == choice
    assert ValuePolicy.from_pretrained(tmp_path / "out" / "model").beta == run["beta"]


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--methods", "oracle"], "method 'oracle' needs to know which rows are bad"),
        (
            ["--methods", "two_stage", "boost", "--max_steps", "30"],
            "method 'boost' needs 20 + 20 policy updates for its first outer iteration",
        ),
        (["--methods", "by_games"], "method 'by_games' is chosen by games, which need an `environment`"),
        (["--finish_share", "0"], "`finish_share` cannot be 0 here, because methods choose whether they finish"),
        (["--method", "validated"], "`method` and `reweighting` are what is compared"),
        (["--environment", "twenty_questions"], "trusted.jsonl, row 0, column `task`: is missing"),
        (["--output_dir", "pool.jsonl/out"], "`output_dir`: pool.jsonl/out cannot be written to (Not a directory)"),
        (["--environment", "chess"], "no environment is called 'chess'"),
        (["--validation_dataset_name", "answers.jsonl"], "pool.jsonl has rewards and answers.jsonl has none"),
        (["--validation_dataset_name", "bad.jsonl"], "bad.jsonl, row 0, column `rewards`"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    tmp_path, model, make_dialogues, monkeypatch, capsys, arguments, complaint
):
    monkeypatch.chdir(tmp_path)
    make_dialogues(10, seed=1).to_json("pool.jsonl")
    make_dialogues(8, seed=2).to_json("trusted.jsonl")
    message = {"role": "user", "content": "yes"}, {"role": "assistant", "content": "no"}
    for name, extra in (("answers", {}), ("bad", {"rewards": [1.0, 2.0]})):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps({"messages": message} | extra) + "\n") * 8)
    defaults = ["--dataset_name", "pool.jsonl", "--validation_dataset_name", "trusted.jsonl", "--model", "model"]
    assert cli.main(["compare", *defaults, "--use_cpu", "true", "--max_steps", "40", *arguments]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("boost-trl compare: ")]
    assert len(said) == 1 and complaint in said[0]
