import json

import pytest
import torch
from datasets import Dataset

from boost_trl import cli
from boost_trl.data.row_files import load_rows
from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments.base import make_env
from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories
from boost_trl.environments.twenty_questions.pretraining import small_vocabulary
from boost_trl.environments.webshop.pretraining import small_vocabulary as shop_vocabulary
from boost_trl.models.value_heads import ValueHeads, ValueHeadsConfig
from boost_trl.models.value_policy import ValuePolicy
from boost_trl.scripts import rollout, synthesize


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained model of the small world, its value heads aside, and a few rows."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = word_tokenizer(small_vocabulary())
    tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=128).save_pretrained(path / "lm")
    tokenizer.save_pretrained(path / "lm")
    offline_trajectories(TwentyQuestions(), 6).to_json(path / "rows.jsonl")
    return path


def run(script, *flags):
    return script.main(*script.make_parser().parse_args_and_config([str(flag) for flag in flags]))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_rollout_plays_saves_and_prints(folder, tmp_path, capsys, suffix):
    output = tmp_path / "deep" / f"games.{suffix}"
    flags = ["--model_name_or_path", folder / "lm", "--num_games", 5, "--max_new_tokens", 3]
    flags += ["--environment_kwargs", '{"max_questions": 2}', "--output_path", output]
    results = run(rollout, *flags)
    rows = load_rows(str(output))
    validate_trajectories(rows)
    assert len(rows) == 5 and all(len(rewards) <= 2 for rewards in rows["rewards"])
    assert results["num_games"] == 5 and results["score_mean"] == pytest.approx(sum(rows["score"]) / 5)
    printed = capsys.readouterr().out
    assert "| twenty_questions | 5 |" in printed and rows[0]["messages"][1]["content"] in printed


STUCK = """
import time
from boost_trl.environments.twenty_questions.environment import TwentyQuestions

class Stuck(TwentyQuestions):
    def step(self, action):
        if self.tasks()[1].id == self.task.id:
            time.sleep(60)
        return super().step(action)

    def reset(self, *, seed=None, task=None):
        self.task = task
        return super().reset(seed=seed, task=task)
"""


BUG = """
from beside import LOST
from boost_trl.environments.twenty_questions.environment import TwentyQuestions

class Bug(TwentyQuestions):
    def step(self, action):
        return {}[LOST]
"""


