"""`boost-trl reproduce`: its cells in shards, what a run that goes on reuses, its report and its errors."""

import json
from pathlib import Path

import pytest
import yaml

from boost_trl import cli
from boost_trl.comparison import launch
from boost_trl.comparison.offline_rl.grid import Grid
from boost_trl.comparison.results import Result
from boost_trl.environments.webshop import pretraining
from boost_trl.scripts import reproduce


AXES = ["--environment", "webshop", "--algorithm", "mc", "--seeds", "0", "1"]


@pytest.fixture
def ran(monkeypatch):
    """The cells that were run: each has a score of 1, BOOST of 2."""
    cells = []

    def run(self, cell, advance=None):
        cells.append(cell)
        scores = [1.0 + (cell.method == "boost")] * 3
        label = self.methods[cell.method].label
        metrics = {"game_scores": scores, "wall_seconds": 60.0}
        return Result(cell.method, label, cell.seed, 1.0, 2, None, 0.5, 1.0, cell.setting, metrics)

    monkeypatch.setattr(Grid, "run", run)
    return cells


def command(tmp_path, *flags):
    return cli.main(["reproduce", *AXES, "--output_dir", str(tmp_path), *flags])


def test_shards_make_the_table(ran, tmp_path, capsys):
    flags = ["--methods", "vanilla", "boost"]
    assert command(tmp_path, *flags, "--shard", "1/2") == 0
    first = list(ran)
    assert 0 < len(first) < 8 and not (tmp_path / "report.html").exists()
    assert command(tmp_path, *flags, "--report") == 0
    printed = capsys.readouterr().out
    assert f"{len(first)} of 8 cells" in printed and len(ran) == len(first)
    assert command(tmp_path, *flags, "--shard", "2/2") == 0
    assert len(ran) == len(set(ran)) == 8
    assert command(tmp_path, *flags) == 0
    assert len(ran) == 8
    printed = capsys.readouterr().out
    assert (
        "8 cells, 8 of them done" in printed
        and "BOOST is above Vanilla in 2 of 2 rows of the paper; here in 2" in printed
    )
    rows = json.loads((tmp_path / "results.json").read_text())
    assert {(row["size"], row["method"]): row["score_mean"] for row in rows} == {
        ("low", "vanilla"): 1, ("low", "boost"): 2, ("high", "vanilla"): 1, ("high", "boost"): 2,
    }  # fmt: skip
    # The command of the report makes the same cells.
    assert "--report" not in (tmp_path / "report.md").read_text()


def test_more_cells_than_data_are_still_shared(ran, tmp_path):
    for index in range(1, 6):
        assert (
            command(tmp_path, "--data", "low", "--methods", "vanilla", "boost", "bilevel", "--shard", f"{index}/5")
            == 0
        )
    assert len(ran) == len(set(ran)) == 6


def test_the_estimate_follows_what_cells_took(ran, tmp_path, capsys):
    flags = ["--data", "low", "--methods", "vanilla", "boost", "bilevel"]
    command(tmp_path, *flags)
    grid = Grid(tmp_path)
    expected = 6 * grid.known_seconds(ran[0]) / 60
    minutes = "1 minute" if round(expected) == 1 else f"{expected:.0f} minutes"
    assert f"6 cells, 0 of them done; about {minutes} to go on 1 core" in capsys.readouterr().out
    command(tmp_path, *flags, "two_stage", "uniform")
    # A minute for each cell so far.
    assert "10 cells, 6 of them done; about 4 minutes to go" in capsys.readouterr().out


def test_a_file_may_name_one_of_each(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"environment": "webshop", "seeds": 3, "methods": "boost", "data": "low"}))
    reproduce.check_early(["--config", str(path)], "boost-trl reproduce")
    arguments, flags, _ = reproduce.make_parser().parse_args_and_config(["--config", str(path)])
    cells = reproduce.offline_rl_reproduction(arguments, flags).cells
    assert [(cell.setting, cell.seed, cell.method) for cell in cells] == [
        ("webshop-mc-low", 3, "boost"),
        ("webshop-ilql-low", 3, "boost"),
    ]


