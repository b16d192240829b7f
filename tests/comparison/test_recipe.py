"""What the shared recipe keeps between runs, and what the examples' options mean."""

import json

import pytest
from test_comparison import result
from trl import ModelConfig

from boost_trl import BilevelOfflineRLConfig
from boost_trl.comparison import recipe
from boost_trl.comparison.arguments import ComparisonArguments, parse_arguments
from boost_trl.comparison.methods import METHODS


class Killed(BaseException):
    pass


@pytest.fixture
def ran(monkeypatch):
    """The methods that were run, with their seeds; `ran.limit` of them at most."""

    class Ran(list):
        limit = 100

    ran = Ran()

    def run_method(method, setting, args, folder, **games):
        if len(ran) == ran.limit:
            raise Killed
        ran.append((args.seed, method.name))
        return result(method.name, float(len(ran))), None

    monkeypatch.setattr(recipe, "run_method", run_method)
    monkeypatch.setattr(recipe, "clear_device_cache", lambda **kwargs: None)  # slow, and there is nothing to free
    return ran


def compare(
    folder, noise="none", methods=("vanilla", "uniform", "oracle"), seeds=(0, 1), make_setting=None, **training
):
    arguments = ComparisonArguments(methods=list(methods), seeds=list(seeds), noise=noise)
    args = BilevelOfflineRLConfig(str(folder), use_cpu=True, **training)
    runs = recipe.compare("Toy", arguments, args, ModelConfig(), make_setting or (lambda seed: seed))
    return [run.score_mean for run in runs]


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

    assert compare(tmp_path, make_setting=no_world) == [1, 2, 3, 4] and len(ran) == 4
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
    names = [name for name in METHODS if name != "boost"]  # which is drawn
    compare(tmp_path, noise="bot", methods=names, seeds=[0])
    assert [name for _, name in ran] == names


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--noise", "loud"], "`noise` is 'loud'"),
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