def test_a_bug_in_an_environment_is_one_line_with_its_place(folder, tmp_path, capsys):
    (tmp_path / "bug.py").write_text(BUG)
    (tmp_path / "beside.py").write_text("LOST = 'oops'")
    flags = ["--model_name_or_path", str(folder / "lm"), "--max_new_tokens", "3", "--num_games", "2"]
    assert cli.main(["rollout", *flags, "--environment", f"{tmp_path}/bug.py:Bug"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("boost-trl rollout: ")]
    assert said[0].endswith("games ended in an error of the environment, such as: KeyError: 'oops' (bug.py:7)")


def test_rollout_goes_on_without_a_game_whose_environment_hangs(folder, tmp_path, capsys):
    (tmp_path / "stuck.py").write_text(STUCK)
    flags = ["--model_name_or_path", folder / "lm", "--max_new_tokens", 3, "--step_timeout", 2.0]
    flags += ["--environment", f"{tmp_path}/stuck.py:Stuck", "--output_path", tmp_path / "games.jsonl"]
    results = run(rollout, *flags, "--environment_kwargs", '{"max_questions": 2}')
    rows = load_rows(str(tmp_path / "games.jsonl"))
    errors = [error for error in rows["error"] if error is not None]
    said = "TimeoutError: a step of the environment took longer than 2 s (stuck.py:8)"
    assert errors == [said] and rows["error"][1] == said
    assert results["errors"] == 1 and results["num_games"] == len(rows) - 1
    with pytest.raises(ValueError, match="`step_timeout` must be a positive number of seconds, got 0"):
        run(rollout, *flags, "--step_timeout", 0)


def test_rollout_reads_yaml_and_flags_win(folder, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model_name_or_path: {folder / 'lm'}\nnum_games: 4\nmax_new_tokens: 2\nenvironment_kwargs:\n  max_questions: 2\n"
    )
    assert run(rollout, "--config", config)["mean_turns"] == 2
    assert run(rollout, "--config", config, "--num_games", 3)["num_games"] == 3
    config.write_text(config.read_text() + "num_gmaes: 3\n")
    with pytest.raises(ValueError, match="num_gmaes"):
        run(rollout, "--config", config)


def test_rollout_plays_the_tasks_of_a_dataset(folder, tmp_path):
    rows = load_rows(str(folder / "rows.jsonl"))
    flags = [
        "--model_name_or_path",
        folder / "lm",
        "--max_new_tokens",
        2,
        "--tasks_dataset_name",
        folder / "rows.jsonl",
    ]
    run(rollout, *flags, "--output_path", tmp_path / "games.jsonl")
    played = load_rows(str(tmp_path / "games.jsonl"))
    assert [task["id"] for task in played["task"]] == [task["id"] for task in rows["task"]]
    one_without = [{**rows[0], "task": None}, *rows.to_list()[1:]]
    Dataset.from_list(one_without).to_json(tmp_path / "one_without.jsonl")
    assert run(rollout, *flags, "--tasks_dataset_name", tmp_path / "one_without.jsonl")["num_games"] == len(rows) - 1
    rows.remove_columns("task").to_json(tmp_path / "bare.jsonl")
    with pytest.raises(ValueError, match="no column `task`"):
        run(rollout, *flags, "--tasks_dataset_name", tmp_path / "bare.jsonl")


def test_rollout_plays_the_values_of_a_model_that_has_them(folder, tmp_path):
    # Values that want the one word "no" whatever was said.
    lm, tokenizer = rollout.open_policy(str(folder / "lm"), value_heads=True)
    config = lm.config
    heads = ValueHeads(
        ValueHeadsConfig(vocab_size=config.vocab_size, hidden_size=config.n_embd, algorithm="mc", bias="token")
    )
    heads.initialize_random(std=0.0)
    path = tmp_path / "trained"
    with torch.no_grad():
        (bias,) = [
            p for p in heads.parameters() if p.shape[-1] == config.vocab_size and p.numel() == config.vocab_size
        ]
        bias.view(-1)[tokenizer.convert_tokens_to_ids("no")] = 100.0
    ValuePolicy(lm, heads, beta=2.0, processing_class=tokenizer).save_pretrained(path)
    assert rollout.open_policy(str(path), value_heads=True)[0].beta == 2.0
    flags = ["--model_name_or_path", path, "--num_games", 2, "--max_new_tokens", 2, "--show_games", 0]
    run(rollout, *flags, "--output_path", tmp_path / "values.jsonl")
    run(rollout, *flags, "--output_path", tmp_path / "lm.jsonl", "--no_use_value_heads")

    def said(name):
        rows = load_rows(str(tmp_path / name))
        return {m["content"] for row in rows for m in row["messages"] if m["role"] == "assistant"}

    assert said("values.jsonl") == {"no no"} != said("lm.jsonl")


def test_synthesize_writes_a_row_per_row(folder, tmp_path, capsys):
    output = tmp_path / "synthetic.jsonl"
    flags = ["--model_name_or_path", folder / "lm", "--dataset_name", folder / "rows.jsonl", "--output_path", output]
    flags += ["--max_new_tokens", 2, "--batch_size", 4, "--environment_kwargs", '{"max_questions": 3}']
    flags += ["--environment", "twenty_questions"]
    rows = run(synthesize, *flags)
    validate_trajectories(rows)
    assert len(rows) == 6 and set(rows["source"]) == {"synthetic"} and "| 6 |" in capsys.readouterr().out
    assert (
        Dataset.from_list([json.loads(line) for line in output.read_text().splitlines()]).to_list() == rows.to_list()
    )


def test_webshops_synthetic_reward_is_an_option_of_the_environment(tmp_path):
    tokenizer = word_tokenizer(shop_vocabulary())
    tokenizer.save_pretrained(tmp_path / "lm")
    tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=192).save_pretrained(tmp_path / "lm")
    turns = [("user", "red shirt"), ("assistant", "click buy now"), ("user", "Your score: 0.5")]
    row = {
        "messages": [{"role": role, "content": content} for role, content in turns],
        "rewards": [0.0],
        "terminated": False,
        "category": "Clothing – Men",
        "task": make_env("webshop", catalogue="small").tasks()[0].to_dict(),
    }
    Dataset.from_list([row]).to_json(tmp_path / "rows.jsonl")
    flags = [
        "--model_name_or_path",
        tmp_path / "lm",
        "--dataset_name",
        tmp_path / "rows.jsonl",
        "--environment",
        "webshop",
    ]
    for reward, score in (("rescore", 0.0), ("claimed", 0.5), ("zero", 0.0)):
        options = json.dumps({"catalogue": "small", "synthetic_reward": reward})
        written = tmp_path / f"{reward}.jsonl"
        run(synthesize, *flags, "--max_new_tokens", 3, "--environment_kwargs", options, "--output_path", written)
        # The settings that a run resumes by hold what the rules pay for the first row.
        settings = json.loads((tmp_path / f"{reward}.jsonl.settings.json").read_text())
        assert settings["rules"] == ["webshop", [score], True, score, False]
    with pytest.raises(ValueError, match="synthetic_reward 'much' is not one of rescore, claimed, zero"):
        run(synthesize, *flags, "--environment_kwargs", '{"synthetic_reward": "much"}', "--output_path", written)