def test_what_is_named_twice_is_run_once(ran, tmp_path, capsys):
    assert command(tmp_path, "--data", "low", "low", "--methods", "boost", "boost", "--seeds", "0", "0") == 0
    assert len(ran) == 1 and "1 of 1 cells" in capsys.readouterr().out


@pytest.mark.parametrize("content", ['{"method": "vanil', "[1]", '{"settings": null}'])
def test_a_cell_whose_result_was_cut_off_is_run_again(ran, tmp_path, content):
    flags = ["--data", "low", "--methods", "vanilla", "boost"]
    command(tmp_path, *flags)
    broken = next(tmp_path.glob("runs/*-boost-*/result.json"))
    broken.write_text(content)
    if content != '{"settings": null}':
        with pytest.warns(UserWarning, match="is not whole .*: its cell counts as not done"):
            assert command(tmp_path, *flags, "--report") == 0
        with pytest.warns(UserWarning, match="is not whole"):
            assert command(tmp_path, *flags) == 0
    else:
        assert command(tmp_path, *flags) == 0
    assert len(ran) == 5 and json.loads(broken.read_text())["method"] == "boost"


def test_a_file_of_the_papers_setting_chooses_the_cells(tmp_path):
    path = tmp_path / "config.yaml"
    config = {
        "environment": "car_dealer",
        "algorithm": "ilql",
        "data": ["low"],
        "environment_kwargs": {"world": "small"},
    }
    path.write_text(
        yaml.safe_dump({**config, "learning_rate": 0.5, "max_steps": 70, "methods": ["boost"], "bf16": False})
    )
    given = ["--config", str(path), "--max_steps", "90", "--output_dir", str(tmp_path)]
    reproduce.check_early(given, "boost-trl reproduce")
    arguments, flags, _ = reproduce.make_parser().parse_args_and_config(given)
    made = reproduce.offline_rl_reproduction(arguments, flags)
    assert {(cell.setting, cell.method) for cell in made.cells} == {("car_dealer-ilql-low", "boost")}
    options, training_args, _ = made.comparison.options(made.cells[0])
    assert (training_args.learning_rate, training_args.max_steps, training_args.bf16) == (0.5, 90, False)
    assert options.environment_kwargs == {"world": "small"} and options.train_fraction == 0.1


