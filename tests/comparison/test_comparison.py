import json

import numpy as np
import pytest
from datasets import Dataset

from boost_trl import BilevelOfflineRLConfig
from boost_trl.comparison import study
from boost_trl.comparison.methods import METHODS, TwoStageTrainer
from boost_trl.comparison.report import aggregate, paired_difference, table_rows
from boost_trl.comparison.run import MethodResult, auc_of_planted_truth, train_method
from boost_trl.comparison.setting import Setting
from boost_trl.comparison.study import Cell, differences_table, load_cells, mean_over_worlds, run_cells, scores_table
from boost_trl.environments.base import Task
from boost_trl.tables import markdown_table, text_table


def result(method, reward, se=0.1, beta=1.0, auc=None):
    return MethodResult(
        method=method,
        label=METHODS[method].label,
        score_mean=reward,
        score_se=se,
        success_rate=0.5,
        mean_turns=6.0,
        effective_sample_size=90.0,
        num_rows=100,
        weights_auc=auc,
        beta=beta,
        seconds=2.0,
        num_tokens=1e6,
        eval_loss=3.0,
    )


def test_one_world_keeps_the_error_over_games_and_more_take_it_over_worlds():
    (row,) = aggregate([result("boost", 2.0, se=0.3, auc=0.8)])
    assert (row["score_mean"], row["score_se"], row["weights_auc"]) == (2.0, 0.3, 0.8)
    (row,) = aggregate([result("boost", r, beta=b) for r, b in ((1.0, 5.0), (2.0, 1.0), (6.0, 5.0))])
    assert row["score_mean"] == 3.0 and row["beta"] == 5.0 and row["worlds"] == 3
    assert row["score_se"] == pytest.approx(np.std([1, 2, 6], ddof=1) / 3**0.5)
    assert row["weights_auc"] is None


def test_differences_are_paired_by_world():
    runs = [result("boost", 1.0), result("uniform", 0.5), result("boost", 9.0), result("uniform", 8.5)]
    assert paired_difference(runs, "boost", "uniform") == (0.5, 0.0)
    mean, error = paired_difference(runs[:2], "boost", "uniform")
    assert mean == 0.5 and error == pytest.approx(0.1 * 2**0.5)
    assert paired_difference(runs, "boost", "oracle") is None


def test_tables_show_a_dash_for_constant_weights():
    rows = aggregate([result("uniform", 1.234), result("boost", 2.0, auc=0.91)])
    for table in (text_table(table_rows(rows)), markdown_table(table_rows(rows))):
        uniform, boost = (next(line for line in table.splitlines() if label in line) for label in ("Uniform", "BOOST"))
        assert "1.23 ± 0.10" in uniform and "–" in uniform
        assert "0.91" in boost and "–" not in boost


def test_the_seeds_of_a_world_count_as_one():
    values = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 6.0}
    assert mean_over_worlds(values) == (4.0, pytest.approx(2.0))


@pytest.fixture
def setting(make_tiny_model, make_dialogues, tiny_tokenizer):
    def rows(n, seed, noise_every=None):
        dataset = make_dialogues(n, seed=seed).remove_columns("source")
        return dataset.add_column("is_noise", [bool(noise_every) and i % noise_every == 0 for i in range(n)])

    return Setting(
        make_model=make_tiny_model,
        tokenizer=tiny_tokenizer,
        make_env=None,
        offline=rows(20, 1, noise_every=2),
        synthetic=rows(20, 2),
        validation=rows(6, 3),
        evaluation=rows(6, 4),
        validation_tasks=[],
        evaluation_tasks=[],
    )


