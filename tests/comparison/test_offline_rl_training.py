"""What every offline RL method trains on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import ModelConfig

from boost_trl import BilevelOfflineRLConfig
from boost_trl.comparison.cells import Cell
from boost_trl.comparison.offline_rl import comparison as comparison_module
from boost_trl.comparison.offline_rl.arguments import ComparisonArguments
from boost_trl.comparison.offline_rl.build import unseen_tasks
from boost_trl.comparison.offline_rl.comparison import OfflineRLComparison, Options, is_near_chance
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.methods import METHODS, TwoStageTrainer
from boost_trl.comparison.offline_rl.training import auc_of_planted_truth, train_method, turns_auc_of_planted_truth
from boost_trl.environments.base import Task


@pytest.fixture
def experiment(make_tiny_model, make_dialogues, tiny_tokenizer):
    def rows(n, seed, noise_every=None):
        dataset = make_dialogues(n, seed=seed).remove_columns("source")
        return dataset.add_column("is_noise", [bool(noise_every) and i % noise_every == 0 for i in range(n)])

    return OfflineRLExperiment(
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
def test_every_method_trains_on_the_rows_it_should(name, experiment, args, tmp_path):
    trainer = train_method(METHODS[name], experiment, args, tmp_path / name)
    rows = trainer.data.train_dataset
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
    if name not in ("validated", "by_games"):  # whose cross-validation may well choose uniform weights here
        assert (np.ptp(weights) > 0) == (name in ("bilevel", "boost"))
    assert (auc_of_planted_truth(rows, weights) is None) == (np.ptp(weights) == 0)
    # One normalisation for all rows, so that their losses and β can be compared.
    assert trainer.model.primary.config.return_scale == pytest.approx(
        experiment.return_normalization(experiment.make_model(), trainer.args)[1]
    )


def test_two_stages_are_pool_then_validation_in_the_proportion_of_the_phases(experiment, args, tmp_path):
    trainer = train_method(METHODS["two_stage"], experiment, args, tmp_path)
    assert isinstance(trainer, TwoStageTrainer)
    is_validation = np.asarray(trainer.data.train_dataset["is_validation"])
    batches = [is_validation[batch["index"].numpy()] for batch in trainer.get_train_dataloader()]
    assert [batch.all() for batch in batches] == [False] * 4 + [True] * 2
    assert not np.concatenate(batches[:4]).any()


def test_all_rows_come_before_finishing_and_validation_rows_alone_after(experiment, args, tmp_path):
    args.finish_share = 1 / 3
    trainer = train_method(METHODS["vanilla_validation"], experiment, args, tmp_path)
    is_validation = np.asarray(trainer.data.train_dataset["is_validation"])
    rows = np.concatenate([batch["index"].numpy() for batch in trainer.get_train_dataloader()])
    # Four updates of 4 of the 46 rows, all different; two on the 6 validation rows.
    assert len(rows) == 24 and len(set(rows[:16])) == 16 and not is_validation[rows[:16]].all()
    assert is_validation[rows[16:]].all() and sorted(rows[16:22]) == list(range(40, 46))


def test_games_on_validation_tasks_choose_weights_and_finishing(experiment, args, tmp_path, monkeypatch):
    """That whose best β is better, not whose first or mean is."""
    trained, played = [], set()

    def scores(trainer, experiment, games=None, **options):
        played.add(games)
        settings = trainer.args
        weights = settings.score_validation if settings.reweighting == "learned" else "uniform"
        trained.append((weights, settings.target_effective_fraction, settings.finish_share))
        # Scores by β.
        best = {1.0: 1.0, 2.0: 5.0} if weights == "all" else {1.0: 1.0, 2.0: 4.0}
        return best if settings.finish_share else {1.0: 3.0, 2.0: 3.0}

    def choose(name, **options):
        trained.clear()
        played.clear()
        options = Options(ComparisonArguments(**options), args, ModelConfig())
        comparison, cell = OfflineRLComparison(tmp_path, lambda cell: options, lambda cell: experiment), Cell(name, 0)
        chosen = comparison._best_choice(cell, args, lambda: None)
        assert chosen.trainer.args.output_dir == str(comparison.run_folder(cell))
        assert (
            len(played) == 1
            and chosen.scores == scores(chosen.trainer, experiment, *played)
            and len(trained) == comparison.steps(cell) // 5 + 1
        )
        return chosen.name, trained[:-1]

    monkeypatch.setattr(comparison_module, "validation_scores", scores)
    monkeypatch.setattr(comparison_module, "is_near_chance", lambda report: False)
    for name in ("return_filter", "vanilla_validation"):
        choice, tried = choose(name, finish_shares=[0.0, 0.5])
        assert choice == "finish-0.5" and [share for _, _, share in tried] == [0.0, 0.5] and played == {32}
    assert len(choose("two_stage", finish_shares=[0.0, 0.5])[1]) == 1 and played == {64}
    # Whatever shares controls have.
    choice, tried = choose("by_games", finish_shares=[0.0])
    assert choice == "all@0.4+finish@0.5" and played == {32}
    assert tried == [("all", 0.4, share) for share in (0.0, 0.5)]
    with pytest.raises(ValueError, match="`finish_shares` must be numbers in .* got .1.0."):
        ComparisonArguments(finish_shares=[1.0])


def test_weights_near_chance_make_way_for_two_stage_training(experiment, args, tmp_path, monkeypatch):
    """All games are its own then, and what the weights' scoring said is kept."""
    played = []

    def scores(trainer, experiment, games=None, **options):
        played.append((type(trainer).__name__, games))
        return {1.0: 1.0}

    monkeypatch.setattr(comparison_module, "validation_scores", scores)
    options = Options(ComparisonArguments(), args, ModelConfig())
    comparison, cell = (
        OfflineRLComparison(tmp_path, lambda cell: options, lambda cell: experiment),
        Cell("by_games", 0),
    )
    for auc, expected in ((0.6, [("TwoStageTrainer", 64)]), (0.95, [("BilevelOfflineRLTrainer", 32)] * 2)):
        # 6 rows: chance is 50 ± 12 %, and 5 % of it is above 69 %.
        said = {"num_trusted": 6, "auc": auc, "chance_error": 0.12, "trusted_share": 0.5}
        assert is_near_chance({"confidence": said}) == (auc == 0.6)
        monkeypatch.setattr(
            "boost_trl.trainer.offline_rl.validated_reweighting._confidence", lambda folds, kind, said=said: said
        )
        chosen = comparison._best_choice(cell, args, lambda: None)
        assert played == expected and chosen.report["confidence"] == said
        assert (chosen.name == "two_stage") == (auc == 0.6) and chosen.seconds > 0
        assert Path(chosen.trainer.args.output_dir) == comparison.run_folder(cell)
        played.clear()
    assert not is_near_chance(None) and not is_near_chance({"confidence": None})


