"""`examples/rl_recipe_study.py`: choices by hand, equal numbers of games, and that the page shows the committed data."""

import importlib.util
import json
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("rl_recipe_study", ROOT / "examples" / "rl_recipe_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def policies(study, said):
    """Results of one pool: every policy says (validation score, score) after any number of games; 0 unless given."""
    return {
        name: {
            "method": name,
            "setting": "webshop-planted-mc",
            "seed": 20,
            "weights_auc": 0.9,
            "judged": {
                str(number): dict(zip(("validation_score", "score_mean"), said.get((name, number), (0.0, 0.0))))
                for number in study.games_of(name)
            },
        }
        for name in study.RecipeStudy.methods
    }


def test_no_method_plays_more_games_than_another_and_every_policy_is_considered(study):
    assert {name for _, names in study.CHOICES.values() for name in names} == study.RecipeStudy.methods.keys()
    games = {method: number * len(names) for method, (number, names) in study.CHOICES.items()}
    assert games.pop("recipe") == games.pop("recipe, always weights") == 64 and set(games.values()) == {128}
    assert all(number in study.games_of(name) for number, names in study.CHOICES.values() for name in names)


def test_choices_and_differences_by_hand(study):
    results = policies(
        study,
        {
            # The recipe judges by 32 games, Uniform mix by 64, Two-stage and Uniform mix without finishing by 128.
            ("uniform", 32): (3.0, 3.0),
            ("uniform", 64): (5.0, 2.0),
            ("uniform", 128): (0.0, 2.5),
            ("uniform+finish@0.5", 64): (4.0, 9.0),
            ("all@0.4", 32): (2.0, 6.0),
            ("all@0.4+finish@0.5", 32): (2.0, 9.0),
            ("two_stage", 128): (0.0, 7.0),
            ("oracle_mix+finish@0.5", 64): (1.0, 10.0),
        },
    )
    chosen = {method: study.choose(results, method) for method in study.CHOICES}
    assert chosen["recipe"][0] == "all@0.4"  # the first of equals
    for auc, expected in ((0.55, "two_stage"), (0.75, "all@0.4")):
        said = {"num_trusted": 12, "auc": auc, "chance_error": 0.083, "trusted_share": 0.5}
        with_rank = {**results, "all@0.4": {**results["all@0.4"], "confidence": said}}
        assert study.choose(with_rank, "recipe")[0] == expected
        assert study.choose(with_rank, "recipe, always weights")[0] == "all@0.4"
    scores = {method: said["score_mean"] for method, (_, said) in chosen.items()}
    assert (scores["recipe"], scores["uniform_mix"], scores["two_stage"], scores["oracle_mix"]) == (6, 2, 7, 10)
    assert scores["uniform_mix, never finishing"] == 2.5 and scores["four_candidates"] == 3
    rows = list(results.values())
    cells = study.scores_by_cell(rows)
    (line,) = study.differences_table(cells).splitlines()[2:]
    said = [part.strip() for part in line.split("|")[1:-1]]
    assert said[1] == "-1.00 ± 0.00" and said[3] == "+4.00 ± 0.00" and said[6:] == ["no", "+8.00 ± 0.00", "50%"]
    (line,) = study.choices_table(rows).splitlines()[2:]
    assert [part.strip() for part in line.split("|")[1:-1]] == ["webshop-planted-mc", "all@0.4", "–", "0.90"]
    # A cell that lacks a policy says nothing; an oracle is not needed where no noise was planted.
    assert study.scores_by_cell(rows[1:]) == {}
    natural = [row | {"setting": "webshop-natural-mc"} for row in rows if "oracle" not in row["method"]]
    assert study.scores_by_cell(natural)["webshop-natural-mc"]["recipe"] == [6.0]
    assert study.differences_table(study.scores_by_cell(natural)).splitlines()[-1].split()[-2:] == ["–", "|"]


@pytest.mark.parametrize("name", ["rl_recipe_study", "rl_recipe_car_dealer"])
def test_the_page_has_the_tables_of_the_data(study, name):
    rows = json.loads((ROOT / "docs" / "data" / f"{name}.json").read_text())
    cells = study.scores_by_cell(rows)
    page = (ROOT / "docs" / "reproductions.md").read_text()
    for table in (study.scores_table(cells), study.differences_table(cells), study.choices_table(rows)):
        assert table in page
