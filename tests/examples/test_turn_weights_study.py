"""`examples/turn_weights_study.py`: its oracle, its tables by hand, and that the page shows the committed data."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from boost_trl import BilevelOfflineRLConfig
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.training import train_method


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("turn_weights_study", ROOT / "examples" / "turn_weights_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_oracle_trains_on_good_turns_alone(study, make_tiny_model, make_dialogues, tiny_tokenizer, tmp_path):
    rng = np.random.default_rng(0)
    offline = make_dialogues(20, seed=1)
    marks = [[bool(rng.random() < 0.5) for _ in rewards] for rewards in offline["rewards"]]
    rows = [make_dialogues(count, seed=count) for count in (8, 6, 5)]
    experiment = OfflineRLExperiment(
        make_tiny_model, tiny_tokenizer, None, offline.add_column("noise_turns", marks), *rows, [], []
    )
    args = BilevelOfflineRLConfig(
        str(tmp_path),
        method="validated",
        max_steps=3,
        per_device_train_batch_size=16,
        train_backbone=False,
        use_cpu=True,
        save_strategy="no",
        cache_dir=str(tmp_path / "cache"),
    )
    plans = []

    class Recorded(study.KnownTurnsTrainer):
        def _plan(self, rows):
            plans.append(super()._plan(rows))
            return plans[-1]

    method = study.replace(study.TurnComparison.methods["oracle_turns"], trainer_class=Recorded)
    trainer = train_method(method, experiment, args, tmp_path)
    units, truth = trainer.data.store.units, [*marks, *([[False] * 9] * 14)]
    drawn = set()
    for plan in plans:
        (micro_batch,) = plan.micro_batches
        coefficients = iter(micro_batch.coefficients)
        for row in micro_batch.rows:
            of_row = [next(coefficients) for _ in range(units.counts[row])]
            assert [value == 0 for value in of_row] == truth[row][: len(of_row)]
            assert np.ptp([value for value in of_row if value]) < 1e-12
            drawn.add(int(row))
    assert len(drawn) > 15 and not any(row < 20 and all(marks[row]) for row in drawn)


def test_tables_by_hand(study):
    def row(method, setting, seed, score, auc=None):
        return {"method": method, "setting": setting, "seed": seed, "score_mean": score, "turns_auc": auc}

    rows = [row("boost", "0.6", 1, 2.0, 0.5), row("boost", "0.6", 2, 4.0, 0.7), row("uniform", "0.6", 1, 1.0)]
    rows += [row("boost_turns", "0.6", 1, 5.0, 0.9), row("boost_turns", "0.6", 2, 5.0, 0.9)]
    scores = study.table(rows, ["0.3", "0.6"], "score_mean").splitlines()
    assert "30% of the turns" in scores[0] and "60% of the turns" in scores[0]
    assert any("BOOST" in line and "3.00 ± 1.00 (2)" in line for line in scores)
    aucs = study.table(rows, ["0.6"], "turns_auc")
    assert "Uniform" not in aucs and "0.60 ± 0.10" in aucs
    # 5 − 2 and 5 − 4; one seed of Uniform alone.
    difference = study.differences(rows, ["0.6"])
    assert "+2.00 ± 1.00 (2)" in difference and "+4.00 (1)" in difference


def test_the_page_has_the_tables_of_the_data(study):
    rows = json.loads((ROOT / "docs" / "data" / "turn_weights_study.json").read_text())
    page = (ROOT / "docs" / "reproductions.md").read_text()
    shares = sorted({study.share_of(row["setting"]) for row in rows})
    assert len({row["seed"] for row in rows}) >= 3
    for measure in ("score_mean", "turns_auc"):
        assert study.table(rows, shares, measure) in page
    assert study.differences(rows, shares) in page
