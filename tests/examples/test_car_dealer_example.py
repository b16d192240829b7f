import pytest
from comparison_examples import QUICK, load_example, run_example

from boost_trl.environments.car_dealer import pretraining


@pytest.fixture
def example(monkeypatch):
    # As ignorant as it may be.
    dialogues = pretraining.pretraining_episodes
    monkeypatch.setattr(pretraining, "pretraining_episodes", lambda n, seed: dialogues(100, seed))
    build = pretraining.build_embedded_lm
    monkeypatch.setattr(pretraining, "build_embedded_lm", lambda folder: build(folder, steps=3))
    return load_example("car_dealer", monkeypatch)


def test_the_example_compares_methods_on_brands_that_none_trained_on(example, tmp_path, capsys):
    short = ["--environment_kwargs", '{"world": "small", "max_utterances": 8}']
    rows = run_example(example, tmp_path, *QUICK, *short, "--methods", "vanilla", "boost", "oracle")
    assert [row["method"] for row in rows] == ["vanilla", "boost", "oracle"]
    assert all(0 <= row["score_mean"] <= 6 and row["mean_turns"] <= 4 for row in rows)
    assert 0 <= rows[1]["weights_auc"] <= 1
    assert (tmp_path / "weights_by_kind.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "in 8 categories" in printed and "5 held-out categories" in printed
    assert "One game of BOOST, the best learned method's policy" in printed and "; minimum " in printed