@pytest.fixture
def args(tmp_path):
    return BilevelOfflineRLConfig(
        str(tmp_path),
        max_steps=6,
        auxiliary_steps=2,
        primary_steps=1,
        per_device_train_batch_size=4,
        train_backbone=False,
        use_cpu=True,
        score_steps=4,
        cache_dir=str(tmp_path / "cache"),
        learning_rate=1e-2,
        save_strategy="no",
        disable_tqdm=True,
    )


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_trains_on_the_rows_it_should(name, setting, args, tmp_path):
    trainer = train_method(METHODS[name], setting, args, tmp_path / name)
    rows = trainer.trajectories
    if name in ("vanilla", "bilevel"):
        assert set(rows["source"]) == {"offline"}
    elif "filter" not in name:
        assert set(rows["source"]) == {"offline", "synthetic"}
        assert any(rows["is_noise"]) == (not name.startswith("oracle"))
    expected = {"vanilla": 20, "bilevel": 20, "oracle": 30, "oracle_mix": 30, "return_filter": 16, "loss_filter": 16}
    expected |= {"vanilla_validation": 46, "two_stage": 46}
    assert len(rows) == expected.get(name, 40)
    assert trainer.state.global_step == 6
    weights = np.asarray(trainer.example_weights()["weight"])
    if name != "validated":  # whose guard may well choose uniform weights here
        assert (np.ptp(weights) > 0) == (name in ("bilevel", "boost"))
    assert (auc_of_planted_truth(trainer, weights) is None) == (np.ptp(weights) == 0)
    # One normalisation for all rows, so that their losses and β can be compared.
    assert trainer.model.primary.config.return_scale == pytest.approx(
        setting.return_normalization(setting.make_model(), trainer.args)[1]
    )


def test_two_stages_are_pool_then_validation_in_the_proportion_of_the_phases(setting, args, tmp_path):
    trainer = train_method(METHODS["two_stage"], setting, args, tmp_path)
    assert isinstance(trainer, TwoStageTrainer)
    is_validation = np.asarray(trainer.trajectories["is_validation"])
    batches = [is_validation[batch["index"].numpy()] for batch in trainer.get_train_dataloader()]
    assert [batch.all() for batch in batches] == [False] * 4 + [True] * 2
    assert not np.concatenate(batches[:4]).any()


def test_a_study_skips_finished_cells_and_builds_a_setting_once(monkeypatch, tmp_path):
    built, ran = [], []
    monkeypatch.setattr(
        study,
        "run_method",
        lambda method, *args, **games: (ran.append(method.name), (result(method.name, 1.0), None))[1],
    )
    cells = [Cell(name, pool, "mc", "frozen", 0, 0) for pool in ("clean", "bot") for name in ("uniform", "boost")]
    for _ in range(2):
        run_cells(cells[:3], tmp_path, lambda cell: built.append(cell.pool), lambda cell: {})
    run_cells(cells, tmp_path, lambda cell: built.append(cell.pool), lambda cell: {})
    assert ran == ["uniform", "boost", "uniform", "boost"] and built == ["clean", "bot", "bot"]
    results = load_cells(tmp_path)
    assert len(results) == 4 and {row["pool"] for row in results} == {"clean", "bot"}
    assert "| BOOST | 1.00 ± 0.00 | 1.00 ± 0.00 |" in scores_table(results, ("clean", "bot"))
    assert "| Uniform | +0.00 ± 0.00 | +0.00 ± 0.00 |" in differences_table(
        results, "boost", ["uniform"], ("clean", "bot")
    )
    json.dumps(results)


def test_rows_of_other_formats_are_brought_into_common_columns(setting):
    assert setting.pool.column_names == setting.validation.column_names
    assert len(setting.pool) == 40 and sum(setting.offline["is_noise"]) == 10
    assert set(setting.offline["source"]) == {"offline"} and set(setting.synthetic["source"]) == {"synthetic"}
    assert isinstance(setting.pool, Dataset)


def test_shared_tasks_are_counted_by_id():
    tasks = [Task(name, "fruit") for name in ("apple", "pear", "plum")]
    rows = Dataset.from_list(
        [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}], "rewards": [0.0]}]
    )
    setting = Setting(
        None, None, None, rows, rows, rows, rows, tasks[:2], [Task("pear", "fruit"), Task("fig", "fruit")]
    )
    assert setting.num_shared_tasks == 1