def test_a_method_that_was_killed_while_it_played_is_not_trained_on(experiment, args, tmp_path):
    args.save_strategy, args.save_steps = "steps", 6
    once = train_method(METHODS["validated"], experiment, args, tmp_path)
    again = train_method(METHODS["validated"], experiment, args, tmp_path)
    assert again.state.global_step == 6
    for name, value in once.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_auc_of_turns_by_hand():
    rows = Dataset.from_dict(
        {"source": ["offline", "offline", "synthetic"], "noise_turns": [[False, True], [True, False, False], [True]]}
    )
    # Of rows: both turns of the first have 1.5, all of the second 0.5. Good 1.5, .5, .5 against bad 1.5, .5.
    weights = Dataset.from_dict({"weight": [1.5, 0.5, 9.0]})
    assert turns_auc_of_planted_truth(rows, weights) == pytest.approx((0.5 + 1 + 2 * (0 + 0.5)) / 6)
    # Of turns; the last turn of the second row did not fit. Good 2, .3 against bad .1, .7.
    weights = weights.add_column("turn_weights", [[2.0, 0.1], [0.7, 0.3], [5.0]])
    assert turns_auc_of_planted_truth(rows, weights) == pytest.approx(3 / 4)


def test_rows_of_other_formats_are_brought_into_common_columns(experiment):
    assert experiment.pool.column_names == experiment.validation.column_names
    assert len(experiment.pool) == 40 and sum(experiment.offline["is_noise"]) == 10
    assert set(experiment.offline["source"]) == {"offline"} and set(experiment.synthetic["source"]) == {"synthetic"}
    assert isinstance(experiment.pool, Dataset)


def test_unseen_tasks_are_cut_into_those_that_choose_and_those_that_are_reported():
    tasks = [Task(name, "fruit") for name in ("apple", "pear", "plum", "fig", "lime", "date")]
    choosing, reported = unseen_tasks([Task("pear", "fruit"), Task("kiwi", "fruit")], tasks)
    assert [task.id for task in choosing] == ["apple", "lime"]
    assert [task.id for task in reported] == ["plum", "fig", "date"]
    with pytest.raises(ValueError, match="needs two evaluation tasks that no validation row has, got 1"):
        unseen_tasks(tasks[:5], tasks)


def test_shared_tasks_are_counted_by_id():
    tasks = [Task(name, "fruit") for name in ("apple", "pear", "plum")]
    rows = Dataset.from_list(
        [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}], "rewards": [0.0]}]
    )
    experiment = OfflineRLExperiment(
        None, None, None, rows, rows, rows, rows, tasks[:2], [Task("pear", "fruit"), Task("fig", "fruit")]
    )
    assert experiment.num_shared_tasks == 1
