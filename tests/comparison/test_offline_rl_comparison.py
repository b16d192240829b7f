"""Offline RL methods side by side: what is kept between runs, what the options mean, what the numbers say."""

import json

import numpy as np
import pytest
from datasets import Dataset
from trl import ModelConfig

from boost_trl import BilevelOfflineRLConfig
from boost_trl.comparison.cells import Cell, run_cells, saved_results
from boost_trl.comparison.offline_rl import comparison as module
from boost_trl.comparison.offline_rl.arguments import ComparisonArguments, parse_arguments
from boost_trl.comparison.offline_rl.comparison import OfflineRLComparison, Options
from boost_trl.comparison.offline_rl.findings import COLUMNS, difference, summarize
from boost_trl.comparison.offline_rl.games_shown import game_html, game_text, shown_game
from boost_trl.comparison.offline_rl.kept_policy import our_command
from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.offline_rl.study import differences_table, mean_over_worlds, scores_table
from boost_trl.comparison.offline_rl.verdict import verdict
from boost_trl.comparison.offline_rl.worlds import get_world
from boost_trl.comparison.report import Report
from boost_trl.comparison.results import Result
from boost_trl.tables import markdown_table, text_table


def result(method, score, se=0.1, beta=1.0, auc=None, seed=0, setting=""):
    return Result(
        method=method,
        label=METHODS[method].label,
        seed=seed,
        setting=setting,
        effective_sample_size=90.0,
        num_rows=100,
        weights_auc=auc,
        eval_loss=3.0,
        seconds=2.0,
        metrics={
            "score_mean": score,
            "score_se": se,
            "success_rate": 0.5,
            "mean_turns": 6.0,
            "beta": beta,
            "num_tokens": 1e6,
            "num_tasks": 3,
            "num_shared_tasks": 2,
            "best_beta_score": None,
            "report": None,
            "distance_correlation": None,
            "game": None,
            "environment_kwargs": None,
        },
    )


def test_one_world_keeps_the_error_over_games_and_more_take_it_over_worlds():
    (row,) = summarize([result("boost", 2.0, se=0.3, auc=0.8)])
    assert (row["score_mean"], row["score_se"], row["weights_auc"]) == (2.0, 0.3, 0.8)
    (row,) = summarize([result("boost", r, beta=b) for r, b in ((1.0, 5.0), (2.0, 1.0), (6.0, 5.0))])
    assert row["score_mean"] == 3.0 and row["beta"] == 5.0 and row["worlds"] == 3
    assert row["score_se"] == pytest.approx(np.std([1, 2, 6], ddof=1) / 3**0.5)
    assert row["weights_auc"] is None


def test_differences_are_paired_by_world():
    results = [
        result(name, score, seed=seed)
        for seed, name, score in ((0, "boost", 1.0), (0, "uniform", 0.5), (1, "uniform", 8.5), (1, "boost", 9.0))
    ]
    assert difference(results, "boost", "uniform") == (0.5, 0.0)
    mean, error = difference(results[:2], "boost", "uniform")
    assert mean == 0.5 and error == pytest.approx(0.1 * 2**0.5)
    assert difference(results, "boost", "oracle") is None


def test_tables_show_a_dash_for_constant_weights():
    rows = summarize([result("uniform", 1.234), result("boost", 2.0, auc=0.91)])
    cells = Report("", rows, [], COLUMNS, [], {}, "").table()
    for table in (text_table(cells), markdown_table(cells)):
        uniform, boost = (next(line for line in table.splitlines() if label in line) for label in ("Uniform", "BOOST"))
        assert "1.23 ± 0.10" in uniform and "–" in uniform
        assert "0.91" in boost and "–" not in boost


def test_the_seeds_of_a_world_count_as_one():
    values = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 6.0}
    assert mean_over_worlds(values) == (4.0, pytest.approx(2.0))


class Killed(BaseException):
    pass


@pytest.fixture
def ran(monkeypatch):
    """The methods that were run, with their seeds; `ran.limit` of them at most."""

    class Ran(list):
        limit = 100

    ran = Ran()

    def run(self, cell, advance=None):
        self.experiment(cell)
        if len(ran) == ran.limit:
            raise Killed
        ran.append((cell.seed, cell.method))
        return result(cell.method, float(len(ran)), seed=cell.seed, setting=cell.setting)

    monkeypatch.setattr(OfflineRLComparison, "run", run)
    return ran