def test_synthesize_asks_for_the_environment(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["synthesize", "--model_name_or_path", "m", "--dataset_name", "d", "--output_path", "x.jsonl"])
    assert stopped.value.code == 2 and "--environment" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "change, environment, options, complaint",
    [
        ({"task": None, "category": None}, "twenty_questions", {}, "row 3, column `category`: this is no game of"),
        (
            {"task": None, "category": "Cooking"},
            "twenty_questions",
            {},
            "row 3, column `category`: this is no game of",
        ),
        ({}, "twenty_questions", {"world": "full"}, "row 0, column `task`: this is no game of 'twenty_questions'"),
        ({}, "webshop", {"catalogue": "small"}, "row 0, column `task`: this is no game of 'webshop'"),
        ({}, "car_dealer", {}, "row 0, column `task`: this is no game of 'car_dealer'"),
    ],
)
def test_rows_that_are_no_games_of_the_environment_are_refused(
    folder, tmp_path, capsys, change, environment, options, complaint
):
    rows = load_rows(str(folder / "rows.jsonl")).to_list()
    rows[3] |= change
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [
        "--dataset_name",
        tmp_path / "rows.jsonl",
        "--output_path",
        tmp_path / "x.jsonl",
        "--environment",
        environment,
    ]
    flags += ["--model_name_or_path", folder / "lm", "--environment_kwargs", json.dumps(options)]
    assert cli.main(["synthesize", *map(str, flags)]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("boost-trl synthesize: ")]
    assert f"rows.jsonl, {complaint}" in said and not (tmp_path / "x.jsonl").exists()


def test_bad_arguments_are_named_before_a_model_is_loaded():
    with pytest.raises(ValueError, match=r"`output_path` must .*, got 'x\.csv'"):
        run(rollout, "--model_name_or_path", "missing", "--output_path", "x.csv")
    with pytest.raises(ValueError, match=r"`output_path` must end with \.jsonl"):
        flags = ["--dataset_name", "d", "--output_path", "x.parquet", "--environment", "twenty_questions"]
        run(synthesize, "--model_name_or_path", "missing", *flags)
    with pytest.raises(ValueError, match="no JSON"):
        run(rollout, "--model_name_or_path", "missing", "--environment_kwargs", "{max: 3}")
    with pytest.raises(ValueError, match="must be a mapping"):
        run(rollout, "--model_name_or_path", "missing", "--environment_kwargs", "[3]")
    with pytest.raises(ValueError, match="no environment is called 'chess'"):
        run(rollout, "--model_name_or_path", "missing", "--environment", "chess")
    with pytest.raises(ValueError, match="has no option `questions`; its options: .*`max_questions`"):
        run(rollout, "--model_name_or_path", "missing", "--environment_kwargs", '{"questions": 3}')


