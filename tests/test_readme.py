"""README's code blocks and commands run as they stand, on README's own rows.

A tiny model lies in a folder of each name that README takes from the Hub, so that no word of README is changed.
"""

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest

from boost_trl import ValuePolicy, cli
from boost_trl.environments.twenty_questions import pretraining


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
MODELS = ["openai-community/gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct"]
NO_TEMPLATE = MODELS[:1]
# A comparison's other methods and seeds are the same again; cells of the papers' tables run in tests of their own.
FEWER = {
    "compare": ["--methods", "sft", "two_stage", "--seeds", "0"],
    "reproduce": ["--report"],
    "demo": "--methods vanilla --dialogues 120 --validation_rows 10 --max_steps 20 --games 8 --validation_games 4".split(),
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("boost-trl ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer

    folder = tmp_path_factory.mktemp("newcomer")
    rows = [line for block in blocks("json") for line in block.splitlines()]
    assert rows and all(json.loads(row) for row in rows)
    for name in ("dialogues.jsonl", "trusted.jsonl"):
        (folder / name).write_text("".join(row + "\n" for row in rows))
    turns = [json.loads(row)["messages"] for row in rows]
    # Twelve trusted answers, which the pool does not have.
    asked, said = turns[0][0], [answer["content"] for _, answer in turns]
    both = [f"{first} {second}" for first, second in itertools.permutations(said, 2)]
    trusted = [[asked, {"role": "assistant", "content": answer}] for answer in both]
    for name, answers in {"answers.jsonl": turns * 4, "trusted_answers.jsonl": trusted}.items():
        (folder / name).write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in answers))
    pairs = [
        {"prompt": good[:1], "chosen": good[1:], "rejected": bad[1:]}
        for good, bad in zip(turns, turns[1:] + turns[:1])
    ]
    for name in ("pairs.jsonl", "trusted_pairs.jsonl"):
        (folder / name).write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    words = sorted({word for row in rows for turn in json.loads(row)["messages"] for word in turn["content"].split()})
    for name in MODELS:
        tokenizer = word_tokenizer(["user:", "assistant:", "system:", *words])
        if name in NO_TEMPLATE:
            tokenizer.chat_template = None
        tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=512).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(autouse=True)
def newcomer(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BOOST_TRL_CACHE", str(folder / "cache"))


def test_its_code_runs_as_it_stands():
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["trainer"].state.global_step == names["trainer"].args.max_steps
    for code in re.findall(r"`((?:trainer\.policy|ValuePolicy\.from_pretrained)\([^`]*\))`", README):
        assert isinstance(eval(code, {**names, "ValuePolicy": ValuePolicy}), ValuePolicy)


def test_its_commands_run_as_they_stand_one_after_the_other(capsys, monkeypatch):
    # A minute of pretraining is for people who watch; here the demo's model may stay ignorant.
    for name, value in {"FACT_STEPS": 3, "DIALOGUE_STEPS": 3, "NUM_TEXTS": 200}.items():
        monkeypatch.setattr(pretraining, name, value)
    assert {command[1] for command in commands()} == set(cli.COMMANDS)
    for command in commands():
        status = cli.main([*command[1:], *FEWER.get(command[1], [])])
        assert status == 0, capsys.readouterr().err.splitlines()[-1]