def compare(
    folder, noise="none", methods=("vanilla", "uniform", "oracle"), seeds=(0, 1), make_experiment=None, **training
):
    arguments = ComparisonArguments(methods=list(methods), seeds=list(seeds), noise=noise)
    args = BilevelOfflineRLConfig(str(folder), use_cpu=True, **training)
    results = module.compare("Toy", arguments, args, ModelConfig(), make_experiment or (lambda seed: seed))
    return [result["score_mean"] for result in results]


def test_a_study_runs_each_cell_once_and_makes_an_experiment_once(ran, tmp_path):
    built = []
    options = Options(ComparisonArguments(), BilevelOfflineRLConfig(str(tmp_path), use_cpu=True), ModelConfig())
    comparison = OfflineRLComparison(tmp_path, lambda cell: options, lambda cell: built.append(cell.setting))
    cells = [Cell(name, 0, pool) for pool in ("clean", "bot") for name in ("uniform", "boost")]
    for some in (cells[:3], cells[:3], cells):
        run_cells(comparison, some)
    assert [name for _, name in ran] == ["uniform", "boost", "uniform", "boost"] and built == ["clean", "bot"]
    results = saved_results(comparison, [*cells, Cell("oracle", 0, "bot")])
    rows = [{**result.to_dict(), "pool": result.setting, "world": 0} for result in results]
    assert len(rows) == 4 and {row["pool"] for row in rows} == {"clean", "bot"}
    assert "| BOOST | 2.00 ± 0.00 | 4.00 ± 0.00 |" in scores_table(rows, ("clean", "bot"))
    assert "| Uniform | +1.00 ± 0.00 | +1.00 ± 0.00 |" in differences_table(
        rows, "boost", ["uniform"], ("clean", "bot")
    )
    json.dumps(rows)


def test_only_worlds_that_are_known_are_compared():
    assert get_world("webshop").arguments_type().dialogues == 2000
    with pytest.raises(ValueError, match="'chess'; choose one of twenty_questions, car_dealer, webshop"):
        get_world("chess")


def test_a_killed_comparison_goes_on_with_what_has_no_result(ran, tmp_path):
    ran.limit = 3
    with pytest.raises(Killed):
        compare(tmp_path)
    assert ran == [(0, "vanilla"), (0, "uniform"), (1, "vanilla")] and not (tmp_path / "results.json").exists()
    ran.limit = 100
    assert compare(tmp_path) == [1, 2, 3, 4]
    assert ran[3:] == [(1, "uniform")]
    assert [row["worlds"] for row in json.loads((tmp_path / "results.json").read_text())] == [2, 2]

    def no_world(seed):
        raise AssertionError("nothing is left to run")

    assert compare(tmp_path, make_experiment=no_world) == [1, 2, 3, 4] and len(ran) == 4
    # More methods and seeds: only those are run.
    assert compare(tmp_path, methods=("vanilla", "two_stage"), seeds=(1, 2)) == [3, 5, 6, 7]


def test_other_settings_are_other_results(ran, tmp_path):
    compare(tmp_path)
    compare(tmp_path, learning_rate=0.5)
    assert len(ran) == 8
    compare(tmp_path, noise="bot")
    assert len(ran) == 14 and ran[-1] == (1, "oracle")
    compare(tmp_path, logging_steps=3, disable_tqdm=True, save_strategy="no")
    compare(tmp_path, learning_rate=0.5)
    assert len(ran) == 14
    assert "`learning_rate=0.5`" in (tmp_path / "report.md").read_text()


def test_a_result_of_other_settings_under_the_same_name_is_not_used(ran, tmp_path):
    compare(tmp_path, methods=["vanilla"], seeds=[0])
    (path,) = tmp_path.glob("runs/*/result.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": {"learning_rate": 9}}))
    assert compare(tmp_path, methods=["vanilla"], seeds=[0]) == [2]