@pytest.mark.parametrize(
    "flag, value",
    [
        ("temperature", "-1"),
        ("temperature", "nan"),
        ("temperature", "inf"),
        ("beta", "nan"),
        ("beta", "inf"),
        ("num_envs", "0"),
        ("max_new_tokens", "0"),
        ("num_games", "0"),
        ("show_games", "-1"),
    ],
)
def test_numbers_that_cannot_be_played_are_refused(flag, value):
    with pytest.raises(ValueError, match=f"`{flag}` must be .* got {value}"):
        run(rollout, "--model_name_or_path", "missing", f"--{flag}", value)


@pytest.mark.parametrize(
    "flag, value", [("temperature", "0.0"), ("temperature", "nan"), ("batch_size", "0"), ("max_turns", "0")]
)
def test_numbers_that_cannot_be_synthesized_with_are_refused(flag, value):
    with pytest.raises(ValueError, match=f"`{flag}` must be .* got {value}"):
        flags = ["--dataset_name", "d", "--output_path", "x.jsonl", "--environment", "twenty_questions"]
        run(synthesize, "--model_name_or_path", "m", *flags, f"--{flag}", value)


@pytest.mark.parametrize("flags", [[], ["--no_use_value_heads"]])
def test_a_prior_needs_value_heads(folder, flags):
    with pytest.raises(ValueError, match="prior.*value heads"):
        run(rollout, "--model_name_or_path", folder / "lm", "--prior", "lm", *flags)


def test_games_keep_their_traceback(folder, monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("in the middle of it")

    monkeypatch.setattr("boost_trl.environments.rollout.rollout", broken)
    with pytest.raises(ValueError, match="in the middle of it"):
        cli.main(["rollout", "--model_name_or_path", str(folder / "lm")])


GAME = """
from boost_trl.environments import Task


class Echo:
    name, max_steps, system_prompt = "echo", 2, "Say anything."

    def tasks(self, categories=None):
        return [Task(name, "first") for name in "abcdefg"]

    def reset(self, *, seed=None, task=None):
        print("reset", end=";")
        self.task, self.count = task, 0
        return "Go.", self.info()

    def info(self):
        over = {"success": True, "score": 3.0} if self.count == 2 else {}
        return {"valid": True, "task_id": self.task.id, "category": self.task.category, "step": self.count} | over

    def step(self, action):
        print("step", end=";")
        self.count += 1
        return f"Answer {self.count}.", 1.0, self.count == 2, False, self.info()

    def admissible_actions(self):
        return None

    def close(self):
        pass
"""


def test_a_watched_game_of_a_file_is_shown_while_it_is_played(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "echo.py").write_text(GAME)
    flags = ["--model_name_or_path", folder / "lm", "--environment", "echo.py:Echo", "--max_new_tokens", 2, "--watch"]
    assert run(rollout, *flags, "--output_path", "games.jsonl")["num_games"] == 5
    games = load_rows("games.jsonl")
    assert len({game["task"]["id"] for game in games}) == 5
    game = games[0]
    said = [message["content"] for message in game["messages"] if message["role"] == "assistant"]
    printed = capsys.readouterr().out
    # An action is shown before the environment sees it, an answer as soon as it is there.
    shown = f"""reset;
{game["task"]["id"]} ({game["category"]})
     system: Say anything.
       user: Go.
  assistant: {said[0]}
step;       user: Answer 1.
  assistant: {said[1]}
step;       user: Answer 2.
  success
"""
    assert printed.startswith(shown) and "| echo | 5 | 3.00 ± 0.00 |" in printed
    assert run(rollout, *flags, "--num_games", 3)["num_games"] == 3
    assert capsys.readouterr().out.count("reset;") == 3
    # Not more than one of each task, unless more is asked for.
    (tmp_path / "two.jsonl").write_text(
        "".join(f'{{"task": {{"id": "{name}", "category": "first"}}}}\n' for name in "ab")
    )
    assert run(rollout, *flags, "--tasks_dataset_name", "two.jsonl")["num_games"] == 2
