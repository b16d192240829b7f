"""Which rows, options and folders a comparison on one's own data refuses or leaves out."""

import json
import shutil
import warnings

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from own_data_options import OPTIONS

import boost_trl
from boost_trl import BilevelSFTSelfRefineConfig, cli
from boost_trl.comparison.cells import Cell
from boost_trl.comparison.own_data.compare import OwnDataComparison
from boost_trl.comparison.own_data.own_data import ALL_TRUSTED
from boost_trl.comparison.own_data.row_format import sft_rows
from boost_trl.comparison.own_data.verdict import Decision


def test_no_row_that_judges_stands_among_others_too(files, tmp_path, capsys):
    pool, trusted = (Dataset.from_json(str(files / f"{name}.jsonl")) for name in ("pool", "trusted"))
    args = BilevelSFTSelfRefineConfig(str(tmp_path), **OPTIONS)
    pool = concatenate_datasets([trusted.select([0, 1]), pool])
    copies = concatenate_datasets([trusted, trusted.select(range(6))])
    comparison = OwnDataComparison(pool, copies, str(files / "model"), args, ["sft"], [0], 1 / 3, None)
    data = comparison.data
    # Without copies nothing changes.
    assert data.trusted.to_list() == trusted.to_list() and data.pool.to_list() == pool.to_list()[2:]
    (used,), (judging,) = ([part.to_list()] for part in data.split(Cell("sft", 0)))
    assert not any(row in used or row in data.pool.to_list() for row in judging) and len(judging) == 12
    said = "Rows left out: 2 of the pool that are trusted rows too and 6 trusted ones that are copies of others."
    assert data.remarks() == [said]
    # Rows are called by their numbers in the user's file.
    data.scores = lambda cell: np.arange(40.0)
    assert comparison._worst_rows(Decision("a", "a", None))[0].row == 2
    for rows, others, complaint in (
        (trusted, trusted, "every row of train is in validation too; give a pool that has others"),
        (pool, trusted.select([0, 1, 2, 3] * 6), "validation has 4 different trusted rows, and a comparison needs at"),
    ):
        with pytest.raises(ValueError, match=complaint):
            OwnDataComparison(rows, others, str(files / "model"), args, ["sft"], [0], 1 / 3, None)


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"max_steps": 1}, "method 'two_stage' trains in stages, and 1 updates .`max_steps`. are too few for these"),
        ({"methods": []}, "`methods` is empty: name one at least, or leave it out"),
        ({"seeds": [-1]}, "`seeds` must be different numbers from 0 up"),
        ({"max_steps": -1, "num_train_epochs": 0}, "`num_train_epochs` must be positive and finite, got 0"),
        ({"rho_init": 0.3}, "`rho_init` would not be shared by all methods, since it is 0.8 in 'mixing_eight'; leave"),
        (
            {"selection_rounds": 1},
            "`selection_rounds` would not be shared by all methods, since it is 3 in 'validated'",
        ),
        ({"keep_fraction": 0.9, "methods": "all"}, "`keep_fraction` would not be shared .* 0.3 in 'rank'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(files, tmp_path, options, complaint):
    options = {"methods": None, "seeds": [0], **OPTIONS, **options}
    methods, seeds = options.pop("methods"), options.pop("seeds")
    args = BilevelSFTSelfRefineConfig(str(tmp_path / "out"), **options)
    paths = (str(files / name) for name in ("pool.jsonl", "trusted.jsonl", "model"))
    with pytest.raises(ValueError, match=complaint):
        OwnDataComparison(*paths, args, methods, seeds, 1 / 3, None)
    assert not (tmp_path / "out").exists()


def test_one_method_is_enough_and_what_it_does_not_set_is_shared(files, tmp_path):
    args = BilevelSFTSelfRefineConfig(str(tmp_path), **OPTIONS, rho_init=0.3)
    paths = [str(files / name) for name in ("pool.jsonl", "trusted.jsonl", "model")]
    assert OwnDataComparison(*paths, args, "validated", [0], 1 / 3, None).methods == ["validated"]


@pytest.mark.parametrize(
    "row, column",
    [
        ({"prompt": "a", "completion": " "}, "completion"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}, "messages"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}]}, "conversations"),
    ],
)
def test_trusted_rows_that_say_nothing_are_refused(row, column):
    full = json.loads(json.dumps(row).replace('""', '"b"').replace('" "', '"b"'))
    pool, trusted = Dataset.from_list([full, row]), Dataset.from_list([full, row])
    with pytest.raises(ValueError, match=f"trusted, row 1, column `{column}`: has no answer; mend it"):
        sft_rows(pool, trusted, "pool", "trusted", "text")
    assert len(sft_rows(pool, trusted.select([0]), "pool", "trusted", "text")[0]) == 2