def test_all_means_all_and_unknown_methods_are_named(ran, tmp_path):
    with pytest.raises(ValueError, match=r"unknown methods \['best'\]"):
        compare(tmp_path, methods=["best"])
    names = [name for name in METHODS if name != "boost"]
    compare(tmp_path, noise="bot", methods=names, seeds=[0])
    assert [name for _, name in ran] == names


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--noise", "loud"], "`noise` must .* got 'loud'"),
        (["--environment_kwargs", "{world}"], "`environment_kwargs` is '{world}', which is no JSON"),
        (["--environment", "webshop"], "`environment` is 'webshop', but this example plays ''"),
        (["--method", "validated"], "choose among the rows with `--methods`"),
        (["--use_peft"], "for a model that is named: give `--model_name_or_path`"),
        (["--reweighting", "uniform"], "choose among the rows with `--methods`"),
    ],
)
def test_bad_options_are_named(flags, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_arguments(ComparisonArguments, {}, ["--use_cpu", *flags])


def test_embedded_defaults_count_only_when_no_model_is_named():
    embedded = {"games": 3, "learning_rate": 0.5, "use_cpu": True}
    arguments, training_args, model_args = parse_arguments(ComparisonArguments, embedded, ["--games", "5"])
    assert (arguments.games, training_args.learning_rate, model_args.model_name_or_path) == (5, 0.5, None)
    named = ["--model_name_or_path", "gpt2", "--use_cpu"]
    arguments, training_args, model_args = parse_arguments(ComparisonArguments, embedded, named)
    assert (arguments.games, training_args.learning_rate, model_args.model_name_or_path) == (64, 1e-4, "gpt2")
    with pytest.raises(ValueError, match="options that do not exist: .*rows"):
        parse_arguments(ComparisonArguments, {"rows": 3}, ["--use_cpu"])


def test_the_verdict_names_the_winner_and_says_whether_it_is_clear():
    rows = summarize(
        results := [result("vanilla", 3.0), result("two_stage", 4.0, se=0.1), result("boost", 5.0, se=0.1)]
    )
    said = verdict(results, rows)
    assert (
        "Of 3 ways of training, *BOOST* plays best: it solves 50% of the held-out games, plain training (*Vanilla*) 50%."
        in said
    )
    # One that has not seen the trusted rows is no measure where there is one that has.
    seen = [*results, result("vanilla_validation", 3.5)]
    assert "plain training (*Vanilla+Val*) 50%." in verdict(seen, summarize(seen))
    assert (
        "The best way without learned weights, *Two-stage*, has 4.00 ± 0.10: a difference of +1.00 ± 0.14, which is clear"
        in said
    )
    said = verdict(results, summarize(results := [result("two_stage", 4.0, se=2.0), result("boost", 3.0, se=2.0)]))
    assert "*Two-stage* plays best" in said and "The best way that learns weights, *BOOST*" in said
    assert "could be chance" in said
    # One who knows the good rows does not win.
    rows = summarize([result("oracle", 9.0), result("boost", 5.0)])
    assert "*BOOST* plays best" in verdict([result("oracle", 9.0), result("boost", 5.0)], rows)


def test_the_command_that_plays_the_kept_policy_is_one_that_a_shell_finds(tmp_path, monkeypatch):
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "boost-trl").touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert our_command() == str(folder / "boost-trl")
    monkeypatch.chdir(tmp_path)
    assert our_command() == ".venv/bin/boost-trl"
    monkeypatch.setenv("PATH", str(folder))
    assert our_command() == "boost-trl"


def test_the_game_that_is_shown_is_a_solved_one_of_median_score(tmp_path):
    def game(score, actions):
        messages = [{"role": "assistant", "content": action} for action in actions]
        return {"messages": messages, "success": score > 0, "score": float(score), "task": None}

    assert shown_game(tmp_path) is None
    games = [game(0, "abcdef"), game(7, "aa"), game(7, "ab"), game(1, "abc"), game(9, "abcd")]
    Dataset.from_list(games).to_parquet(tmp_path / "rollouts.parquet")
    shown = shown_game(tmp_path)
    assert [turn["content"] for turn in shown["messages"]] == ["a", "b"]
    assert game_text(shown).endswith("agent: a\n  agent: b\n  solved, score 7")
    Dataset.from_list(games[:1]).to_parquet(tmp_path / "rollouts.parquet")
    assert shown_game(tmp_path)["score"] == 0


def test_a_game_is_shown_as_text():
    messages = [{"role": "user", "content": "<script>"}, {"role": "assistant", "content": "x" * 700}]
    page = game_html({"messages": messages, "success": False, "score": None})
    assert "&lt;script&gt;" in page and "x" * 599 + "…" in page and "✗ not solved, score 0" in page
