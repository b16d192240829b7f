"""The code of the pages runs, and so do the quickstart's commands, block after block and word for word but for the sizes in `SMALLER`.

Tiny models lie in folders of the names that pages take from the Hub. Pages on environments, the Hub and the selector have tests of
their own.
"""

import json
import re
import shlex
from pathlib import Path

import pytest
from page_code import python_blocks

from boost_trl import cli
from boost_trl.environments.twenty_questions import pretraining


DOCS = Path(__file__).parents[1] / "docs"
MODELS = ["Qwen/Qwen2.5-0.5B-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", "openai-community/gpt2"]
WORDS = "What Tell And about me A question on please. 30 7 2 5 1 3 9 to 6 noon 8 days weeks years year week month 4 8 10 11 12".split()
# Page -> what is written there and what is run in its place. A page without any runs as it stands.
SMALLER = {
    "trajectory_format": {},
    "coming_from": {},
    "quickstart": {},
    "bilevel_sft_self_refine_trainer": {
        "output_dir=": "bf16=False, max_steps=2, output_dir=",
        "online_ratio=0.1": "bf16=False, online_ratio=0.1",
    },
    "bilevel_dpo_trainer": {"output_dir=": "bf16=False, max_steps=2, output_dir="},
    "analysis": {},
    "value_policy": {},
    "compare": {
        "learning_rate=1e-4),": 'max_steps=2, bf16=False), seeds=[0], methods=["sft", "two_stage"],',
        "HuggingFaceTB/SmolLM2-135M-Instruct": "Qwen/Qwen2.5-0.5B-Instruct",
        "pretraining_epochs=14": "num_rows=40, pretraining_epochs=0",
        "env, 1000,": "env, 40,",
        "env, 60,": "env, 12,",
        "max_steps=400": "max_steps=40",
        "num_games=128": 'num_games=2, seeds=[0], methods=["vanilla_validation", "two_stage"]',
    },
}
ELSEWHERE = {
    "README": "test_readme.py",
    "bilevel_offline_rl_trainer": "scripts/test_offline_rl_quick_start.py",
    "selector": "selection/test_selector.py",
    "hub_and_trackers": "hub/test_hub.py",
    "environments": "environments/test_environments_page.py",
    "synthetic_data": "environments/test_environments_page.py",
    "environments_and_trl": "environments/adapters/test_page.py",
    "twenty_questions": "environments/twenty_questions/test_page.py",
    "car_dealer": "environments/car_dealer/test_page.py",
    "webshop": "environments/webshop/test_page.py",
}
# A comparison's other seeds are the same again.
FEWER = {"compare": ["--seeds", "0"]}


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory):
    from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer

    folder = tmp_path_factory.mktemp("models")
    tokenizer = word_tokenizer(["user:", "assistant:", "system:", *WORDS, *pretraining.small_vocabulary()])
    model = tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=256)
    for name in MODELS:
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path, models_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path / "cache"))
    for name in {name.split("/")[0] for name in MODELS}:
        Path(name).symlink_to(models_folder / name)
    for name, value in {"FACT_STEPS": 3, "DIALOGUE_STEPS": 3, "NUM_TEXTS": 200}.items():
        monkeypatch.setattr(pretraining, name, value)
    return tmp_path


def dialogues(rows, **columns):
    from datasets import Dataset

    from boost_trl import make_env
    from boost_trl.environments.twenty_questions.offline_data import offline_trajectories

    games = offline_trajectories(make_env("twenty_questions"), rows, seed=0)
    return Dataset.from_list([{**row, **columns} for row in games.select_columns(["messages", "rewards"])])


def answers(rows):
    from datasets import Dataset

    return Dataset.from_list([{"prompt": "What about", "completion": f" {i % 10} days {i}"} for i in range(rows)])


def agent():
    """A trainer of an agent, after two updates."""
    from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer

    args = BilevelOfflineRLConfig(
        "agent", algorithm="mc", method="vanilla", max_steps=2, use_cpu=True, report_to="none"
    )
    trainer = BilevelOfflineRLTrainer(MODELS[0], args, train_dataset=dialogues(16, source="offline"))
    trainer.train()
    return trainer


def names_of(page):
    """What a page's code takes as given."""
    if page == "bilevel_sft_self_refine_trainer":
        return {"pool": answers(12), "trusted": answers(8), "aside": answers(4)}
    if page == "bilevel_dpo_trainer":
        from datasets import Dataset

        pairs = [{"prompt": "What about", "chosen": f" {i} days", "rejected": f" {i} weeks"} for i in range(1, 13)]
        return {"pool": Dataset.from_list(pairs), "trusted": Dataset.from_list(pairs[:6])}
    if page == "analysis":
        return {"trainer": agent()}
    if page == "compare":
        answers(40).to_json("pool.jsonl")
        answers(12).to_json("trusted.jsonl")
    if page == "value_policy":
        agent().save_model("outputs/twenty-questions")
    return {}


def run_command(line):
    words = shlex.split(line, comments=True)
    assert words[0] == "boost-trl"
    assert cli.main([*words[1:], *FEWER.get(words[1], [])]) == 0, line


@pytest.mark.parametrize("page", SMALLER)
def test_its_code_runs(page, monkeypatch):
    from boost_trl import ValuePolicy

    monkeypatch.setattr(ValuePolicy, "push_to_hub", lambda *args, **kwargs: None)
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    code = python_blocks(text)
    for written, smaller in SMALLER[page].items():
        assert any(written in block for block in code), written
        code = [block.replace(written, smaller) for block in code]
    names = names_of(page)
    if page == "quickstart":
        blocks = re.findall(r"```(python|bash)\n(.*?)```", text, flags=re.DOTALL)
        for language, block in blocks:
            if language == "python":
                exec(compile(block, page, "exec"), names)
            for line in block.replace("\\\n", " ").splitlines() if language == "bash" else []:
                run_command(line)
        assert json.loads(Path("outputs/compare/verdict.json").read_text())
        return
    for block in code:
        exec(compile(block, page, "exec"), names)


def test_every_page_with_code_is_run():
    with_code = {path.stem for path in DOCS.glob("*.md") if python_blocks(path.read_text(encoding="utf-8"))}
    assert with_code <= SMALLER.keys() | ELSEWHERE.keys()
    assert not [name for name in ELSEWHERE.values() if not (DOCS.with_name("tests") / name).is_file()]