def test_results_of_other_weights_under_the_same_name_are_not_reused(files, tmp_path):
    model = shutil.copytree(files / "model", tmp_path / "model")
    args = BilevelSFTSelfRefineConfig(str(tmp_path / "out"), **OPTIONS)
    paths = (str(files / name) for name in ("pool.jsonl", "trusted.jsonl"))
    pool, trusted = (Dataset.from_json(path) for path in paths)

    def settings():
        data = OwnDataComparison(pool, trusted, str(model), args, ["sft"], [0], 1 / 3, None).data
        return data.comparison.settings(Cell("sft", 0))

    before = settings()
    assert settings() == before
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    assert settings() != before


def test_a_model_in_the_place_of_the_chosen_one_is_not_replaced(files, tmp_path):
    shutil.copytree(files / "model", tmp_path / "model")
    args = BilevelSFTSelfRefineConfig(str(tmp_path), **OPTIONS)
    rows = (str(files / "pool.jsonl"), str(files / "trusted.jsonl"))
    for model, said in (
        (tmp_path / "model", "would take the place of .*, which every method starts from; name another `output_dir`"),
        (files / "model", "model is there already and would be replaced; name another `output_dir`"),
    ):
        with pytest.raises(ValueError, match=said):
            boost_trl.compare(*rows, model=str(model), args=args)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    # What a comparison has put there, it replaces.
    (tmp_path / "runs" / f"sft-0-{ALL_TRUSTED}").mkdir(parents=True)
    OwnDataComparison(*rows, str(files / "model"), args, None, [0], 1 / 3, None)


def test_a_former_name_of_an_option_warns_once(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    rows = ["--train_path", "pool.jsonl", "--validation_dataset_name", "trusted.jsonl", "--model", "model"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert cli.main(["compare", *rows, "--methods", "magic", "--use_cpu", "true"]) == 2
    said = [str(warning.message) for warning in caught if "is now called" in str(warning.message)]
    assert len(said) == 1 and said[0].startswith("`train_path` is now called `dataset_name`")


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--dataset_name", "nowhere.jsonl"], "no dataset 'nowhere.jsonl'"),
        (["--dataset_train_split", "test"], "pool.jsonl is a file, which has no split 'test'"),
        (["--model", "nobody/nothing"], "'nobody/nothing'"),
        (["--methods", "sft", "magic"], "unknown methods ['magic']"),
        (["--methods", "known_good"], "method 'known_good' needs to know which rows are good"),
        (["--methods", "second_pass"], "name that one before it"),
        (
            ["--validation_dataset_name", "few.jsonl"],
            "few.jsonl has 1 different trusted rows, and a comparison needs at least 8",
        ),
        (["--validation_dataset_name", "chats.jsonl"], "chats.jsonl ['messages']; give both the same format"),
        (["--validation_dataset_name", "turns.jsonl"], "turns.jsonl, column `prompt`: has another type than in"),
        (["--validation_dataset_name", "episodes.jsonl"], "episodes.jsonl has rewards and"),
        (["--judging_share", "1"], "`judging_share` must lie in (0, 1), got 1.0"),
        (["--seeds", "1", "1"], "`seeds` must be different numbers"),
        (
            ["--load_best_model_at_end", "true", "--eval_strategy", "steps", "--save_strategy", "steps"],
            "by the rows that judge",
        ),
        (["--selector", "bmo"], "`selector` cannot be set here"),
        (["--packing", "true"], "`packing` leaves open how many updates an epoch has; give `max_steps`"),
        (["--packing", "true", "--max_steps", "4", "--methods", "low_loss"], "single rows, which `packing` joins"),
        (["--push_to_hub", "true"], "`push_to_hub` cannot be set here"),
    ],
)
def test_mistakes_are_one_line_and_status_2(files, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(files)
    message = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    rows = {
        "few": [{"prompt": "a", "completion": "b"}] * 3,
        "chats": [{"messages": message}] * 8,
        "turns": [{"prompt": message[:1], "completion": message[1:]}] * 8,
        "episodes": [{"messages": message, "rewards": [1.0]}] * 8,
    }
    for name, lines in rows.items():
        (files / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    defaults = ["--dataset_name", "pool.jsonl", "--validation_dataset_name", "trusted.jsonl", "--model", "model"]
    assert cli.main(["compare", *defaults, "--use_cpu", "true", *arguments]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("boost-trl compare: ")]
    assert len(said) == 1 and complaint in said[0]