@pytest.mark.parametrize(
    "flags, complaint",
    [
        ([], "`environment` must name some of twenty_questions, car_dealer, webshop; or give `--all`, or `--sft`"),
        (["--environment", "chess"], "`environment` must be among twenty_questions, car_dealer, webshop, got chess"),
        (["--all", "--data", "middle"], "`data` must be among low, high, got middle"),
        (["--all", "--shard", "3/2"], "`shard` must be such as '1/4', the first of four, got '3/2'"),
        (["--all", "--shard", "1/2", "--processes", "2"], "exclude each other"),
        (["--all", "--methods", "best"], "unknown methods ['best']"),
        (["--all", "--max_step", "3"], "there is no option `--max_step`; did you mean `--max_steps`?"),
        (["--environment", "webshop", "--methods", "boost", "--noise", "loud"], "`noise` must be one of none"),
        (
            ["--environment", "webshop", "--environment_kwargs", '{"x": 1}'],
            "the environment 'webshop' has no option `x`",
        ),
        (["--environment", "webshop", "--model_name_or_path", "/no/such/model"], "/no/such/model"),
        (["--all", "--launcher", "cloud"], "`launcher` must be one of slurm, local, got 'cloud'"),
        (["--all", "--launcher", "local", "--launcher_options", "{"], "`launcher_options` is no JSON"),
        (["--all", "--launcher", "local", "--launcher_options", "[1]"], "`launcher_options` must be an object"),
        (["--all", "--launcher_options", "{}"], "`launcher_options` are a launcher's"),
        (["--all", "--shard", "²/4"], "`shard` must be such as '1/4', the first of four, got '²/4'"),
        (["--all", "--seeds", "0", "-1"], "`seeds` must be whole numbers from 0 to 2³² − 1, got -1"),
        (["--all", "--seed", "3"], "`seed` differs from cell to cell: give `--seeds` instead"),
        (["--all", "--train_fraction", "0.5"], "`train_fraction` differs from cell to cell: give `--data` instead"),
        (["--all", "--methods", "boost", "oracle"], "oracle needs rows that are known to be bad: give `--noise bot`"),
        (["--all", "--output_dir", __file__], "`output_dir` must be a folder, but"),
        (["--all", "--games", "0"], "`games` must be at least 1, got 0"),
        (["--all", "--validation_rows", "0"], "`validation_rows` must be at least 1, got 0"),
        (["--all", "--val_split", "1"], "`val_split` must lie strictly between 0 and 1, got 1"),
        (["--all", "--noise", "bot", "--noise_share", "2"], "`noise_share` must be between 0 and 1, got 2"),
        (["--environment", "webshop", "--environment_kwargs", "[1]"], "`environment_kwargs` must be a mapping"),
        (["--sft", "--environment", "webshop"], "`--sft` has pools of its own: leave out `environment`"),
        (["--sft", "--all"], "`--sft` has pools of its own: leave out `all`"),
        (["--all", "--max_steps", "19"], "and training has 19: raise"),
        (["--config"], "`--config` must be followed by one YAML file"),
        (["--config", "a.yaml", "--config", "b.yaml"], "and given once"),
        (["--config=/no/such.yaml"], "there is no file '/no/such.yaml' here"),
        (
            ["--sft", "--max_steps", "3"],
            "`--sft` trains tiny models with settings of their own: leave out --max_steps 3",
        ),
    ],
)
def test_an_error_is_one_line(flags, complaint, capsys):
    assert cli.main(["reproduce", *flags]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("boost-trl reproduce: ") and complaint in said


def test_jobs_run_the_shards(tmp_path):
    submitit = pytest.importorskip("submitit")
    script = tmp_path / "job.py"
    script.write_text("import pathlib, sys; pathlib.Path(sys.argv[1], sys.argv[3].replace('/', '-')).touch()")
    executor = launch.make_executor("local", tmp_path / "jobs", {"timeout_min": 1})
    jobs = launch.submit_shards(executor, [str(script), str(tmp_path)], 3)
    for job in jobs:
        job.result()
    assert {path.name for path in tmp_path.glob("?-3")} == {"1-3", "2-3", "3-3"}
    with pytest.raises(ValueError, match="`launcher` 'local' cannot be used so: .*nope"):
        launch.make_executor("local", tmp_path, {"nope": 1})
    failing = launch.submit_shards(executor, [str(tmp_path / "none.py")], 1)
    with pytest.raises(submitit.core.utils.FailedJobError):
        failing[0].result()


def test_real_cells_of_the_smallest_kind(monkeypatch, tmp_path, capsys):
    """Training and games of a world, and the files of a cell."""
    for name, value in {"NUM_EPISODES": 200, "COPY_STEPS": 3, "EPISODE_STEPS": 3}.items():
        monkeypatch.setattr(pretraining, name, value)
    flags = "--data low --methods vanilla boost --seeds 0 --dialogues 120 --validation_rows 10 --max_steps 20".split()
    flags += [
        "--games",
        "4",
        "--validation_games",
        "2",
        "--environment_kwargs",
        '{"catalogue": "small", "max_steps": 4}',
    ]
    assert command(tmp_path, *flags) == 0
    cells = sorted(path.name.rsplit("-", 1)[0] for path in Path(tmp_path, "runs").iterdir())
    assert cells == ["webshop-mc-low-0-boost", "webshop-mc-low-0-vanilla"]
    for cell in Path(tmp_path, "runs").iterdir():
        names = {path.name for path in cell.iterdir()}
        assert {
            "result.json",
            "training_config.json",
            "example_weights.parquet",
            "metrics.parquet",
            "rollouts.parquet",
        } <= names
    assert "2 of 2 cells" in capsys.readouterr().out


def test_the_launchers_jobs_understand_their_command(ran, tmp_path, capsys):
    pytest.importorskip("submitit")
    flags = ["--data", "low", "--methods", "vanilla", "boost", "--max_steps", "20"]
    command(tmp_path, *flags)
    (tmp_path / "report.html").unlink()
    # The jobs find that all is done.
    assert command(tmp_path, *flags, "--launcher", "local", "--jobs", "1") == 0
    assert "4 cells, 4 of them done" in capsys.readouterr().out and (tmp_path / "report.html").exists()
